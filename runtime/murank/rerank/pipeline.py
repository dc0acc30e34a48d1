"""From features to a ranking: one pass over the distances evaluates and keeps the k best."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._version import __version__
from murank.datasets.labels import Labels
from murank.machine.hardware import cpu_model
from murank.rerank.alignment import OFF, Aligned, Alignment
from murank.rerank.features import FeatureSet
from murank.rerank.methods import (
    METHODS,
    Progress,
    distance_blocks,
    kernel_errors,
    used_parameters,
)
from murank.rerank.metrics import metrics_of
from murank.rerank.mu import MuDistances
from murank.rerank.ranking import Ranking
from murank.rerank.resume import Memory, Part, fingerprint_of
from murank.rerank.searches import EXACT, Neighbours, Searches
from murank.rerank.verdicts import (
    Verdicts,
    evaluator_arguments,
    protocol_json,
    verdicts_of,
    why_not,
)

SCHEMA_VERSION = 1
NOTICE = "Rows are candidate matches ordered by distance; a person decides whether they match."


@dataclass(frozen=True)
class Settings:
    """What to compute."""

    method: str
    parameters: Mapping[str, Any]  # those given; the others keep the kernel's defaults
    protocol: Mapping[str, Any]  # keyword arguments of RankEvaluator
    top_k: int = 50
    device: str = "cpu"
    alignment: Alignment = OFF
    neighbours: Neighbours = EXACT


@dataclass(frozen=True)
class Outcome:
    """A ranking and how it came about."""

    ranking: Ranking
    before: Ranking | None  # by the encoder alone, where it was asked for
    summary: dict[str, Any]  # JSON-ready
    curves: dict[
        str, NDArray[np.floating[Any]]
    ]  # CMC of those in summary's `metrics` that are known


@dataclass
class StageClock:
    """Wall seconds of each stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)


def rerank(
    features: FeatureSet,
    aligned: Aligned,
    mu: MuDistances | None,
    settings: Settings,
    *,
    gallery_mu: MuDistances | None = None,
    clock: StageClock,
    progress: Callable[[str], Progress] | None = None,
    keep_before: bool = False,
    memory: Memory | None = None,
) -> Outcome:
    """Re-rank what was aligned, and evaluate every step where labels exist.

    `gallery_mu` is mu between gallery images, [G,M], for a method that takes it. With `keep_before`
    the ranking by the encoder alone is kept, too. With `memory` the work goes on where it was.

    Raises
    ------
    InputError, MachineError
        The kernels refuse an argument; raised before any work.
    """
    named: Callable[[str], Progress | None] = progress or (lambda _name: None)
    with clock.stage("prepare"):
        check_settings(aligned.features, mu, settings, gallery_mu=gallery_mu)
        verdicts = verdicts_of(features.labels, settings.protocol)
        reason = _why_not_evaluated(features, settings, verdicts)
    labels = features.labels if reason is None else None
    searches = Searches(settings.neighbours, memory)
    steps = _Steps(features, settings, labels, clock, named, searches)
    notes = [] if reason is not None or verdicts is None else verdicts.notes

    def blocks() -> Any:  # made late, so that features are copied once at a time
        return distance_blocks(
            settings.method, aligned.features, mu, gallery_mu=gallery_mu, device=settings.device,
            search=searches.of("rerank"), progress=named(settings.method),
            **settings.parameters,
        )  # fmt: skip

    encoder, between, after = _all_steps(steps, aligned, blocks, keep_before=keep_before)
    without = None
    if steps.labels is not None and (mu is not None or gallery_mu is not None):
        without = steps.without_mu(aligned.features) or between or encoder
    summary = {
        **_description(features, mu, gallery_mu, settings),
        "neighbours": _how_found(searches, settings),
        "alignment": aligned.to_json(settings.alignment),
        "metrics": {
            "before": encoder.metrics, "aligned": between and between.metrics,
            "without_mu": without and without.metrics, "after": after.metrics,
        },
        "not_evaluated": reason,
        "notes": [*features.shared_notes, *notes, *aligned.notes],
        "seconds": clock.seconds,
    }  # fmt: skip
    ranking = after.ranking(features)
    steps_made = {"before": encoder, "aligned": between, "without_mu": without, "after": after}
    curves = {name: step.cmc for name, step in steps_made.items() if step and step.cmc is not None}
    before = encoder.ranking(features) if keep_before else None
    return Outcome(ranking, before, summary, curves)


