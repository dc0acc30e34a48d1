"""A GPU that failed: nothing in this process can use it again."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from murank._exceptions import MachineError

AGAIN = "load the engine again, in a new process"
_ADVICE = "start again in a new process, and if it fails again see `murank doctor`"
_SHOWN = 300  # characters


class GpuError(MachineError):
    """The driver refused for another reason than memory: the CUDA context stays broken."""

    def __init__(self, reason: str, *, file: str = "", during: str = "") -> None:
        super().__init__(f"{file}the GPU failed{during}; {_ADVICE}: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class Run:
    """A run of a graph, to be named where it went wrong: that may show much later."""

    file: Path
    shapes: Mapping[str, tuple[int, ...]]  # of its inputs

    def fault(self, reason: str) -> GpuError:
        """Return what to raise."""
        told = ", ".join(f"{name} {list(shape)}" for name, shape in self.shapes.items())[:_SHOWN]
        during = f" while it ran this graph on {told}, or what was queued before it"
        return GpuError(reason, file=f"{self.file}: ", during=during)


def reason_of(error: MachineError) -> str:
    """Return what the driver said; all of the message, where it was TensorRT that noticed."""
    return error.reason if isinstance(error, GpuError) else str(error)


def forget_frames(error: BaseException | None) -> None:
    """Let go of what the frames of an error, and of those behind it, keep alive."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


@contextmanager
def naming(run: Run | None) -> Iterator[None]:
    """Let a fault inside say whose run it was."""
    try:
        yield
    except GpuError as error:
        if run is None:
            raise
        raise run.fault(error.reason) from error
