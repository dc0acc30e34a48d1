"""What to change where an engine does not fit, each with the memory it would need then."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from murank.backends.trt.arithmetic import why_not
from murank.folder.manifest import Manifest, ScorerPart
from murank.folder.precision import ARITHMETIC, Precision
from murank_export.plan.devices import Device
from murank_export.plan.engine_memory import VISION_CACHE_BYTES, GraphMemory, Memory, memory

_SCORER_GRAPHS = ("vision", "decoder")  # export leaves encoders in floats
# By what is saved: the last that helps is the one taken with all other changes.
_ON_CPU: tuple[Precision, ...] = ("int8",)
_ON_GPU: tuple[Precision, ...] = ("fp16", "int8-qdq", "int4")
_FLOATS = 16  # bits of a weight, at least, that fewer could do instead of
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
    max_pairs: int
    vision_cache: int = VISION_CACHE_BYTES

    def memory(self) -> Memory:
        return memory(
            self.manifest, self.graphs, self.device, gallery_size=self.gallery_size,
            budget=self.budget, max_pairs=self.max_pairs, vision_cache=self.vision_cache,
        )  # fmt: skip


@dataclass(frozen=True)
class _Step:
    """A change that is tried."""

    what: str
    how: Callable[[_State], _State]
    about: bool = False


def changes(
    manifest: Manifest,
    graphs: Mapping[str, GraphMemory],
    device: Device,
    *,
    gallery_size: int,
    budget: int,
    max_pairs: int,
    candidates: int,
    live: Live,
) -> tuple[Change, ...]:
    """Return the changes that would save memory, each alone, then all together.

    Of other precisions there can be only one: with all others goes the one that saves most.

    Parameters
    ----------
    manifest, graphs, device, gallery_size, budget, max_pairs
        As `memory` takes them.
    candidates
        Of one query.
    live
        Counts the decoder's activations for another number of candidates in a run.
    """
    now = _State(manifest, graphs, device, gallery_size, budget, max_pairs)
    needed = now.memory().needed

    def helping(steps: Iterator[_Step]) -> list[_Step]:
        return [step for step in steps if step.how(now).memory().needed < needed]

    precisions = helping(_precisions(now))
    others = helping(_steps(now, candidates, live))
    found = [_change(step, step.how(now)) for step in (*precisions, *others)]
    together = [*precisions[-1:], *others]
    if len(together) > 1:
        then = now
        for step in together:
            then = step.how(then)
        which = f", with --dtype {then.manifest.precision}" if len(precisions) > 1 else ""
        about = any(step.about for step in together)
        found.append(_change(_Step(f"all of these{which}", lambda state: state, about), then))
    return tuple(found)


def _change(step: _Step, state: _State) -> Change:
    then = state.memory()
    return Change(step.what, then.needed, then.fits, step.about)


def _precisions(now: _State) -> Iterator[_Step]:
    """Other precisions that the device has, and that take less: all of them are of the scorer."""
    how = now.manifest.arithmetic
    if now.manifest.scorer is None or how.weight_bits < _FLOATS:
        return
    for precision in _ON_CPU if now.device.kind == "cpu" else _ON_GPU:
        bits = ARITHMETIC[precision].weight_bits
        has = now.device.kind == "cpu" or why_not(precision, now.device.capability) is None
        if has and bits < how.weight_bits:
            # Scales of blocks are not foretold, nor which layers stay in floats.
            about = now.device.kind != "cpu" and bits < _FLOATS
            yield _Step(f"export with --dtype {precision}", _to(precision), about)


def _steps(now: _State, candidates: int, live: Live) -> Iterator[_Step]:
    if now.manifest.scorer is None:
        return
    fewer = _fewer_pairs(now, min(now.max_pairs, candidates), live)
    if fewer is not None:
        what = f"Engine.from_pretrained(max_pairs={fewer}): fewer pairs in one run"
        yield _Step(what, lambda state: _with_pairs(state, fewer, live))
    yield _Step("vision_cache_mb=0: vision tokens computed again", _without_cache)
    yield _Step("export for images of half the area (--image-size)", _smaller_images, about=True)


def _fewer_pairs(now: _State, pairs: int, live: Live) -> int | None:
    """The most pairs in a run, by halves, with which it fits; 1 if it never does."""
    if pairs == 1:
        return None
    while pairs > 1:
        pairs //= 2
        if _with_pairs(now, pairs, live).memory().fits:
            return pairs
    return 1


def _with_pairs(state: _State, pairs: int, live: Live) -> _State:
    # Never more than another change has left of it.
    one = state.graphs["decoder"]
    smaller = replace(one, live_bytes=min(one.live_bytes, live(pairs)))
    return replace(state, max_pairs=pairs, graphs={**state.graphs, "decoder": smaller})


def _without_cache(state: _State) -> _State:
    return replace(state, vision_cache=0)


def _to(precision: Precision) -> Callable[[_State], _State]:
    """From floats. Activations stay as they are, since attention scores stay in float32."""
    new = ARITHMETIC[precision]

    def change(state: _State) -> _State:
        # A CPU's floats are of four bytes, whatever the graph has.
        widen = state.device.kind == "cpu"
        before, after = (4 if widen else one.item_bytes for one in (state.manifest.arithmetic, new))

        def weights(one: GraphMemory) -> int:
            rest = one.weight_bytes - one.float_weights * before
            return rest * after // before + one.float_weights * new.weight_bits // 8

        graphs = {
            name: replace(one, weight_bytes=weights(one)) if name in _SCORER_GRAPHS else one
            for name, one in state.graphs.items()
        }
        return replace(state, manifest=_in(state.manifest, precision), graphs=graphs)

    return change


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
