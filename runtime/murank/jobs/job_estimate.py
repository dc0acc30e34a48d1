"""What a job will take: counted where it can be, tried on a few images where it cannot."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from murank._exceptions import InputError
from murank.crew.here import Here
from murank.files.records import Record
from murank.jobs.choosing import choose_pairs
from murank.jobs.desk import Desk
from murank.jobs.engine_work import EngineWork
from murank.jobs.image_contents import NoContent, digests_of
from murank.jobs.job import GivenFeatures, Job
from murank.jobs.job_images import Images
from murank.jobs.job_log import JobLog
from murank.jobs.job_units import AskUnit, EmbedUnit
from murank.jobs.needs import features_bytes, mu_bytes, token_bytes
from murank.jobs.numbered_pairs import NumberedPairs
from murank.jobs.score import HALVES, queries_of_unit
from murank.jobs.stage import file_stat
from murank.jobs.workspace import JOURNAL
from murank.journal.journal import Digest, Journal
from murank.machine.hardware import resident_bytes
from murank.rerank.alignment import align
from murank.rerank.features import FeatureSet
from murank.rerank.pipeline import StageClock

Span = tuple[float, float]  # seconds, low and high

_READING, _TRYING = 3.0, 3.0  # seconds: of reading files, of each graph's trial
_LOW, _HIGH = 0.85, 1.35  # of what a trial gives
_SAMPLE = 64  # images of a trial, at most
_AT_ONCE = 256  # files
_KERNELS = 110 << 20  # bytes that they take once they are loaded, about
_MOST_DISTANCES = 400_000_000  # that are computed to count pairs that are known
_MOST_ASKED = 20  # candidates of the trial's query


@dataclass(frozen=True, kw_only=True)
class JobEstimate(Record):
    """What `--estimate` says."""

    num_query: int
    num_gallery: int
    distinct_images: int | None  # None: not all could be read in time
    images_known: int  # that need not be embedded
    pairs: int  # questions, in all orders
    pairs_known: int | None  # that need not be asked; None: candidates are not known yet
    memory_bytes: int  # of all processes together, about
    disk_bytes: int  # that are written, about
    vision_tokens: Any  # bytes of an image, of all of them, and kept by a process; None: no mu
    seconds: Any  # of each stage: low and high


def estimate(plan: Job, folder: Path, processes: int, report: JobLog) -> JobEstimate:
    """Look at the images, at what a job folder knows of them, and try the engine for seconds.

    Nothing is written.

    Raises
    ------
    InputError, MachineError
        No image can be used, or the engine cannot.
    """
    journal = Journal(folder / JOURNAL, writes=False)
    desk = Desk(plan.engine, report, Here(lambda: EngineWork(plan.engine)), journal)
    cache_mb = plan.engine.options.get("vision_cache_mb", 0)
    rows = plan.source.paths if isinstance(plan.source, Images) else plan.source.image_paths
    num_query = _num_query(plan)
    found = _contents(rows, desk)
    distinct = {one for one in found.values() if isinstance(one, bytes)}
    embeds = isinstance(plan.source, Images)
    is_embedded = [_is_embedded(found.get(path), desk) for path in rows] if embeds else []
    new = len(rows) - sum(is_embedded) if embeds else 0
    pairs = _count_pairs(plan, num_query, len(rows) - num_query)
    pairs_known = _known_pairs(plan, desk, rows, found, is_all_known=new == 0)
    trial = _Trial(plan, [path for path, one in found.items() if isinstance(one, bytes)])
    dim = plan.engine.encoder.dim if embeds else int(_features(plan).features.shape[1])
    asked = pairs - (pairs_known or 0)
    tokens = token_bytes(plan.engine.scorer) if plan.scores else 0
    images = len(distinct) if len(found) == len(set(rows)) else len(set(rows))
    misses = max(0.0, 1 - (cache_mb << 20) / max(1, tokens * images))
    seconds = {
        **({"embed": trial.embed(new)} if embeds else {}),
        **({"candidates": _choosing(num_query, len(rows) - num_query, dim)} if plan.scores else {}),
        **({"mu": trial.ask(asked, images, misses)} if plan.scores else {}),
    }
    kernels = 0 if "numba" in sys.modules else _KERNELS
    engine_bytes = (resident_bytes() or 0) * processes + kernels
    return JobEstimate(
        num_query=num_query,
        num_gallery=len(rows) - num_query,
        distinct_images=len(distinct) if len(found) == len(set(rows)) else None,
        images_known=len(rows) - new,
        pairs=pairs,
        pairs_known=pairs_known,
        memory_bytes=engine_bytes + 12 * dim * len(rows) + 20 * pairs
        + min(cache_mb << 20, tokens * images) * processes,
        disk_bytes=features_bytes(new, len(rows), dim) + mu_bytes(asked, pairs),
        vision_tokens={
            "bytes_an_image": tokens, "bytes": tokens * images, "kept_bytes": cache_mb << 20,
        } if plan.scores else None,
        seconds={
            name: [round(one / (1 if name == "candidates" else processes), 1) for one in span]
            for name, span in seconds.items()
        },
    )  # fmt: skip


def _features(plan: Job) -> FeatureSet:
    assert isinstance(plan.source, GivenFeatures)  # noqa: S101
    return plan.source.features


def _num_query(plan: Job) -> int:
    source = plan.source
    return source.num_query if isinstance(source, Images) else source.features.num_query


def _contents(rows: Sequence[Path], desk: Desk) -> dict[Path, Digest | NoContent]:
    """Return what could be read in time."""
    paths = list(dict.fromkeys(rows))
    found: dict[Path, Digest | NoContent] = {}
    end = time.monotonic() + _READING
    for start in range(0, len(paths), _AT_ONCE):
        some = paths[start : start + _AT_ONCE]
        found |= desk.contents_of(some, {path: file_stat(path) for path in some})
        if time.monotonic() > end:
            break
    if not any(isinstance(one, bytes) for one in found.values()):
        first = next(one.reason for one in found.values() if isinstance(one, NoContent))
        raise InputError(f"no image can be read; the first: {first}")
    return found


def _is_embedded(content: Digest | NoContent | None, desk: Desk) -> bool:
    return isinstance(content, bytes) and desk.journal.is_embedded(desk.embeds, content)


def _count_pairs(plan: Job, num_query: int, num_gallery: int) -> int:
    of_queries = num_query * min(plan.candidates or 0, num_gallery)
    inside = num_gallery * min(plan.gallery_candidates or 0, num_gallery - 1)
    return (of_queries + inside) * len(HALVES[plan.order])


def _known_pairs(
    plan: Job,
    desk: Desk,
    rows: Sequence[Path],
    found: dict[Path, Digest | NoContent],
    *,
    is_all_known: bool,
) -> int | None:
    """Count the pairs that are known, where candidates can be chosen quickly."""
    halves = {half: desk.journal.mu(desk.asks, half) for half in HALVES[plan.order]}
    if not plan.scores or not any(len(known) for known in halves.values()):
        return 0
    num_query, digests = _num_query(plan), [found.get(path) for path in rows]
    few = num_query * (len(rows) - num_query) <= _MOST_DISTANCES
    if not few or not is_all_known or not all(isinstance(one, bytes) for one in digests):
        return None
    contents = [one for one in digests if isinstance(one, bytes)]
    aligned = align(_embedded(plan, desk, contents), plan.alignment)
    chosen = choose_pairs(plan, aligned.features, rows, contents, StageClock(), desk.report)
    count = 0
    for pairs in chosen.values():
        numbered = NumberedPairs.of(pairs, desk)
        wanted = np.ones(len(pairs.candidates), bool)
        for known in halves.values():
            count += pairs.candidates.size - int(numbered.new(known, wanted).sum())
    return count


def _embedded(plan: Job, desk: Desk, digests: Sequence[Digest]) -> FeatureSet:
    if isinstance(plan.source, GivenFeatures):
        return plan.source.features
    rows = np.stack([desk.journal.feature(desk.embeds, digest) for digest in digests])
    return plan.source.with_features(rows, plan.engine.encoder_sha256)


def _choosing(num_query: int, num_gallery: int, dim: int) -> Span:
    """Return how long nearest neighbours take: a product, and a look at each distance."""
    queries = np.ones((128, dim), np.float32)
    gallery = np.ones((4096, dim), np.float32)
    seconds = _timed(lambda: np.partition(queries @ gallery.T, 10, axis=1), 0.2)
    return _spread(seconds * num_query * num_gallery / (128 * 4096))


def _timed(work: Callable[[], object], most: float) -> float:
    """Return the median seconds of a few calls, the first left out."""
    work()
    seconds: list[float] = []
    end = time.perf_counter() + most
    while not seconds or (time.perf_counter() < end and len(seconds) < 9):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def _spread(seconds: float) -> Span:
    return _LOW * seconds, _HIGH * seconds


class _Trial:
    """Asks the engine about a few of the images."""

    def __init__(self, plan: Job, paths: Sequence[Path]) -> None:
        step = max(1, len(paths) // _SAMPLE)
        self._paths = list(paths[::step][:_SAMPLE])
        self._plan = plan
        self._work = EngineWork(plan.engine)

    def embed(self, count: int) -> Span:
        """Return how long `count` images take."""
        if not count:
            return 0.0, 0.0
        some = self._paths[:32]
        unit = EmbedUnit(tuple(range(len(some))), tuple(map(str, some)))

        def again() -> None:
            EngineWork(self._plan.engine).finish(unit, self._work.begin(unit))

        return _spread(_timed(again, _TRYING) / len(some) * count)

    def ask(self, pairs: int, images: int, misses: float) -> Span:
        """Return how long pairs of these images take; `misses`: share of tokens not kept."""
        if not pairs:
            return 0.0, 0.0
        k = self._plan.candidates or self._plan.gallery_candidates or 1
        self._ask(self._unit(self._paths[:2], 1, 1))  # what only the first one costs
        first = self._ask(self._unit(self._paths[2:7], 1, min(k, 4)))
        queries = queries_of_unit(k) if first < _TRYING / 10 else 1
        unit = self._unit(self._paths[7:], queries, min(k, _MOST_ASKED))
        cold = self._ask(unit)
        warm = _timed(lambda: self._ask(unit), _TRYING / 2)
        a_pair = warm / len(unit.pairs)
        an_image = max(0.0, cold - warm) / len(unit.paths)
        looked_at = pairs / len(unit.pairs) * len(unit.paths)
        low = pairs * a_pair + images * an_image
        high = pairs * a_pair + max(images, misses * looked_at) * an_image
        return _LOW * low, _HIGH * high

    def _unit(self, paths: Sequence[Path], queries: int, k: int) -> AskUnit:
        """Return pairs of the first `queries` images, each with `k` others."""
        found = digests_of(paths or self._paths, self._plan.engine.limits)
        usable = [(str(path), one) for path, one in found if isinstance(one, bytes)]
        count = len(usable)
        pairs = [
            (row % count, (row + step + 1) % count) for row in range(queries) for step in range(k)
        ]
        if not usable:
            raise InputError(f"{paths[0]} can be read no more; start again")
        names, digests = zip(*usable, strict=True)
        order = HALVES[self._plan.order][0]
        wanted = np.ones(len(pairs), bool)
        return AskUnit((0,), names, digests, np.array(pairs, np.int32), {order: wanted})

    def _ask(self, unit: AskUnit) -> float:
        start = time.perf_counter()
        self._work.finish(unit, self._work.begin(unit))
        return time.perf_counter() - start
