"""What to change where an engine does not fit, each with the memory it would need then."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from murank.engine.manifest import INTEGER, Manifest, Precision, ScorerPart
from murank.plan._memory import VISION_CACHE_BYTES, GraphMemory, Memory, memory
from murank.plan.devices import Device

_INT8_GRAPHS = ("vision", "decoder")  # export leaves encoders in floats
_SMALLER = 0.5  # area of the image that is tried

Live = Callable[[int], int]  # candidates in a run -> largest activations of the decoder


@dataclass(frozen=True)
class Change:
    """One way, alone; or all of them."""

    what: str
    needed: int  # bytes, then
    fits: bool
    about: bool  # in proportion, not counted from a graph


@dataclass(frozen=True)
class _State:
    """What the memory follows from."""

    manifest: Manifest
    graphs: Mapping[str, GraphMemory]
    device: Device
    gallery_size: int
    budget: int
    vision_cache: int = VISION_CACHE_BYTES

    def memory(self) -> Memory:
        return memory(
            self.manifest, self.graphs, self.device, gallery_size=self.gallery_size,
            budget=self.budget, vision_cache=self.vision_cache,
        )  # fmt: skip


_Step = tuple[str, bool, Callable[[_State], _State]]  # what, about, how


def changes(
    manifest: Manifest,
    graphs: Mapping[str, GraphMemory],
    device: Device,
    *,
    gallery_size: int,
    budget: int,
    pairs: int,
    live: Live,
) -> tuple[Change, ...]:
    """Return the changes that would save memory, each alone, then all together.

    Parameters
    ----------
    manifest, graphs, device, gallery_size, budget
        As `memory` takes them.
    pairs
        Candidates in one run of the decoder, now.
    live
        Counts the decoder's activations for another number of candidates in a run.
    """
    now = _State(manifest, graphs, device, gallery_size, budget)
    needed = now.memory().needed
    found, all_of_them = [], now
    steps = [step for step in _steps(now, pairs, live) if step[2](now).memory().needed < needed]
    for what, about, step in steps:
        found.append(_change(what, about, step(now)))
        all_of_them = step(all_of_them)
    if len(found) > 1:
        found.append(_change("all of these", any(one.about for one in found), all_of_them))
    return tuple(found)


def _change(what: str, about: bool, state: _State) -> Change:
    then = state.memory()
    return Change(what, then.needed, then.fits, about)


def _steps(now: _State, pairs: int, live: Live) -> Iterator[_Step]:
    precision = now.manifest.precision
    if now.device.kind == "cpu" and precision not in INTEGER and now.manifest.scorer is not None:
        yield "export with --dtype int8", False, _as_int8
    if now.device.kind != "cpu" and precision == "fp32":
        yield "export with --dtype fp16", False, _as_fp16
    if now.manifest.scorer is None:
        return
    fewer = _fewer_pairs(now, pairs, live)
    if fewer is not None:
        what = f"Engine.from_pretrained(max_pairs={fewer}): fewer pairs in one run"
        yield what, False, lambda state: _with_live(state, "decoder", live(fewer))
    yield "vision_cache_mb=0: vision tokens computed again", False, _without_cache
    yield "export for images of half the area (--image-size)", True, _smaller_images


def _fewer_pairs(now: _State, pairs: int, live: Live) -> int | None:
    """The most pairs in a run, by halves, with which it fits; 1 if it never does."""
    if pairs == 1:
        return None
    while pairs > 1:
        pairs //= 2
        if _with_live(now, "decoder", live(pairs)).memory().fits:
            return pairs
    return 1


def _with_live(state: _State, name: str, live_bytes: int) -> _State:
    # Never more than another change has left of it.
    one = state.graphs[name]
    smaller = replace(one, live_bytes=min(one.live_bytes, live_bytes))
    return replace(state, graphs={**state.graphs, name: smaller})


def _without_cache(state: _State) -> _State:
    return replace(state, vision_cache=0)


def _as_fp16(state: _State) -> _State:
    """Weights and K/V in half; activations as they are, since attention scores stay in float32."""
    graphs = {
        name: replace(one, weight_bytes=one.weight_bytes // 2) for name, one in state.graphs.items()
    }
    return replace(state, manifest=_in(state.manifest, "fp16"), graphs=graphs)


def _as_int8(state: _State) -> _State:
    """A byte for each value of a float matrix, on CPUs, where these are four."""
    graphs = {
        name: replace(one, weight_bytes=one.weight_bytes - 3 * one.float_weights)
        if name in _INT8_GRAPHS
        else one
        for name, one in state.graphs.items()
    }
    return replace(state, manifest=_in(state.manifest, "int8"), graphs=graphs)


def _in(manifest: Manifest, precision: Precision) -> Manifest:
    return replace(manifest, precision=precision, calibration=None)


def _smaller_images(state: _State) -> _State:
    part = state.manifest.scorer
    if part is None:
        return state
    smaller = _with_fewer_tokens(part)
    share = smaller.shapes.suffix_tokens / part.shapes.suffix_tokens
    shares = {"vision": _SMALLER, "decoder": share}
    graphs = {
        name: replace(one, live_bytes=int(one.live_bytes * shares.get(name, 1.0)))
        for name, one in state.graphs.items()
    }
    return replace(state, manifest=replace(state.manifest, scorer=smaller), graphs=graphs)


def _with_fewer_tokens(part: ScorerPart) -> ScorerPart:
    s = part.shapes
    tokens = max(1, int(s.vision_tokens * _SMALLER))
    less = s.vision_tokens - tokens
    # Each run of tokens holds one image: the query's in the prefill, the candidate's behind it.
    shapes = replace(
        s, vision_tokens=tokens, prefill_tokens=s.prefill_tokens - less,
        suffix_tokens=s.suffix_tokens - less,
    )  # fmt: skip
    return replace(part, shapes=shapes)
