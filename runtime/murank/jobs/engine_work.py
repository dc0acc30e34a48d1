"""What a process does with units of a job: decode, embed, ask."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError, MachineError
from murank.crew.crew_protocol import Make
from murank.engine.encoder import NoFeatureError
from murank.engine.memory_cache import KeptImage, NotKeptError
from murank.images import Preprocessing, ReadyImage
from murank.jobs.image_contents import Content, NoContent, read_content
from murank.jobs.job_units import (
    AskAnswer,
    AskUnit,
    EmbedAnswer,
    EmbedUnit,
    OneOrder,
    OrderAnswer,
    Provenance,
)  # fmt: skip
from murank.jobs.lazy_engine import LazyEngine
from murank.journal.journal import Digest
from murank.machine.cores import decoding_threads
from murank.machine.device_kind import device_kind

if TYPE_CHECKING:
    from murank.engine.engine import Engine

QUERY, CANDIDATE = "<query image>", "<candidate image>"  # stand for paths in reasons of pairs

_MOST_KEYS = 1 << 18  # that are remembered; more images' tokens are hardly kept

_Begun = Sequence[Future[Content | NoContent] | KeptImage]
_Found = Sequence[Content | NoContent | KeptImage]
_Shown = ReadyImage | KeptImage
_Rows = Mapping[int, Sequence[int]]  # image of a query -> places of its pairs, as many for each


class EngineWork:
    """UnitWork with one engine, loaded at the first unit; `cores` as `decoding_threads` has it."""

    def __init__(self, engine: LazyEngine, *, cores: int | None = None) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(decoding_threads(cores))
        self._embedded: set[Digest] = set()  # by this process
        self._keys: OrderedDict[Digest, str] = OrderedDict()  # of pixels, by their file's content
        self._provenance: dict[tuple[str, ...], Provenance] = {}

    def begin(self, unit: EmbedUnit | AskUnit) -> _Begun:
        """Read and decode the unit's images."""
        is_first = isinstance(unit, EmbedUnit)
        part = self._engine.encoder if is_first else self._engine.scorer
        return [
            self._kept(digest) or self._threads.submit(_read, path, part.preprocessing, digest)
            for path, digest in zip(unit.paths, unit.expected, strict=True)
        ]

    def finish(self, unit: EmbedUnit | AskUnit, begun: _Begun) -> EmbedAnswer | AskAnswer:
        """Ask the engine."""
        if isinstance(unit, EmbedUnit):
            return self._embed(unit, _results(begun))
        try:
            return self._ask(unit, _results(begun))
        except NotKeptError:  # too many other images were shown since
            self._keys.clear()
            return self._ask(unit, _results(self.begin(unit)))

    def _kept(self, digest: Digest | None) -> KeptImage | None:
        """Return what stands for a content whose vision tokens are kept."""
        key = None if digest is None else self._keys.get(digest)
        if key is None or self._engine.loaded.need_scorer().remembered(key) is None:
            return None
        return KeptImage(key)

    def _embed(self, unit: EmbedUnit, contents: _Found) -> EmbedAnswer:
        images: dict[Digest, tuple[str, ReadyImage]] = {}
        for path, content in zip(unit.paths, contents, strict=True):
            if isinstance(content, Content) and content.ready is not None:  # noqa: SIM102
                if content.digest not in self._embedded:
                    images.setdefault(content.digest, (path, content.ready))
        features = self._features([*images.values()])
        self._embedded.update(images)
        return EmbedAnswer(
            [one.digest if isinstance(one, Content) else None for one in contents],
            {i: one.reason for i, one in enumerate(contents) if isinstance(one, NoContent)},
            _refused(contents), [*images], features, self._made_by("encoder"),
        )  # fmt: skip

    def _features(self, images: Sequence[tuple[str, ReadyImage]]) -> NDArray[np.float32]:
        dim = self._engine.encoder.dim
        if not images:
            return np.empty((0, dim), np.float32)
        paths = [path for path, _ in images]
        try:
            features = self._engine.loaded.embed([image for _, image in images])
        except NoFeatureError as error:
            named = NoFeatureError(self._engine.folder, error.place, Path(paths[error.place]))
            raise named from error
        _check_features(features, paths)
        return features

    def _ask(self, unit: AskUnit, contents: _Found) -> AskAnswer:
        images: dict[int, _Shown] = {}
        for place, content in enumerate(contents):
            if isinstance(content, KeptImage):
                images[place] = content
            elif isinstance(content, Content) and content.ready is not None:
                images[place] = content.ready
        before = self._seen()
        orders = {
            order: self._ask_in(unit, images, order, wanted)
            for order, wanted in unit.orders.items()
        }
        after = self._seen()
        if after != before:  # an engine that keeps tokens
            self._remember(contents)
        return AskAnswer(
            orders,
            {i: one.reason for i, one in enumerate(contents) if isinstance(one, NoContent)},
            {
                i: one.refused
                for i, one in enumerate(contents)
                if isinstance(one, Content) and one.refused is not None
            },
            self._made_by("vision", "decoder"),
            (after[0] - before[0], after[1] - before[1]),
        )

    def _ask_in(
        self,
        unit: AskUnit,
        images: Mapping[int, _Shown],
        order: OneOrder,
        wanted: NDArray[np.bool_],
    ) -> OrderAnswer:
        mu = np.full(len(unit.pairs), np.nan, np.float32)
        reasons: dict[int, str] = {}

        def score(rows: _Rows) -> NDArray[np.float32]:
            queries = [images[query] for query in rows]
            candidates = [
                [images[int(unit.pairs[place, 1])] for place in places] for places in rows.values()
            ]
            # Loaded in here: an engine that cannot be loaded is no pair's fault.
            engine = self._engine.loaded
            try:
                return _mu(engine, queries, candidates, order)
            except MachineError as error:
                names = ", ".join(unit.paths[query] for query in rows)
                raise MachineError(f"while asking about {names}: {error}") from error

        for rows in _askable(unit, images, wanted):
            for place, answer in _answers(score, rows):
                if isinstance(answer, InputError):
                    reasons[place] = _reason(answer)
                else:
                    mu[place] = answer
        return OrderAnswer(mu, reasons)

    def _remember(self, contents: _Found) -> None:
        for one in contents:
            if isinstance(one, Content) and one.ready is not None:
                self._keys[one.digest] = one.ready.key
        while len(self._keys) > _MOST_KEYS:
            self._keys.popitem(last=False)

    def _seen(self) -> tuple[int, int]:
        """Return how many vision tokens were looked up so far, and how many were computed."""
        scorer = getattr(self._engine.loaded, "scorer", None) if self._engine.is_loaded else None
        vision = getattr(scorer, "vision", None)
        return (0, 0) if vision is None else (vision.looked_up, vision.computed)

    def _made_by(self, *graphs: str) -> Provenance:
        if graphs not in self._provenance:
            providers = self._engine.providers(*graphs)
            self._provenance[graphs] = Provenance(device_kind(providers), providers)
        return self._provenance[graphs]