def check_settings(
    features: FeatureSet,
    mu: MuDistances | None,
    settings: Settings,
    *,
    gallery_mu: MuDistances | None = None,
) -> None:
    """Raise what `rerank` would raise about the settings, before there is anything to re-rank.

    Features and mu may be stand-ins of the right shapes.
    """
    distance_blocks(
        settings.method, features, mu, gallery_mu=gallery_mu, device=settings.device,
        **settings.parameters,
    )  # fmt: skip


def fingerprint(
    features: FeatureSet,
    mu: MuDistances | None,
    settings: Settings,
    *,
    gallery_mu: MuDistances | None = None,
    keep_before: bool = False,
) -> str:
    """Return a digest of all that the result of `rerank` depends on: rounding of products, too."""
    words = {
        "version": __version__, "numpy": np.__version__, "cpu": cpu_model(),
        "method": settings.method, "parameters": dict(settings.parameters),
        "protocol": protocol_json(settings.protocol), "top_k": settings.top_k,
        "alignment": settings.alignment.to_json(), "num_query": features.num_query,
        "keep_before": keep_before, "recall": settings.neighbours.recall,
    }  # fmt: skip
    scores = {"mu": mu, "gallery_mu": gallery_mu}
    named = {name: (None, None) if one is None else (one.mu, one.candidates)
             for name, one in scores.items()}  # fmt: skip
    arrays = {
        "features": features.features, "pids": features.pids, "camids": features.camids,
        "clothes": features.clothes,
        **{name: values for name, (values, _) in named.items()},
        **{f"{name} of": candidates for name, (_, candidates) in named.items()},
    }  # fmt: skip
    return fingerprint_of(words, arrays)


class _Best:
    """The k best of each query, filled block by block."""

    def __init__(self, features: FeatureSet, top_k: int) -> None:
        shape = (features.num_query, min(top_k, features.num_gallery))
        self._indices = np.empty(shape, np.int64)
        self._distances = np.empty(shape, np.float32)

    def update(self, first_query: int, distances: NDArray[np.float32]) -> None:
        from murank_kernels import smallest_k

        part = slice(first_query, first_query + len(distances))
        self._distances[part], self._indices[part] = smallest_k(distances, self._indices.shape[1])

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        return {"indices": self._indices, "distances": self._distances}

    def ranking(self, features: FeatureSet) -> Ranking:
        query, gallery = features.query, features.gallery
        return Ranking(
            self._indices, self._distances, query.paths, gallery.paths,
            query.pids, gallery.pids, query.camids, gallery.camids, query.clothes, gallery.clothes,
        )  # fmt: skip


@dataclass(frozen=True)
class _Step:
    """One ranking of a run."""

    evaluation: Any  # None: nothing can be evaluated
    best: _Best | None  # None: not kept

    @property
    def metrics(self) -> dict[str, Any] | None:
        if self.evaluation is None:
            return None
        found = self.evaluation
        counts = {"num_valid": int(found.num_valid), "num_emptied": int(found.num_emptied)}
        return {**metrics_of(found), **counts}

    @property
    def cmc(self) -> NDArray[np.floating[Any]] | None:
        return None if self.evaluation is None else self.evaluation.cmc

    def ranking(self, features: FeatureSet) -> Ranking:
        assert self.best is not None  # noqa: S101
        return self.best.ranking(features)


@dataclass(frozen=True)
class _Steps:
    """What one ranking after the other is made with; each is timed."""

    features: FeatureSet
    settings: Settings
    labels: Labels | None  # None: nothing is evaluated
    clock: StageClock
    named: Callable[[str], Progress | None]
    searches: Searches

    def by_encoder(self, features: FeatureSet, name: str, *, keep: bool = False) -> _Step:
        with self.clock.stage(name):
            blocks = distance_blocks(
                "none", features, device=self.settings.device, progress=self.named(name)
            )
            return self._walked(name, blocks, keep=keep)

    def reranked(self, blocks: Callable[[], Any]) -> _Step:
        with self.clock.stage("rerank"):
            return self._walked("rerank", blocks(), keep=True)

    def without_mu(self, features: FeatureSet) -> _Step | None:
        """Return the method's ranking without mu; None where it does nothing else than fuse it."""
        settings = self.settings
        if METHODS[settings.method].needs_mu:
            return None
        given = {key: value for key, value in settings.parameters.items() if key != "alpha"}
        with self.clock.stage("without_mu"):
            blocks = distance_blocks(
                settings.method, features, device=settings.device,
                search=self.searches.of("without_mu"),
                progress=self.named("without mu"), **given,
            )  # fmt: skip
            return self._walked("without_mu", blocks, keep=False)

    def _walked(self, name: str, blocks: Any, *, keep: bool) -> _Step:
        best = _Best(self.features, self.settings.top_k) if keep else None
        walk = _Pass(name, blocks, _evaluator(self.labels, self.settings), best, self.searches.told)
        memory = self.searches.memory
        return _Step(walk.done(None if memory is None else memory.part(name)), best)


