"""The third stage, and the fourth: mu.npz and mu_swapped.npz, of the queries, of the gallery."""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.engine.pair_orders import Order
from murank.images.ahead import ready_ahead
from murank.jobs.asked_pairs import Pairs
from murank.jobs.asking import PairAnswers, Skip, ask, once_each
from murank.jobs.job_log import JobLog
from murank.jobs.lazy_engine import LazyEngine
from murank.jobs.stage import Arrays, Parts, Record, StageFile, batches, fingerprint
from murank.jobs.workspace import GALLERY_MU_FILES, MU_FILES, Workspace
from murank.rerank.mu import MuDistances, mean_mu

OneOrder = Literal["given", "swapped"]
HALVES: Mapping[Order, tuple[OneOrder, ...]] = {
    "given": ("given",), "swapped": ("swapped",), "both": ("given", "swapped")
}  # fmt: skip

_PART = 8  # queries; what a killed run loses at most
_QUERIES = 8  # that the engine is given at once, at most
_PAIRS = 80  # that it is given at once, about


@dataclass(frozen=True, eq=False)
class MuStage:
    """Which pairs are scored, and where their mu goes."""

    name: str  # in fingerprints, progress and timings
    rows: str  # what has candidates
    files: Mapping[str, str]  # by prompt order


QUERY_MU = MuStage("mu", "queries", MU_FILES)
GALLERY_MU = MuStage("gallery_mu", "gallery images", GALLERY_MU_FILES)


@dataclass(frozen=True)
class Scored:
    """Mu of the candidates."""

    mu: MuDistances
    skips: list[Skip]  # images that lack answers, each once
    records: dict[str, Record]  # by file name
    states: dict[str, str]  # "made", "resumed" or "reused"


@dataclass(frozen=True)
class _Half:
    """One of the two prompt orders."""

    order: OneOrder
    file: str  # name of the stage's file
    fingerprint: str
    stage: StageFile | None  # finished and fitting
    parts: Parts

    @property
    def skips(self) -> list[Skip]:
        """Images that lack answers, as far as is known by now."""
        if self.stage is not None:
            return [Skip(*one) for one in self.stage.record["skipped"]]
        skips = [skip for arrays in self.parts for skip in _skips(arrays)]
        return once_each(skips, operator.add)

    def finished(self) -> Arrays:
        """Return the arrays of the stage's file; InputError if it would say nothing."""
        if self.stage is not None:
            return self.stage.arrays
        arrays = self.parts.merged()
        if not arrays["answered"].any():
            raise InputError(f"not one pair can be scored; the first: {self.skips[0].reason}")
        return {name: arrays[name] for name in ("probs", "gallery_indices")}


def score(
    what: MuStage,
    pairs: Pairs,
    engine: LazyEngine,
    workspace: Workspace,
    *,
    order: Order,
    features: str,
    made_from: str | None = None,
    strict: bool = False,
    report: JobLog,
) -> Scored:
    """Ask the engine for mu of all pairs, in one prompt order or in both.

    A pair that has no answer, as of an image that cannot be read, gets the neutral mu in that
    order. `features` is the fingerprint of the features that gave the candidates; `made_from`, if
    given, also invalidates mu when it changes.

    Raises
    ------
    InputError
        No pair has an answer; with `strict`, one has none. Parts that were finished before stay.
    """
    starts = range(0, len(pairs.query_paths), _PART)
    signatures = [
        fingerprint(
            what.name, engine.answers_sha256, engine.read_as, made_from, pairs.signature(queries)
        )
        for queries in (range(i, min(i + _PART, len(pairs.query_paths))) for i in starts)
    ]
    halves = [_half(what, one, signatures, workspace, report) for one in HALVES[order]]
    states = {
        half.file: "reused" if half.stage else half.parts.announce(half.file, report)
        for half in halves
    }
    for half in halves:
        _check_skips(half.skips, strict=strict)
    unfinished = [half for half in halves if half.stage is None]
    _score_missing(what, pairs, unfinished, engine, strict=strict, report=report)
    computed = []
    records: dict[str, Record] = {}
    for half in halves:
        stage, arrays = half.stage, half.finished()
        providers = (
            engine.providers("vision", "decoder") if stage is None else stage.record["providers"]
        )
        record = {
            "fingerprint": half.fingerprint, "features": features, "providers": providers,
            "skipped": [list(skip) for skip in half.skips],
        }  # fmt: skip
        if stage is None or stage.record != record:
            workspace.write(half.file, arrays, record)
        computed.append(arrays["probs"])
        records[half.file] = record
    mu = computed[0] if len(computed) == 1 else mean_mu(*computed)
    skips = once_each((skip for half in halves for skip in half.skips), max)
    return Scored(MuDistances(mu, pairs.candidates), skips, records, states)


def _half(
    what: MuStage,
    order: OneOrder,
    signatures: Sequence[str],
    workspace: Workspace,
    report: JobLog,
) -> _Half:
    name = what.files[order]
    fingerprints = [fingerprint(order, one) for one in signatures]
    wanted = fingerprint(fingerprints)
    stage = workspace.read(name)
    if stage is not None and stage.record["fingerprint"] == wanted:
        report.say(f"{name}: reused")
        return _Half(order, name, wanted, stage, Parts([]))
    return _Half(order, name, wanted, None, workspace.parts(name, fingerprints))


def _score_missing(
    what: MuStage,
    pairs: Pairs,
    halves: Sequence[_Half],
    engine: LazyEngine,
    *,
    strict: bool,
    report: JobLog,
) -> None:
    total, k = pairs.candidates.shape
    missing = {number for half in halves for number in half.parts.missing}
    work = batches(total, part=_PART, batch=max(1, min(_QUERIES, _PAIRS // k)), parts=missing)
    needed = [pairs.paths(queries) for _, queries in work]
    ready = ready_ahead(needed, engine.scorer.preprocessing)
    show = report.part(what.name)
    groups = groupby(zip(work, needed, ready, strict=True), lambda item: item[0][0])
    for number, group in groups:
        wanted = [half for half in halves if number in half.parts.missing]
        answers_of: dict[str, list[PairAnswers]] = {half.order: [] for half in wanted}
        for (_, queries), paths, images in group:
            named = dict(zip(paths, images, strict=True))
            for half in wanted:
                # Loaded in here: an engine that cannot be loaded is no pair's fault.
                answers = ask(engine.loaded, pairs, queries, named, half.order)
                _check_skips(answers.skips, strict=strict)
                answers_of[half.order].append(answers)
            show(what.rows, queries.stop, total)
        candidates = pairs.candidates[number * _PART : (number + 1) * _PART]
        for half in wanted:
            half.parts.save(number, _as_arrays(answers_of[half.order], candidates))


def _as_arrays(answers: Sequence[PairAnswers], candidates: NDArray[np.int64]) -> Arrays:
    skips = once_each((skip for one in answers for skip in one.skips), operator.add)
    return {
        "probs": np.concatenate([one.mu for one in answers]),
        "gallery_indices": candidates,
        "answered": np.concatenate([one.answered for one in answers]),
        "skipped": np.array([skip.path for skip in skips], str),
        "reasons": np.array([skip.reason for skip in skips], str),
        "pairs": np.array([skip.pairs for skip in skips], np.int64),
    }


def _skips(arrays: Arrays) -> list[Skip]:
    columns = [arrays[name].tolist() for name in ("skipped", "reasons", "pairs")]
    return [Skip(*one) for one in zip(*columns, strict=True)]


def _check_skips(skips: Sequence[Skip], *, strict: bool) -> None:
    if skips and strict:
        raise InputError(f"{skips[0].reason} (--strict)")
