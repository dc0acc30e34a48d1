"""Libraries that are imported only where they are needed."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from murank._exceptions import MachineError

_SHOWN = 300  # characters
_OWN = ("murank", "murank_kernels", "murank_export")


class LibraryError(MachineError):
    """A library cannot be imported; `missing`: it is not installed at all."""

    def __init__(self, message: str, *, missing: bool) -> None:
        super().__init__(message)
        self.missing = missing


def library(name: str, *parts: str, install: str) -> ModuleType:
    """Import a library, and modules of it that it does not import by itself.

    Parameters
    ----------
    name, parts
        "matplotlib", "matplotlib.figure": the first is returned.
    install
        How one comes by it, for the message.

    Raises
    ------
    LibraryError
        It is not installed; or it is, and cannot be imported: the cause is told.
    """
    try:
        module = importlib.import_module(name)
        for part in parts:
            importlib.import_module(part)
    except MemoryError as error:
        raise LibraryError(f"no memory is left to load {name}: free some", missing=False) from error
    except Exception as error:
        # What a library raises when a part of its own is missing is of its own choice.
        raise _told(name, error, install) from error
    if _is_folder(module):
        raise LibraryError(
            f"{name} is not installed (a folder has its name): {install}", missing=True
        )
    return module


def pip_install(*extras: str) -> str:
    """Return the command that adds what extras of murank need to it."""
    return f"pip install 'murank[{','.join(extras)}]'"


@contextmanager
def told_imports(install: str) -> Iterator[None]:
    """Turn a failed import of somebody else's library into a MachineError that tells the cause.

    `install` says how one comes by what is missing.
    """
    try:
        yield
    except ImportError as error:
        name = error.name or "a library"
        if name.partition(".")[0] in _OWN:
            raise  # a bug
        raise _told(name, error, install) from error


def _told(name: str, error: Exception, install: str) -> LibraryError:
    # What it needs may be missing as well: that is another cause.
    if isinstance(error, ModuleNotFoundError) and error.name in (name, name.partition(".")[0]):
        return LibraryError(f"{name} is not installed: {install}", missing=True)
    cause = " ".join(str(error).split())[:_SHOWN] or type(error).__name__
    return LibraryError(
        f"{name} is installed, but cannot be imported ({cause}): repair it, or {install}",
        missing=False,
    )


def _is_folder(module: ModuleType) -> bool:
    """Whether it is a folder on the path without code: a namespace, to Python."""
    return hasattr(module, "__path__") and getattr(module, "__file__", None) is None