def _all_steps(
    steps: _Steps, aligned: Aligned, blocks: Callable[[], Any], *, keep_before: bool
) -> tuple[_Step, _Step | None, _Step]:
    """Rank by the encoder, by aligned features (None: they are not), and by the method's blocks."""
    is_aligned, reranks = aligned.level != "off", steps.settings.method != "none"
    has_labels = steps.labels is not None
    encoder = between = None
    if (is_aligned or reranks) and (has_labels or keep_before):
        encoder = steps.by_encoder(steps.features, "encoder", keep=keep_before)
    if is_aligned and reranks and has_labels:
        between = steps.by_encoder(aligned.features, "aligned")
    after = steps.reranked(blocks)
    if is_aligned and not reranks:
        between = after
    return encoder or after, between, after


@dataclass(frozen=True)
class _Pass:
    """One pass over blocks of distances."""

    name: str
    blocks: Any
    evaluator: Any  # None: nothing is evaluated
    best: _Best | None  # None: not kept
    told: dict[str, Any]  # by searches, one of which may be behind these blocks

    def done(self, part: Part | None) -> Any:
        """Do it, or what is left of it; return the evaluation, None where nothing is evaluated."""
        with kernel_errors():
            first = 0 if part is None else self._resumed(part)
            for first_query, distances in self.blocks.after(first):
                if self.evaluator is not None:
                    self.evaluator.update(first_query, distances)
                if self.best is not None:
                    self.best.update(first_query, distances)
                done = first_query + len(distances)
                del distances  # before the next block is made
                if part is not None and part.due():
                    told = np.array(json.dumps(self.told.get(self.name)))
                    part.save({**self._arrays(), "next_query": np.array(done), "told": told})
            return None if self.evaluator is None else self.evaluator.result()

    def _arrays(self) -> dict[str, NDArray[Any]]:
        evaluated = {} if self.evaluator is None else self.evaluator.to_arrays()
        return {**evaluated, **({} if self.best is None else self.best.to_arrays())}

    def _resumed(self, part: Part) -> int:
        """Return the first query that nothing is known of yet."""
        known = part.load()
        if known is None:
            return 0
        for name, array in self._arrays().items():
            array[:] = known[name]
        self.told[self.name] = json.loads(str(known["told"]))
        return int(known["next_query"])


def _evaluator(labels: Labels | None, settings: Settings) -> Any:
    if labels is None:
        return None
    from murank_kernels import RankEvaluator

    with kernel_errors():
        return RankEvaluator(**evaluator_arguments(labels, settings.protocol))


def _why_not_evaluated(
    features: FeatureSet, settings: Settings, verdicts: Verdicts | None
) -> str | None:
    if features.labels is None:
        return f"not evaluated: {features.unlabelled or 'the features have no pids'}"
    if verdicts is None:
        return f"not evaluated: {why_not(features.labels, settings.protocol)}"
    if not verdicts.num_matches.any():
        return f"not evaluated: {verdicts.no_match}"
    return None


def _description(
    features: FeatureSet,
    mu: MuDistances | None,
    gallery_mu: MuDistances | None,
    settings: Settings,
) -> dict[str, Any]:
    given = {**settings.parameters, "device": settings.device}
    with_mu = mu is not None or gallery_mu is not None
    return {
        "schema_version": SCHEMA_VERSION,
        "murank_version": __version__,
        "notice": NOTICE,
        "method": settings.method,
        "parameters": used_parameters(settings.method, given, with_mu=with_mu),
        "protocol": protocol_json(settings.protocol),
        "counts": {
            "num_query": features.num_query,
            "num_gallery": features.num_gallery,
            "dim": int(features.features.shape[1]),
            "mu_candidates": _num_candidates(mu),
            "gallery_mu_candidates": _num_candidates(gallery_mu),
            "top_k": min(settings.top_k, features.num_gallery),
        },
    }


def _how_found(searches: Searches, settings: Settings) -> dict[str, Any] | None:
    if not METHODS[settings.method].has_neighbors:
        return None
    return searches.told.get("rerank") or {"method": "exact"}


def _num_candidates(mu: MuDistances | None) -> int:
    return 0 if mu is None else int(mu.mu.shape[1])
