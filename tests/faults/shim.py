"""Under whatever writes: counts the steps by which files change, and fails or kills at one.

For a forked child alone: what is put under Python here cannot be taken away again.
"""

import builtins
import errno
import gc
import io
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from murank.files import exchange as _exchange

KILLED = -signal.SIGKILL
CAN_FAIL = ("create", "exchange", "fsync", "mkdir", "rename", "write")
_EVENTS = {"os.mkdir": "mkdir", "os.remove": "remove", "os.rmdir": "rmdir", "os.rename": "rename"}


@dataclass(frozen=True)
class Step:
    """One change of what is on the disk."""

    kind: str  # create, write, fsync, mkdir, rename, exchange, remove or rmdir
    path: str
    to: str = ""  # of a rename


@dataclass(frozen=True)
class Ended:
    """How a child ended."""

    code: int  # exit code; KILLED
    err: str
    steps: list[Step]


class Shim:
    """Counts steps below `root`; at number `at` the disk is full, or the process is killed."""

    def __init__(self, root: Path, at: int | None = None, *, kill: bool = False) -> None:
        self._root = str(root.resolve())
        self._at, self._kill = at, kill
        self.steps: list[Step] = []

    def install(self) -> None:
        """Put it under this process."""
        shim, rename_both = self, _exchange.rename_both

        def counted_fsync(descriptor: int) -> None:  # the disk outlives this test
            shim.step("fsync", _path_of(descriptor))

        def counted_exchange(one: Path, other: Path) -> None:
            shim.step("exchange", str(one), str(other))
            rename_both(one, other)

        changed: dict[tuple[Any, str], Any] = {
            (os, "fsync"): counted_fsync,
            (os, "fdopen"): self._open,
            (io, "open"): self._open,
            (builtins, "open"): self._open,
            (_exchange, "rename_both"): counted_exchange,
        }
        for (module, name), function in changed.items():
            setattr(module, name, function)
        sys.addaudithook(self._hear)

    def step(self, kind: str, path: str, to: str = "") -> None:
        """Note a step that is about to be made, unless it is the one that fails."""
        if not f"{os.path.abspath(path)}/".startswith(f"{self._root}/"):  # noqa: PTH100
            return
        number = len(self.steps)
        self.steps.append(Step(kind, path, to))
        if number == self._at:
            if self._kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def _hear(self, event: str, given: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(given[0], str | bytes) and given[2] & os.O_CREAT:
            if not os.path.exists(given[0]):  # noqa: PTH110
                self.step("create", os.fsdecode(given[0]))
        elif event in _EVENTS:
            folder = given[-1]
            to = os.fsdecode(given[1]) if event == "os.rename" else ""
            self.step(_EVENTS[event], _below(folder, given[0]), to)

    def _open(self, file: Any, mode: str = "r", *given: Any, **options: Any) -> Any:
        if not set(mode) & set("wax+") or options.get("opener") is not None:
            return _OPEN(file, mode, *given, **options)
        raw = _Raw(file, mode.replace("b", "").replace("t", ""), options.get("closefd", True), self)
        if "b" in mode:
            return io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return io.TextIOWrapper(io.BufferedWriter(raw), encoding=options.get("encoding"))


class _Raw(io.FileIO):
    """Writes half of what fails, as a full disk does."""

    def __init__(self, file: Any, mode: str, closefd: bool, shim: Shim) -> None:
        super().__init__(file, mode, closefd)
        self._shim = shim

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        try:
            self._shim.step("write", _path_of(super().fileno()))
        except OSError:
            super().write(view[: len(view) // 2])
            raise
        return super().write(view)

    def fileno(self) -> int:
        # Pillow would write past us.
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if caller.startswith("PIL."):
            raise io.UnsupportedOperation("fileno")
        return super().fileno()


_OPEN = io.open


def _below(folder: Any, name: Any) -> str:
    path = os.fsdecode(name)
    return f"{_path_of(folder)}/{path}" if isinstance(folder, int) and folder >= 0 else path


def _path_of(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115


def in_child(run: Callable[[], int], shim: Shim) -> Ended:
    """Run something in a process of its own."""
    reading, writing = os.pipe()
    gc.freeze()  # else the child's collector would touch, and so copy, all of this process's memory
    child = os.fork()
    if child == 0:
        os.close(reading)
        _report(run, shim, writing)
    gc.unfreeze()
    os.close(writing)
    with _OPEN(reading, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    err, steps = json.loads(said) if said else ("", [])
    return Ended(code, err, [Step(*step) for step in steps])


def _report(run: Callable[[], int], shim: Shim, writing: int) -> None:
    """Run, tell the parent how it went, and end."""
    err, code = io.StringIO(), 1
    try:
        shim.install()
        with redirect_stdout(io.StringIO()), redirect_stderr(err):
            code = run()
    except BaseException:  # noqa: BLE001 - whatever it is, the parent hears of it
        err.write(traceback.format_exc())
    finally:
        steps = [[step.kind, step.path, step.to] for step in shim.steps]
        said = json.dumps([err.getvalue(), steps]).encode()
        while said:
            said = said[os.write(writing, said) :]
        os._exit(code)
