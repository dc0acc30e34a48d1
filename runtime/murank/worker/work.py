"""What a worker was asked for: its steps, when it is to end, and the answer that is waited for."""

import asyncio
import contextlib
import math
from collections.abc import Callable, Generator
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from murank.engine.steps import Logits, PairBatch, Steps

T = TypeVar("T")


class Answer(Future[T]):
    """An answer to come: `result()` waits for it, as `await` does.

    One that is cancelled, or whose awaiting task is, is dropped before its next step.
    """

    is_unwanted = False
    waited = 0.0  # seconds, until it was begun

    def __await__(self) -> Generator[Any, None, T]:
        """Wait in an event loop."""
        return asyncio.wrap_future(self).__await__()

    def cancel(self) -> bool:
        """Say that nobody waits for it any more; false where it has begun, and ends soon."""
        self.is_unwanted = True
        return super().cancel()


@dataclass(eq=False)
class Work(Generic[T]):
    """One piece of work. Equal to itself alone."""

    begin: Callable[[], Steps[T]]  # called by the worker
    answer: Answer[T]
    number: int  # in the order of arrival
    arrived: float  # a moment of the worker's clock
    end: float = math.inf  # a moment of the worker's clock
    late: Callable[[], T] | None = None  # what is answered if it has not begun by then
    steps: Steps[T] | None = None
    wanted: PairBatch | None = field(default=None, repr=False)  # of the step it has come to

    @property
    def order(self) -> tuple[float, int]:
        """Earliest end first, then first come."""
        return self.end, self.number

    def step(self, logits: Logits | None = None) -> bool:
        """Go on to the next pause or pairs; whether it is over. Errors are its answer."""
        self.wanted = None
        try:
            if self.steps is None:
                self.steps = self.begin()
            self.wanted = self.steps.send(logits)
        except StopIteration as last:
            with contextlib.suppress(InvalidStateError):  # told meanwhile that it will not be
                self.answer.set_result(last.value)
            return True
        except BaseException as error:  # noqa: BLE001  whoever waits gets it
            self.tell(error)
            return True
        return False

    def fail(self, error: BaseException) -> None:
        """End it with an error, unless it has ended."""
        if self.steps is not None:
            self.steps.close()
        self.tell(error)

    def tell(self, error: BaseException) -> None:
        """Let whoever waits have an error, unless there is an answer; from any thread."""
        with contextlib.suppress(InvalidStateError):  # cancelled this moment, or answered
            self.answer.set_exception(error)
