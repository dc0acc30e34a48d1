"""What murank raises, and how the command line ends.

MurankError
├── UserError                     the user's mistake: one line, no traceback     exit 2
│   ├── UsageError                the command line contradicts itself
│   ├── InputError (ValueError)   a file or its content cannot be used
│   └── OutputError               the place to write to cannot be used
├── MachineError                  this machine lacks what was asked for           exit 3
│   ├── Closed                    a worker takes and ends no more work
│   └── Overloaded                it has too much to do; retry_after says when
├── ParityError                   an engine does not answer as its model does     exit 4
├── RegressionError               slower than before, beyond the threshold        exit 5
└── InvalidRunError               a Server run is too slow for its bound          exit 6

Exit codes are stable: 0 done, 1 a bug in murank (the traceback is shown), 2 to 6 as above,
130 interrupted, 143 terminated.
"""

from typing import ClassVar

from murank.checks.text import plain

EXIT_OK = 0
EXIT_UNDECIDED = 2
EXIT_INTERRUPTED = 130

EXIT_CODES = (
    "exit codes: 0 done; 1 a bug in murank (please report the traceback); "
    "2 bad command line or bad input, or too few samples for a verdict; "
    "3 this machine lacks what was asked for; "
    "4 an engine does not answer as its model does; 5 slower than before; "
    "6 a Server run that is invalid; "
    "130 interrupted; 143 terminated"
)


class MurankError(Exception):
    """Base of everything that murank raises on purpose."""

    exit_code: ClassVar[int] = 1

    def __str__(self) -> str:
        """Return one line: names in it come from outside, and may hold anything."""
        return plain(super().__str__())


class UserError(MurankError):
    """The user's mistake; the message says what to change."""

    exit_code = 2


class UsageError(UserError):
    """The command line asks for what does not fit together."""


class InputError(UserError, ValueError):
    """An input file, or what it holds, cannot be used."""


class OutputError(UserError):
    """Results cannot be written where they should go."""


class MachineError(MurankError):
    """The device that was asked for is not on this machine."""

    exit_code = 3


class Closed(MachineError):  # noqa: N818  as Overloaded
    """A worker was closed: it takes in no work, and what it had not ended will not be done."""


class Overloaded(MachineError):  # noqa: N818  what a caller does about it is no error of anybody's
    """A worker has as much to do as it can do in time."""

    def __init__(self, message: str, retry_after: float) -> None:
        """`retry_after`: seconds after which it may be asked again."""
        super().__init__(message)
        self.retry_after = retry_after


class ParityError(MurankError):
    """An engine does not answer as its PyTorch model, or as it did when it was exported."""

    exit_code = 4


class RegressionError(MurankError):
    """`murank bench compare` found the second report slower, beyond the threshold."""

    exit_code = 5


class InvalidRunError(MurankError):
    """`murank bench` found a Server run too slow for its latency bound."""

    exit_code = 6
