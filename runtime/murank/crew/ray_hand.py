"""What an actor of Ray runs."""

import pickle
import time
from typing import Any

from murank._exceptions import InputError, MachineError
from murank._version import __version__
from murank.crew.crew_protocol import Make
from murank.crew.hand import sendable
from murank.crew.patience import Endless
from murank.crew.processes import Processes

UNIT, ANSWER = "unit", "answer"  # columns


class RayHand:
    """One unit a call, worked on in a process below the actor.

    A unit that ends that process leaves the actor alone: Ray would try it for ever. What is raised
    is an answer, too: Ray would raise it as something of its own.
    """

    def __init__(self, make: Make, version: str) -> None:
        self._crew = Processes(make, 1, patience=Endless())
        self._version = version

    def __call__(self, batch: Any) -> Any:
        """Return a table of one row with (answers or what was raised, seconds), pickled."""
        import pyarrow

        start = time.monotonic()
        try:
            self._check()
            unit = pickle.loads(batch[UNIT][0].as_py())  # noqa: S301 - our own driver's
            answers: Any = list(self._crew.answers([unit]))
        except Exception as error:  # noqa: BLE001 - told to the driver
            answers = _placed(sendable(error))
        row = pickle.dumps((answers, time.monotonic() - start))
        return pyarrow.table({ANSWER: pyarrow.array([row], pyarrow.binary())})

    def _check(self) -> None:
        if self._version != __version__:
            raise MachineError(f"murank {__version__} is installed, and here {self._version}")


def _placed(error: BaseException) -> BaseException:
    """Say on which node something is missing."""
    if type(error) not in (InputError, MachineError):
        return error
    from ray.util import get_node_ip_address

    return type(error)(f"{error} (on the Ray node {get_node_ip_address()})")
