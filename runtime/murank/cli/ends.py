"""How the command ends on whatever was raised: one sentence and an exit code, or a bug."""

import contextlib
import os
import signal
from typing import NamedTuple

from murank._exceptions import EXIT_OK, MachineError, MurankError
from murank.cli.streams import ReaderLeftError
from murank.machine.process import stop_signal, stopped


class End(NamedTuple):
    """What is said, nothing if empty, and the exit code."""

    said: str
    code: int


def how_it_ends(error: BaseException) -> End | None:
    """Return how; None: a bug in murank, whose traceback is wanted."""
    if isinstance(error, ReaderLeftError):
        return End("", EXIT_OK)
    number = stop_signal()
    if isinstance(error, KeyboardInterrupt) or number is not None:
        # Libraries turn an interrupt into errors of their own.
        return End(*stopped(signal.SIGINT if number is None else number))
    if isinstance(error, MurankError):
        return End(f"error: {error}", error.exit_code)
    said = _refused(error)
    return None if said is None else End(f"error: {said}", MachineError.exit_code)


def _refused(error: BaseException) -> str | None:
    """Return what the system refused, None if it did not."""
    if isinstance(error, MemoryError):
        detail = f" ({error})" if str(error) else ""
        return f"there is not enough memory for this{detail}"
    if isinstance(error, OSError):
        return _of_system(error)
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return "the system starts no more threads for this user (see ulimit -u, pids.max)"
    return None


def _of_system(error: OSError) -> str:
    if isinstance(error, FileNotFoundError) and _is_folder_gone():
        return "the current folder was deleted; change to another one"
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return f"{' -> '.join(names) or 'the system'}: {error.strerror or error}"


def _is_folder_gone() -> bool:
    with contextlib.suppress(FileNotFoundError):
        os.getcwd()  # noqa: PTH109 - nothing is done with it
        return False
    return True