def _load_and_work(
    folder: Path, sha256: str, parts: Any, options: Mapping[str, Any], cores: int | None
) -> EngineWork:
    engine = LazyEngine(folder, parts, {**options, "sha256": sha256})
    engine.loaded  # noqa: B018 - before the first unit: a process that cannot load must say so
    return EngineWork(engine, cores=cores)


def work_elsewhere(engine: LazyEngine, *, cores: int | None = None, **options: Any) -> Make:
    """Return what makes the same work in another process; it must find the same engine there.

    `cores` is that process's share of its machine's.
    """
    return partial(
        _load_and_work, engine.folder.absolute(), engine.sha256, tuple(engine.parts),
        {**engine.options, **options}, cores,
    )  # fmt: skip


def _read(path: str, how: Preprocessing, expected: Digest | None) -> Content | NoContent:
    found = read_content(Path(path), how, expected=expected)
    if isinstance(found, Content) and found.ready is not None:
        found.ready.key  # noqa: B018 - hashed here, in a thread of its own
    return found


def _results(begun: _Begun) -> _Found:
    return [one if isinstance(one, KeptImage) else one.result() for one in begun]


def _mu(
    engine: "Engine",
    queries: Sequence[_Shown],
    candidates: Sequence[Sequence[_Shown]],
    order: OneOrder,
) -> NDArray[np.float32]:
    from murank.engine.pair_orders import mu_in_order

    if any(isinstance(one, KeptImage) for row in [queries, *candidates] for one in row):
        return mu_in_order(engine.need_scorer(), queries, candidates, order).astype(np.float32)
    ready = [[one for one in row if isinstance(one, ReadyImage)] for row in [queries, *candidates]]
    return engine.mu_many(ready[0], ready[1:], order=order)


def _refused(contents: _Found) -> dict[Digest, str]:
    return {
        one.digest: one.refused
        for one in contents
        if isinstance(one, Content) and one.refused is not None
    }


def _check_features(features: NDArray[np.float32], paths: Sequence[str]) -> None:
    bad = ~np.isfinite(features).all(axis=1) | ~features.any(axis=1)
    if bad.any():
        raise InputError(
            f"{paths[int(np.argmax(bad))]}: the encoder gives NaN, infinity or zeros for it; leave "
            "the image out, or export the encoder with another precision"
        )


def _askable(unit: AskUnit, images: Mapping[int, _Shown], wanted: NDArray[np.bool_]) -> list[_Rows]:
    """Return pairs of usable images; what the engine is asked at once has rows of one length."""
    rows: dict[int, list[int]] = {}
    for place in np.flatnonzero(wanted).tolist():
        query, candidate = unit.pairs[place].tolist()
        if query in images and candidate in images:
            rows.setdefault(query, []).append(place)
    askable: dict[int, dict[int, list[int]]] = {}
    for query, places in rows.items():
        askable.setdefault(len(places), {})[query] = places
    return list(askable.values())


def _answers(score: Any, rows: _Rows) -> Iterator[tuple[int, float | InputError]]:
    """Yield places of pairs, and mu or why there is none: a bad pair takes no other with it."""
    try:
        mu = score(rows)
    except InputError as error:
        reason, smaller = error.with_traceback(None), _smaller(rows)
    else:
        for places, values in zip(rows.values(), mu.tolist(), strict=True):
            yield from zip(places, values, strict=True)
        return
    if not smaller:
        (((place,)),) = rows.values()
        yield place, reason
    for one in smaller:
        yield from _answers(score, one)


def _smaller(rows: _Rows) -> list[_Rows]:
    """Split several queries into one each, a query into its pairs, a pair no further."""
    if len(rows) > 1:
        return [{query: places} for query, places in rows.items()]
    ((query, places),) = rows.items()
    return [{query: [place]} for place in places] if len(places) > 1 else []


def _reason(error: InputError) -> str:
    from murank.engine.no_answer import NoAnswerError

    if isinstance(error, NoAnswerError):
        return str(error.called(QUERY, CANDIDATE))
    return f"{QUERY} and {CANDIDATE}: {error}"
