"""The stages of one query, and the runs of the engine's graphs that each of them is."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from murank.engine.stopwatch import Stage
from murank.folder.batches import VISION_BATCH
from murank.folder.kv_names import past_names
from murank.folder.manifest import EncoderPart, Manifest, ScorerPart
from murank.images.preprocess import Preprocessing
from murank_export.plan.cost import CountedGraph, GraphCost
from murank_export.plan.shapes import Shape

_FLOAT = 4
_PASSES = 8  # over one float a gallery image, to re-rank: distances, maxima, sums, order
# Of the query's neighbourhood, and of each gallery image: assumptions, from one server CPU.
_NEIGHBOURHOOD_SECONDS, _IMAGE_SECONDS = 0.6e-3, 30e-9


@dataclass(frozen=True)
class Work:
    """One stage of one query."""

    stage: Stage
    title: str
    runs: tuple[tuple[GraphCost, int], ...] = ()  # a graph's run, and how often
    host_operations: int = 0  # what stays on the CPU
    host_bytes: int = 0
    host_seconds: float = 0.0  # of what is no matter of rates: predicted only
    cached: bool = False  # nothing of it is left where vision tokens are known

    @property
    def operations(self) -> int:
        """Multiplications plus additions."""
        return sum(cost.operations * times for cost, times in self.runs) + self.host_operations

    @property
    def bytes(self) -> int:
        """Bytes that its nodes read and write."""
        return sum(cost.bytes * times for cost, times in self.runs) + self.host_bytes


@dataclass(frozen=True)
class Graphs:
    """The counted graphs of an engine."""

    encoder: CountedGraph | None
    vision: CountedGraph | None
    decoder: CountedGraph | None

    @classmethod
    def read(
        cls, folder: Path, manifest: Manifest, half_bytes: int, *, narrow: bool = False
    ) -> "Graphs":
        """Read them without their weights; see `CountedGraph`."""

        def counted(name: str) -> CountedGraph:
            return CountedGraph(folder / name, half_bytes=half_bytes, narrow=narrow)

        encoder, scorer = manifest.encoder, manifest.scorer
        return cls(
            None if encoder is None else counted(encoder.graph),
            None if scorer is None else counted(scorer.vision),
            None if scorer is None else counted(scorer.decoder),
        )


def stages(
    manifest: Manifest, graphs: Graphs, *, candidates: int, gallery_size: int, max_pairs: int
) -> tuple[Work, ...]:
    """Return the stages of a query in the order they run, those that the engine has."""
    found: list[Work] = []
    if manifest.encoder is not None and graphs.encoder is not None:
        found += _retrieval(manifest.encoder, graphs.encoder, gallery_size)
    if manifest.scorer is not None and graphs.vision is not None and graphs.decoder is not None:
        found += _scoring(manifest.scorer, graphs.vision, graphs.decoder, candidates, max_pairs)
    if manifest.encoder is not None:
        reread = _PASSES * _FLOAT * gallery_size
        found.append(
            Work(
                "rerank", "fuse and re-rank", host_bytes=reread,
                host_seconds=_NEIGHBOURHOOD_SECONDS + _IMAGE_SECONDS * gallery_size,
            )
        )  # fmt: skip
    return tuple(found)


def _retrieval(part: EncoderPart, graph: CountedGraph, gallery_size: int) -> Iterator[Work]:
    yield Work("embed", "embed the query", ((graph.cost(images(part.preprocessing, 1)), 1),))
    values = gallery_size * part.dim
    yield Work("retrieve", "retrieve", host_operations=2 * values, host_bytes=_FLOAT * values)


def _scoring(
    part: ScorerPart, vision: CountedGraph, decoder: CountedGraph, candidates: int, max_pairs: int
) -> Iterator[Work]:
    how = part.preprocessing
    yield Work("vision", "vision, query", ((vision.cost(images(how, 1)), 1),))
    starts = range(0, candidates, VISION_BATCH)
    batches = [min(VISION_BATCH, candidates - start) for start in starts]
    yield Work(
        "vision",
        f"vision, {candidates} candidates",
        tuple((vision.cost(images(how, n)), times) for n, times in Counter(batches).items()),
        cached=True,
    )
    yield Work("prefill", "prefill", ((decoder.cost(prefill_shapes(part)), 1),))
    runs = Counter(run_sizes(candidates, max_pairs))
    yield Work(
        "score",
        f"score {candidates} candidates",
        tuple((decoder.cost(score_shapes(part, n)), times) for n, times in runs.items()),
    )


def run_sizes(candidates: int, max_pairs: int) -> list[int]:
    """Candidates in each run of the decoder: the fewest runs, nearly equal."""
    number = -(-candidates // max_pairs)
    ends = [index * candidates // number for index in range(number + 1)]
    return [after - before for before, after in pairwise(ends)]


def images(how: Preprocessing, batch: int) -> dict[str, Shape]:
    """Shapes that encoder and vision tower take."""
    return {"images": (batch, 3, how.height, how.width)}


def prefill_shapes(part: ScorerPart) -> dict[str, Shape]:
    """Shapes that the decoder takes at prefill."""
    s = part.shapes
    return _decoder(part, 1, s.prefill_tokens, s.static_tokens)


def score_shapes(part: ScorerPart, candidates: int) -> dict[str, Shape]:
    """Shapes that the decoder takes to score the candidates of one query."""
    s = part.shapes
    return _decoder(part, candidates, s.suffix_tokens, s.static_tokens + s.prefill_tokens)


def _decoder(part: ScorerPart, candidates: int, tokens: int, prefix: int) -> dict[str, Shape]:
    s = part.shapes
    past: Shape = (1, s.kv_heads, prefix, s.head_dim)
    return {
        "vision": (1, candidates, s.levels, s.vision_tokens, s.hidden),
        "text": (tokens - s.vision_tokens, s.hidden),
        "position_ids": (3, tokens),
        **dict.fromkeys(past_names(s.layers), past),
    }


def uncounted(works: Sequence[Work]) -> dict[str, int]:
    """Operators whose shapes are not known, and the most nodes of each in a graph."""
    found: Counter[str] = Counter()
    for work in works:
        for cost, _ in work.runs:
            found |= Counter(cost.uncounted)
    return dict(found)
