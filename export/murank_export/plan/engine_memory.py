"""What an engine keeps in memory on a device, by part, before it is loaded."""

from collections.abc import Iterator
from dataclasses import dataclass

from murank.folder.batches import VISION_BATCH
from murank.folder.precision import ARITHMETIC
from murank_export.plan.devices import Device
from murank_export.plan.graph_run import GraphRun
from murank_export.plan.scorer_runs import ScorerRuns
from murank_export.plan.work import EngineRuns, run_sizes

# As murank.engine.scorer has it: K/V of the queries asked most recently, and queries in a run.
_PREFIXES, _QUERIES = 4, 8
_FLOAT = 4
_NEIGHBOURS = 2 * (10 + 1 + 5) * 2 * _FLOAT  # bytes a gallery image: lists of k1 + 1 and k2, twice
# onnxruntime's arena grows by powers of two and keeps what it has: 1.5 to 3 times what is alive at
# once was seen on CPUs.
ARENA = 2.5


@dataclass(frozen=True)
class Part:
    """One use of memory."""

    name: str
    bytes: int
    on_device: bool = True  # False: in the memory of the CPU, which may be the same
    of_graphs: bool = True  # needed to run the graphs alone, without gallery and caches


@dataclass(frozen=True)
class Memory:
    """All uses, and what there is."""

    parts: tuple[Part, ...]
    budget: int
    shared: bool

    @property
    def of_graphs(self) -> int:
        """Bytes of weights, activations and K/V alone."""
        return sum(part.bytes for part in self.parts if part.of_graphs)

    @property
    def needed(self) -> int:
        """Bytes that count against the budget."""
        return sum(part.bytes for part in self.parts if part.on_device or self.shared)

    @property
    def fits(self) -> bool:
        """Whether they do."""
        return self.needed <= self.budget


@dataclass(frozen=True)
class Footprint:
    """What the memory follows from."""

    runs: EngineRuns
    device: Device
    budget: int  # bytes that there are
    candidates: int  # of one query
    gallery_size: int  # images
    max_pairs: int  # in one run of the decoder, at most
    vision_cache: int = 256 << 20  # bytes: the default of vision_cache_mb

    def memory(self) -> Memory:
        """Return what the engine needs on the device."""
        parts = [
            Part("Python, onnxruntime, driver", self.device.assumed.base_bytes, of_graphs=False)
        ]
        for name, runs in self._graphs():
            live = max(run.live_bytes for run in runs)
            parts.append(Part(f"{name}: weights", runs[0].weight_bytes))
            parts.append(Part(f"{name}: activations", int(ARENA * live)))
        if self.runs.scorer is not None:
            parts.append(
                Part("K/V of the static prompt and 4 queries", _kv_bytes(self.runs.scorer))
            )
            parts.append(self._vision_tokens(self.runs.scorer))
        if self.runs.encoder is not None:
            kept = self.gallery_size * (self.runs.dim * _FLOAT + _NEIGHBOURS)
            name = f"features and neighbours of {self.gallery_size} images"
            parts.append(Part(name, kept, on_device=False, of_graphs=False))
        return Memory(tuple(parts), self.budget, self.device.shared)

    def _graphs(self) -> Iterator[tuple[str, tuple[GraphRun, ...]]]:
        """The graphs, and their largest runs."""
        scorer = self.runs.scorer
        if self.runs.encoder is not None:
            yield "encoder", (self.runs.encoder,)
        if scorer is not None:
            yield "vision", (scorer.see(min(VISION_BATCH, self.candidates)),)
            most = max(run_sizes(self.candidates, self.max_pairs))
            yield "decoder", (scorer.prefill(), scorer.score(most))

    def _vision_tokens(self, scorer: ScorerRuns) -> Part:
        row = scorer.part.shapes.vision_values * ARITHMETIC[scorer.how.precision].token_bytes
        if self.device.kind == "cpu":
            wanted = (self.gallery_size + 1) * row
            size = min(self.vision_cache, wanted)
            return Part("cached vision tokens", size, on_device=False, of_graphs=False)
        # One block, taken when the engine is loaded: what is kept, and what a call needs beside.
        count = self.vision_cache // row + self.max_pairs + _QUERIES
        return Part(f"vision tokens, room for {count} images", count * row, of_graphs=False)


def _kv_bytes(scorer: ScorerRuns) -> int:
    """Bytes of K/V kept between runs: the static prompt, read and on the device, and prefixes."""
    s, how = scorer.part.shapes, ARITHMETIC[scorer.how.precision]
    static = 2 * s.layers * s.kv_heads * s.head_dim * s.static_tokens
    return static * how.token_bytes + (static + _PREFIXES * s.kv_values) * how.item_bytes
