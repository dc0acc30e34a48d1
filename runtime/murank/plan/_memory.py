"""What an engine keeps in memory on a device, by part, before it is loaded."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from murank.engine.manifest import Manifest, ScorerPart
from murank.plan._cost import GraphCost
from murank.plan._work import Work
from murank.plan.devices import Device

_PREFIXES = 4  # K/V of the queries asked most recently: murank.engine.scorer keeps as many
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
    vision_cache: int = VISION_CACHE_BYTES,
) -> Memory:
    """Return what the engine needs on the device."""
    parts = [Part("Python, onnxruntime, driver", device.assumed.base_bytes, of_graphs=False)]
    for name, one in graphs.items():
        parts.append(Part(f"{name}: weights", one.weight_bytes))
        parts.append(Part(f"{name}: activations", int(ARENA * one.live_bytes)))
    if manifest.scorer is not None:
        parts += _of_scorer(manifest.scorer, manifest.item_bytes, gallery_size, vision_cache)
    if manifest.encoder is not None:
        kept = gallery_size * (manifest.encoder.dim * _FLOAT + _NEIGHBOURS)
        name = f"features and neighbours of {gallery_size} images"
        parts.append(Part(name, kept, on_device=False, of_graphs=False))
    return Memory(tuple(parts), budget, device.shared)


def _of_scorer(
    part: ScorerPart, item_bytes: int, gallery_size: int, vision_cache: int
) -> Iterator[Part]:
    yield Part("K/V of the static prompt and 4 queries", kv_bytes(part, item_bytes))
    tokens = (gallery_size + 1) * part.shapes.vision_values * item_bytes
    yield Part("cached vision tokens", min(vision_cache, tokens), on_device=False, of_graphs=False)


def kv_bytes(part: ScorerPart, item_bytes: int) -> int:
    """Bytes of K/V kept between runs: the static prompt, read and on the device, and prefixes."""
    s = part.shapes
    static = 2 * s.layers * s.kv_heads * s.head_dim * s.static_tokens
    return (2 * static + _PREFIXES * s.kv_values) * item_bytes
