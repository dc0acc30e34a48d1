"""Work in steps, so that one thread can do several queries' work, and score their pairs together.

A generator yields the pairs that it wants scored next and is sent their logits; None is a moment at
which others may go first. Run alone, it is an ordinary call.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from murank.engine.decoder import Prefix
from murank.engine.scorer import Scorer

T = TypeVar("T")
P = ParamSpec("P")
Logits = NDArray[np.float32]


@dataclass(frozen=True)
class PairBatch:
    """Candidates of one query, to be scored in one run of the decoder."""

    scorer: Scorer
    prefix: Prefix  # of the query
    tokens: NDArray[Any]  # [n,levels,T,H], or rows [n]


Steps = Generator[PairBatch | None, Logits | None, T]


def run_alone(steps: Steps[T]) -> T:
    """Do all steps, one after the other."""
    logits: Logits | None = None
    while True:
        try:
            wanted = steps.send(logits)
        except StopIteration as end:
            result: T = end.value
            return result
        logits = None
        if wanted is not None:
            (logits,) = wanted.scorer.logits_together([(wanted.prefix, wanted.tokens)])


def at_once(function: Callable[P, Steps[T]]) -> Callable[P, T]:
    """Make a function in steps an ordinary one; `steps_of` still calls it in steps."""

    @wraps(function)
    def whole(*args: P.args, **kwargs: P.kwargs) -> T:
        return run_alone(function(*args, **kwargs))

    # What `help` shows is what a caller gets.
    returned = get_args(function.__annotations__["return"])[-1]
    whole.__annotations__ = {**function.__annotations__, "return": returned}
    whole.__signature__ = signature(function).replace(return_annotation=returned)  # type: ignore[attr-defined]
    return whole


def steps_of(function: Callable[..., T], *args: Any, **kwargs: Any) -> Steps[T]:
    """Begin a function or a bound method that is decorated with `at_once`, in steps."""
    call: Any = function
    bound = (call.__self__,) if hasattr(call, "__self__") else ()
    steps: Steps[T] = getattr(call, "__func__", call).__wrapped__(*bound, *args, **kwargs)
    return steps
