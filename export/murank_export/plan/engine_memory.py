"""What an engine keeps in memory on a device, by part, before it is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from murank.folder.manifest import Manifest, ScorerPart
from murank.folder.precision import Arithmetic
from murank_export.plan.cost import GraphCost
from murank_export.plan.devices import Device
from murank_export.plan.work import Work

# As murank.engine.scorer has it: K/V of the queries asked most recently, and queries in a run.
_PREFIXES, _QUERIES = 4, 8
_FLOAT = 4
_NEIGHBOURS = 2 * (10 + 1 + 5) * 2 * _FLOAT  # bytes a gallery image: lists of k1 + 1 and k2, twice
VISION_CACHE_BYTES = 256 << 20  # the default of vision_cache_mb
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
class GraphMemory:
    """Weights and largest activations of one graph."""

    weight_bytes: int
    float_weights: int  # values
    live_bytes: int


def graph_memory(works: Sequence[Work]) -> dict[str, GraphMemory]:
    """Return what each graph needs, over all runs of a query."""
    owners = {"embed": "encoder", "vision": "vision", "prefill": "decoder", "score": "decoder"}
    found: dict[str, GraphMemory] = {}
    for work in works:
        for cost, _ in work.runs:
            name = owners[work.stage]
            found[name] = _larger(found.get(name), cost)
    return found


def _larger(known: GraphMemory | None, cost: GraphCost) -> GraphMemory:
    live = max(cost.live_bytes, 0 if known is None else known.live_bytes)
    return GraphMemory(cost.weight_bytes, cost.float_weights, live)


def memory(
    manifest: Manifest,
    graphs: Mapping[str, GraphMemory],
    device: Device,
    *,
    gallery_size: int,
    budget: int,
    max_pairs: int,
    vision_cache: int = VISION_CACHE_BYTES,
) -> Memory:
    """Return what the engine needs on the device.

    Parameters
    ----------
    manifest, graphs, device
        The engine and where it runs.
    gallery_size
        Images.
    budget
        Bytes that there are.
    max_pairs
        Pairs in one run of the decoder, at most.
    vision_cache
        Bytes for vision tokens of images seen before: `vision_cache_mb`.
    """
    parts = [Part("Python, onnxruntime, driver", device.assumed.base_bytes, of_graphs=False)]
    for name, one in graphs.items():
        parts.append(Part(f"{name}: weights", one.weight_bytes))
        parts.append(Part(f"{name}: activations", int(ARENA * one.live_bytes)))
    if manifest.scorer is not None:
        part, how = manifest.scorer, manifest.arithmetic
        parts.append(Part("K/V of the static prompt and 4 queries", kv_bytes(part, how)))
        row = part.shapes.vision_values * how.token_bytes
        if device.kind == "cpu":
            parts.append(_tokens_on_host(gallery_size * row + row, vision_cache))
        else:
            parts.append(_tokens_on_gpu(row, max_pairs, vision_cache))
    if manifest.encoder is not None:
        kept = gallery_size * (manifest.encoder.dim * _FLOAT + _NEIGHBOURS)
        name = f"features and neighbours of {gallery_size} images"
        parts.append(Part(name, kept, on_device=False, of_graphs=False))
    return Memory(tuple(parts), budget, device.shared)


def _tokens_on_host(wanted: int, vision_cache: int) -> Part:
    name = "cached vision tokens"
    return Part(name, min(vision_cache, wanted), on_device=False, of_graphs=False)


def _tokens_on_gpu(row: int, max_pairs: int, vision_cache: int) -> Part:
    """One block, taken when the engine is loaded: what is kept, and what a call may need beside."""
    count = vision_cache // row + max_pairs + _QUERIES
    return Part(f"vision tokens, room for {count} images", count * row, of_graphs=False)


def kv_bytes(part: ScorerPart, how: Arithmetic) -> int:
    """Bytes of K/V kept between runs: the static prompt, read and on the device, and prefixes."""
    s = part.shapes
    static = 2 * s.layers * s.kv_heads * s.head_dim * s.static_tokens
    read = static * how.token_bytes  # by the host
    return read + (static + _PREFIXES * s.kv_values) * how.item_bytes
