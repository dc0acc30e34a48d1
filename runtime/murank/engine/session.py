"""onnxruntime sessions: which provider runs, and calls whose tensors stay on the device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._cores import usable_cores
from murank._exceptions import InputError, MachineError

Providers = str | Sequence[str | tuple[str, Mapping[str, Any]]]
_CPU = "CPUExecutionProvider"
_NAMED: Mapping[str, tuple[str, ...]] = {
    "cpu": (_CPU,),
    "cuda": ("CUDAExecutionProvider", _CPU),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", _CPU),
}
Shape = tuple[int | None, ...]
_ON_GPU = {"CUDAExecutionProvider", "TensorrtExecutionProvider"}
_SEVERITY_ERROR = 3


@dataclass(frozen=True)
class SessionSettings:
    """How graphs are run."""

    providers: Providers = "auto"  # auto, cpu, cuda, tensorrt, or a list as onnxruntime takes it
    threads: int | None = None  # of one operator; None: the cores that this process may use


class Session:
    """One graph, loaded. Calls from several threads are safe."""

    def __init__(self, file: Path, settings: SessionSettings) -> None:
        runtime = onnxruntime()
        options = runtime.SessionOptions()
        options.log_severity_level = _SEVERITY_ERROR
        options.intra_op_num_threads = settings.threads or usable_cores()
        # One block for each shape seen would double the activations' memory, and saves no time.
        options.enable_mem_pattern = False
        # Several graphs take turns: a pool that spins after its turn slows the next one down.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = _load(runtime, file, options, settings.providers)
        self.providers: list[str] = self._session.get_providers()
        _check_used(settings.providers, self.providers)
        self._file = file
        self.device = "cuda" if self.providers[0] in _ON_GPU else "cpu"
        self._device_id = _device_id(settings) if self.device == "cuda" else 0

    def expect(self, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]) -> None:
        """Raise InputError unless the graph has these, with these shapes (None: any length)."""
        for wanted, nodes in (
            (inputs, self._session.get_inputs()), (outputs, self._session.get_outputs())
        ):  # fmt: skip
            found = {node.name: tuple(node.shape) for node in nodes}
            for name, shape in wanted.items():
                if name not in found or not _fits(found[name], shape):
                    raise InputError(
                        f"{self._file}: {name} is {found.get(name, 'missing')}, which does not fit "
                        f"the manifest's {shape}; export the engine again"
                    )

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str]) -> list[Any]:
        """Run the graph on arrays or values of this device; return values that stay on it.

        Raises
        ------
        MachineError
            Out of memory.
        InputError
            The graph cannot be run on these inputs.
        """
        binding = self._session.io_binding()
        try:
            for name, value in inputs.items():
                if isinstance(value, np.ndarray):
                    binding.bind_cpu_input(name, np.ascontiguousarray(value))
                else:
                    binding.bind_ortvalue_input(name, value)
            for name in outputs:
                binding.bind_output(name, self.device, self._device_id)
            self._session.run_with_iobinding(binding)
            values: list[Any] = binding.get_outputs()
        except Exception as error:
            # onnxruntime raises its own kinds, one a status, and RuntimeError for the allocator.
            raise _run_error(self._file, error) from error
        return values

    def to_device(self, array: NDArray[Any]) -> Any:
        """Return the array as a value on this session's device."""
        return onnxruntime().OrtValue.ortvalue_from_numpy(
            np.ascontiguousarray(array), self.device, self._device_id
        )


def _device_id(settings: SessionSettings) -> int:
    """Return the GPU that the first provider's options name; 0 if none does."""
    first = settings.providers[0]
    return 0 if isinstance(first, str) else int(first[1].get("device_id", 0))


def _fits(found: Sequence[Any], wanted: Shape) -> bool:
    """Whether fixed lengths of a graph's shape (names and None are free) are those wanted."""
    return len(found) == len(wanted) and all(
        have == want
        for have, want in zip(found, wanted, strict=True)
        if isinstance(have, int) and want is not None
    )


def onnxruntime() -> Any:
    """Import onnxruntime; MachineError if it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MachineError(
            "onnxruntime is not installed: install murank with its extra 'cpu' or 'gpu'"
        ) from error
    return onnxruntime


def _load(runtime: Any, file: Path, options: Any, providers: Providers) -> Any:
    wanted = _wanted(providers, runtime.get_available_providers())
    try:
        # onnxruntime's own fallback would tell of it on stdout, and forget what was asked for.
        return runtime.InferenceSession(str(file), options, providers=wanted, enable_fallback=0)
    except Exception as error:
        # onnxruntime raises its own kinds, one a status, and ValueError on provider options.
        if providers == "auto" and wanted != [_CPU]:
            return _load(runtime, file, options, "cpu")
        raise _load_error(file, wanted, error) from error


def _wanted(providers: Providers, available: Sequence[str]) -> list[Any]:
    if not isinstance(providers, str):
        if not providers:
            raise InputError("providers is an empty list; name at least one, or pass 'auto'")
        return list(providers)
    if providers == "auto":
        name = "cuda" if "CUDAExecutionProvider" in available else "cpu"
        return list(_NAMED[name])
    if providers not in _NAMED:
        known = ", ".join(("auto", *_NAMED))
        raise InputError(f"providers must be one of {known}, or a list, got {providers!r}")
    if _NAMED[providers][0] not in available:
        raise MachineError(
            f"this onnxruntime has no {_NAMED[providers][0]}: uninstall it, and install murank "
            "with its extra 'gpu'"
        )
    return [name for name in _NAMED[providers] if name in available]


def _check_used(asked: Providers, used: Sequence[str]) -> None:
    """A library that lists a provider may still fall back to the CPU, with a log line only."""
    if asked == "auto":
        return
    first = _NAMED[asked][0] if isinstance(asked, str) else asked[0]
    first = first if isinstance(first, str) else first[0]
    if first not in used:
        raise MachineError(
            f"{first} was asked for, but onnxruntime could not use it here and fell back to "
            f"{', '.join(used)}; pass providers='auto' to accept that"
        )


def _load_error(file: Path, wanted: Sequence[Any], error: Exception) -> Exception:
    text = " ".join(str(error).split())[:300]
    named = {name if isinstance(name, str) else name[0] for name in wanted}
    if named - {_CPU}:
        return MachineError(f"{file} could not be loaded with {', '.join(sorted(named))}: {text}")
    return InputError(f"{file} could not be loaded by onnxruntime: {text}")


def _run_error(file: Path, error: Exception) -> Exception:
    text = " ".join(str(error).split())[:300]
    if isinstance(error, MemoryError) or "alloc" in text.lower() or "out of memory" in text.lower():
        return MachineError(
            f"{file}: out of memory; pass a smaller max_pairs, or free some: {text}"
        )
    return InputError(f"{file} could not be run: {text}")
