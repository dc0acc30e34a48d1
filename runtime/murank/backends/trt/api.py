"""The one place that imports TensorRT: NVIDIA's `tensorrt` 10 or 11, or `tensorrt_rtx`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from murank._exceptions import MachineError
from murank.machine.library import LibraryError, library

Library = Literal["tensorrt", "tensorrt_rtx"]
Backend = Literal["auto", "tensorrt", "rtx"]
_LIBRARIES: Mapping[Backend, tuple[Library, ...]] = {
    "auto": ("tensorrt", "tensorrt_rtx"), "tensorrt": ("tensorrt",), "rtx": ("tensorrt_rtx",)
}  # fmt: skip
# Strong types, INT64 inputs, and memory sizes of one profile.
_OLDEST: Mapping[Library, tuple[int, int]] = {"tensorrt": (10, 1), "tensorrt_rtx": (1, 1)}
_INSTALL = (
    "on a Jetson it comes with JetPack 6 or newer, elsewhere from NVIDIA (TensorRT 10.1 or newer), "
    "or `pip install tensorrt-rtx` for desktop GPUs"
)


@dataclass(frozen=True)
class TensorRT:
    """An imported library."""

    module: Any
    library: Library
    version: str

    @property
    def is_rtx(self) -> bool:
        """Whether plans name the GPUs that they are for."""
        return self.library == "tensorrt_rtx"

    @property
    def has_timing_cache(self) -> bool:
        """Whether building measures kernels; RTX compiles them on the device, when it loads."""
        return not self.is_rtx

    @property
    def title(self) -> str:
        """Name and version, for people."""
        return f"{'TensorRT-RTX' if self.is_rtx else 'TensorRT'} {self.version}"


def installed(backend: Backend = "auto") -> list[TensorRT]:
    """Return the usable libraries of this machine, first choice first.

    Raises
    ------
    MachineError
        None is installed, or none is new enough.
    """
    imported, broken = _imported(_LIBRARIES[backend])
    if not imported:
        if broken:
            raise broken[0]
        names = " nor ".join(_LIBRARIES[backend])
        others = [one for one in _LIBRARIES["auto"] if one not in _LIBRARIES[backend]]
        if _imported(others)[0]:
            raise MachineError(
                f"this machine has {others[0]}, and no {names}: install that, or pass "
                "backend='auto'"
            )
        raise MachineError(f"TensorRT is not installed (no module {names}): {_INSTALL}")
    usable = [one for one in imported if _numbers(one.version) >= _OLDEST[one.library]]
    if not usable:
        least = ".".join(map(str, _OLDEST[imported[0].library]))
        raise MachineError(f"{imported[0].title} is too old, {least} is needed: {_INSTALL}")
    return usable


def _imported(names: Sequence[Library]) -> tuple[list[TensorRT], list[LibraryError]]:
    """Return those that could be imported, and why others could not that are installed."""
    imported, broken = [], []
    for name in names:
        try:
            module = library(name, install=_INSTALL)
        except LibraryError as error:
            broken += [] if error.missing else [error]
            continue
        version = getattr(module, "__version__", None)
        if isinstance(version, str):  # a folder of that name on the path may import as well
            imported.append(TensorRT(module, name, version))
    return imported, broken


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: "10.3.0.post1" is (10, 3, 0)."""
    return tuple(_leading_numbers(version))


def _leading_numbers(version: str) -> Iterator[int]:
    for part in version.split("."):
        if not part.isdecimal():
            return
        yield int(part)


def make_logger(api: TensorRT) -> Any:
    """Return a logger of TensorRT that keeps what went wrong in `errors`, and prints nothing."""

    class Logger(api.module.ILogger):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            api.module.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= api.module.ILogger.Severity.ERROR:
                self.errors.append(message)

    return Logger()


def first_error(logger: Any) -> str:
    """Return the first thing that went wrong since `logger.errors` was emptied, on one line."""
    text = logger.errors[0] if logger.errors else "it gave no reason"
    return " ".join(text.split())[:300]
