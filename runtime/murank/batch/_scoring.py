"""The third stage: pairs of images to mu.npz and mu_swapped.npz."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank._mu import MuDistances, mean_mu
from murank.batch._engine import LazyEngine
from murank.batch._images import decoded_ahead
from murank.batch._report import Report
from murank.batch._stage import Parts, Record, StageFile, batches, fingerprint, signature
from murank.batch._workspace import MU_FILES, Workspace

if TYPE_CHECKING:
    from PIL.Image import Image

    from murank.engine.engine import Engine

OneOrder = Literal["given", "swapped"]
Order = Literal["given", "swapped", "both"]
ORDERS: Mapping[Order, tuple[OneOrder, ...]] = {
    "given": ("given",), "swapped": ("swapped",), "both": ("given", "swapped")
}  # fmt: skip

_PART = 32  # queries; what a killed run loses at most
_QUERIES = 8  # that the engine is given at once, at most
_PAIRS = 80  # that it is given at once, about


@dataclass(frozen=True)
class Pairs:
    """Queries and their candidates, as images."""

    query_paths: Sequence[Path]  # [Q]
    gallery_paths: Sequence[Path]  # [G]
    candidates: NDArray[np.int64]  # [Q,K] gallery indices, nearest first

    def paths(self, queries: range) -> list[Path]:
        """Return each image that these queries need, once."""
        gallery = np.unique(self.candidates[queries.start : queries.stop])
        queried = [self.query_paths[query] for query in queries]
        return list(dict.fromkeys([*queried, *(self.gallery_paths[i] for i in gallery)]))

    def signature(self, queries: range) -> list[Any]:
        """Return what changes when a pair of these queries does."""
        return [
            self.candidates[queries.start : queries.stop].tolist(),
            [self._signatures[self.query_paths[query]] for query in queries],
            [
                [self._signatures[self.gallery_paths[i]] for i in self.candidates[query]]
                for query in queries
            ],
        ]

    def check(self) -> None:
        """Raise InputError if an image is not there."""
        missing = [path for path, found in self._signatures.items() if found is None]
        if missing:
            raise InputError(
                f"{missing[0]}: no such file ({len(missing)} of {len(self._signatures)} images to "
                "be scored are missing); relative paths in --features start at --image-root"
            )

    @cached_property
    def _signatures(self) -> dict[Path, Any]:
        paths = self.paths(range(len(self.query_paths)))
        return {path: signature(path) for path in paths}


@dataclass(frozen=True)
class Scored:
    """Mu of the candidates."""

    mu: MuDistances
    records: dict[str, Record]  # by file name
    states: dict[str, str]  # "made", "resumed" or "reused"


@dataclass(frozen=True)
class _Half:
    """One of the two prompt orders."""

    order: OneOrder
    fingerprint: str
    stage: StageFile | None  # finished and fitting
    parts: Parts

    @property
    def file(self) -> str:
        """Name of the stage's file."""
        return MU_FILES[self.order]


def score(
    pairs: Pairs,
    engine: LazyEngine,
    workspace: Workspace,
    *,
    order: Order,
    features: str,
    made_from: str | None = None,
    report: Report,
) -> Scored:
    """Ask the engine for mu of all pairs, in one prompt order or in both.

    `features` is the fingerprint of the features that gave the candidates; `made_from`, if given,
    also invalidates mu when it changes.

    Raises
    ------
    InputError
        An image cannot be read; parts that were finished before stay.
    """
    pairs.check()
    starts = range(0, len(pairs.query_paths), _PART)
    signatures = [
        fingerprint("mu", engine.sha256, made_from, pairs.signature(queries))
        for queries in (range(i, min(i + _PART, len(pairs.query_paths))) for i in starts)
    ]
    halves = [_half(one, signatures, workspace, report) for one in ORDERS[order]]
    states = {
        half.file: "reused" if half.stage else half.parts.announce(half.file, report)
        for half in halves
    }
    _score_missing(pairs, [half for half in halves if half.stage is None], engine, report)
    found = []
    records: dict[str, Record] = {}
    for half in halves:
        stage = half.stage
        arrays = half.parts.merged() if stage is None else stage.arrays
        providers = (
            engine.providers("vision", "decoder") if stage is None else stage.record["providers"]
        )
        record = {"fingerprint": half.fingerprint, "features": features, "providers": providers}
        if stage is None or stage.record != record:
            workspace.write(half.file, arrays, record)
        found.append(arrays["probs"])
        records[half.file] = record
    mu = found[0] if len(found) == 1 else mean_mu(*found)
    return Scored(MuDistances(mu, pairs.candidates), records, states)


def _half(
    order: OneOrder,
    signatures: Sequence[str],
    workspace: Workspace,
    report: Report,
) -> _Half:
    name = MU_FILES[order]
    fingerprints = [fingerprint(order, one) for one in signatures]
    wanted = fingerprint(fingerprints)
    stage = workspace.read(name)
    if stage is not None and stage.record["fingerprint"] == wanted:
        report.say(f"{name}: reused")
        return _Half(order, wanted, stage, Parts([]))
    return _Half(order, wanted, None, workspace.parts(name, fingerprints))


def _score_missing(
    pairs: Pairs, halves: Sequence[_Half], engine: LazyEngine, report: Report
) -> None:
    total, k = pairs.candidates.shape
    missing = {number for half in halves for number in half.parts.missing}
    work = batches(total, part=_PART, batch=max(1, min(_QUERIES, _PAIRS // k)), parts=missing)
    needed = [pairs.paths(queries) for _, queries in work]
    show = report.part("mu")
    groups = groupby(zip(work, needed, decoded_ahead(needed), strict=True), lambda item: item[0][0])
    for number, group in groups:
        wanted = [half for half in halves if number in half.parts.missing]
        found: dict[str, list[NDArray[np.float32]]] = {half.order: [] for half in wanted}
        for (_, queries), paths, images in group:
            read = _all_read(paths, images)
            for half in wanted:
                found[half.order].append(_ask(engine, pairs, queries, read, half.order))
            show("queries", queries.stop, total)
        for half in wanted:
            part = pairs.candidates[number * _PART : (number + 1) * _PART]
            probs = np.concatenate(found[half.order])
            half.parts.save(number, {"probs": probs, "gallery_indices": part})


def _all_read(paths: Sequence[Path], images: "Sequence[Image | InputError]") -> "dict[Path, Image]":
    read = {}
    for path, image in zip(paths, images, strict=True):
        if isinstance(image, InputError):
            raise image
        read[path] = image
    return read


def _ask(
    engine: LazyEngine,
    pairs: Pairs,
    queries: range,
    images: "Mapping[Path, Image]",
    order: OneOrder,
) -> NDArray[np.float32]:
    loaded = engine.loaded
    asked = [images[pairs.query_paths[query]] for query in queries]
    candidates = [
        [images[pairs.gallery_paths[i]] for i in pairs.candidates[query]] for query in queries
    ]
    try:
        mu = loaded.score(asked, candidates, order=order)
    except InputError:
        for path, image in images.items():
            _check_alone(loaded, path, image)
        raise
    bad = ~((mu >= 0) & (mu <= 1)).all(axis=1)
    if bad.any():
        path = pairs.query_paths[queries[int(np.argmax(bad))]]
        raise InputError(
            f"{path}: the engine gives no mu in [0, 1] for a pair of it; export the engine with "
            "another precision"
        )
    return mu


def _check_alone(engine: "Engine", path: Path, image: "Image") -> None:
    """Raise an InputError that names the image if it is the one that cannot be scored."""
    try:
        engine.score([image], [[image]])
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
