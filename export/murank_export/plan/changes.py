"""What to change where an engine does not fit, each with the memory it would need then."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from murank.backends.trt.arithmetic import why_not
from murank.folder.precision import ARITHMETIC, Precision
from murank_export.plan.engine_memory import Footprint
from murank_export.plan.scorer_runs import ScorerRuns

# By what is saved: the last that helps is the one taken with all other changes.
_ON_CPU: tuple[Precision, ...] = ("int8",)
_ON_GPU: tuple[Precision, ...] = ("fp16", "int8-qdq", "int4")
_FLOATS = 16  # bits of a weight, at least, that fewer could do instead of
_SMALLER = 0.5  # area of the image that is tried


@dataclass(frozen=True)
class Change:
    """One way, alone; or all of them."""

    what: str
    needed: int  # bytes, then
    fits: bool
    about: bool  # foretold of a graph that is not there


@dataclass(frozen=True)
class _Trial:
    """A change that is tried."""

    what: str
    apply: Callable[[Footprint], Footprint]
    about: bool = False


def changes(now: Footprint) -> tuple[Change, ...]:
    """Return the changes that would save memory, each alone, then all together.

    Of other precisions there can be only one: with all others goes the one that saves most.
    """
    scorer = now.runs.scorer
    if scorer is None:  # an encoder is in floats, whatever is asked for
        return ()
    needed = now.memory().needed
    precisions, others = (
        [trial for trial in trials if trial.apply(now).memory().needed < needed]
        for trials in (_precisions(now, scorer), _others(now))
    )
    found = [_change(trial, trial.apply(now)) for trial in (*precisions, *others)]
    together = [*precisions[-1:], *others]
    if len(together) > 1:
        then = now
        for trial in together:
            then = trial.apply(then)
        which = together[0].what.removeprefix("export ") if len(precisions) > 1 else ""
        name = f"all of these, {which}" if which else "all of these"
        about = any(trial.about for trial in together)
        found.append(_change(_Trial(name, lambda state: state, about), then))
    return tuple(found)


def _change(trial: _Trial, then: Footprint) -> Change:
    memory = then.memory()
    return Change(trial.what, memory.needed, memory.fits, trial.about)


def _precisions(now: Footprint, scorer: ScorerRuns) -> Iterator[_Trial]:
    """Other precisions that the device has, and that take less."""
    bits, on_cpu = ARITHMETIC[scorer.how.precision].weight_bits, scorer.how.on_cpu
    for precision in _ON_CPU if on_cpu else _ON_GPU:
        fewer = ARITHMETIC[precision].weight_bits
        has = on_cpu or why_not(precision, now.device.capability) is None
        if has and fewer < bits and bits >= _FLOATS:
            # Scales of blocks are not foretold, nor which layers stay in floats.
            about = not on_cpu and fewer < _FLOATS
            yield _Trial(f"export with --dtype {precision}", _to(precision), about)


def _others(now: Footprint) -> Iterator[_Trial]:
    pairs = min(now.max_pairs, now.candidates)
    while pairs > 1:  # the most with which it fits, by halves; 1 if it never does
        pairs //= 2
        if pairs == 1 or replace(now, max_pairs=pairs).memory().fits:
            what = f"Engine.from_pretrained(max_pairs={pairs}): fewer pairs in one run"
            yield _Trial(what, lambda state, pairs=pairs: replace(state, max_pairs=pairs))  # type: ignore[misc]
            break
    what = "vision_cache_mb=0: vision tokens computed again"
    yield _Trial(what, lambda state: replace(state, vision_cache=0))
    what = "export for images of half the area (--image-size)"
    yield _Trial(what, lambda state: _with(state, lambda one: one.smaller(_SMALLER)), about=True)


def _to(precision: Precision) -> Callable[[Footprint], Footprint]:
    return lambda state: _with(state, lambda one: one.rounded(precision))


def _with(state: Footprint, change: Callable[[ScorerRuns], ScorerRuns]) -> Footprint:
    scorer = None if state.runs.scorer is None else change(state.runs.scorer)
    return replace(state, runs=replace(state.runs, scorer=scorer))
