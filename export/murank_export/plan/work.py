"""The stages of one query, and the runs of the engine's graphs that each of them is."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from murank.engine.stopwatch import Stage
from murank.folder.batches import VISION_BATCH
from murank.folder.manifest import Manifest
from murank.folder.precision import ARITHMETIC
from murank_export.plan.encoder_run import encoder_run
from murank_export.plan.graph_file import GraphFile
from murank_export.plan.graph_run import Execution, GraphRun
from murank_export.plan.scorer_runs import ScorerRuns

_FLOAT = 4
_PASSES = 8  # over one float a gallery image, to re-rank: distances, maxima, sums, order
# Of the query's neighbourhood, and of each gallery image: assumptions, from one server CPU.
_NEIGHBOURHOOD_SECONDS, _IMAGE_SECONDS = 0.6e-3, 30e-9


@dataclass(frozen=True)
class Work:
    """One stage of one query."""

    stage: Stage
    title: str
    runs: tuple[tuple[GraphRun, int], ...] = ()  # a graph's run, and how often
    host_operations: int = 0  # what stays on the CPU
    host_bytes: int = 0
    host_seconds: float = 0.0  # of what is no matter of rates: predicted only
    cached: bool = False  # nothing of it is left where vision tokens are known

    @property
    def operations(self) -> int:
        """Multiplications plus additions."""
        return sum(run.operations * times for run, times in self.runs) + self.host_operations

    @property
    def bytes(self) -> int:
        """Bytes that are read and written."""
        return sum(run.bytes * times for run, times in self.runs) + self.host_bytes


@dataclass(frozen=True)
class EngineRuns:
    """The graphs of an engine, as a device runs them."""

    encoder: GraphRun | None
    dim: int  # of its features
    scorer: ScorerRuns | None

    @classmethod
    def read(cls, folder: Path, manifest: Manifest, *, on_cpu: bool) -> "EngineRuns":
        """Read the graphs without their weights; raises what `encoder_run` does."""
        how = Execution(manifest.precision, on_cpu)
        part, encoder = manifest.scorer, manifest.encoder
        scorer = None
        if part is not None:
            decoder, vision = (GraphFile.read(folder / n) for n in (part.decoder, part.vision))
            if ARITHMETIC[manifest.precision].widened:
                decoder, vision = decoder.widened(), vision.widened()
            fused = "Attention" in decoder.operators
            scorer = ScorerRuns(part, decoder, vision, replace(how, fused=fused))
        if encoder is None:
            return cls(None, 0, scorer)
        size = (encoder.preprocessing.height, encoder.preprocessing.width)
        run = encoder_run(folder / encoder.graph, size, how.half_bytes)
        return cls(run, encoder.dim, scorer)

    def stages(self, *, candidates: int, gallery_size: int, max_pairs: int) -> tuple[Work, ...]:
        """Return the stages of a query in the order they run, those that the engine has."""
        found: list[Work] = []
        if self.encoder is not None:
            found.append(Work("embed", "embed the query", ((self.encoder, 1),)))
            values = gallery_size * self.dim
            read = _FLOAT * values
            found.append(Work("retrieve", "retrieve", host_operations=2 * values, host_bytes=read))
        if self.scorer is not None:
            found += _scoring(self.scorer, candidates, max_pairs)
        if self.encoder is not None:
            seconds = _NEIGHBOURHOOD_SECONDS + _IMAGE_SECONDS * gallery_size
            read = _PASSES * _FLOAT * gallery_size
            found.append(Work("rerank", "fuse and re-rank", host_bytes=read, host_seconds=seconds))
        return tuple(found)


def _scoring(runs: ScorerRuns, candidates: int, max_pairs: int) -> Iterator[Work]:
    yield Work("vision", "vision, query", ((runs.see(1), 1),))
    starts = range(0, candidates, VISION_BATCH)
    batches = Counter(min(VISION_BATCH, candidates - start) for start in starts)
    seen = tuple((runs.see(n), times) for n, times in batches.items())
    yield Work("vision", f"vision, {candidates} candidates", seen, cached=True)
    yield Work("prefill", "prefill", ((runs.prefill(), 1),))
    sizes = Counter(run_sizes(candidates, max_pairs))
    scored = tuple((runs.score(n), times) for n, times in sizes.items())
    yield Work("score", f"score {candidates} candidates", scored)


def run_sizes(candidates: int, max_pairs: int) -> list[int]:
    """Candidates in each run of the decoder: the fewest runs, nearly equal."""
    number = -(-candidates // max_pairs)
    ends = [index * candidates // number for index in range(number + 1)]
    return [after - before for before, after in pairwise(ends)]
