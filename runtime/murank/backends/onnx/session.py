"""One graph, loaded: calls whose tensors stay on the device."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError, MachineError
from murank.backends.graph_shapes import check_shapes
from murank.backends.onnx.failures import is_fault, load_error, message_of, run_error
from murank.backends.onnx.rows import OnnxRows
from murank.backends.onnx.tiny_onnx import gather, to_bfloat16, zeros
from murank.backends.protocol import Memory, Place, RowBlock, Shape
from murank.backends.protocol import SessionSettings as SessionSettings  # as of Providers
from murank.backends.providers import (
    CUDA,
    CUDA_OPTIONS,
    ON_GPU,
    check_placed,
    check_used,
    device_id,
    find_gpu_libraries,
    name_of,
    nodes_on_cpu,
    wanted,
)
from murank.backends.providers import Providers as Providers  # engines are asked for by it
from murank.folder.onnx_references import facts_of, graph_facts
from murank.machine.integer_products import multiplies_exactly
from murank.machine.library import library, pip_install
from murank.machine.telemetry import warn_if_on
from murank_kernels.machine.cores import usable_cores

_SEVERITY_ERROR = 3
EXACT_PRODUCTS = "session.x64quantprecision"  # weights of int8 become uint8 when they are loaded
_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}  # that NumPy knows
_BFLOAT16 = "tensor(bfloat16)"


class Session:
    """A graph in onnxruntime. Calls from several threads are safe.

    Attributes
    ----------
    providers
        What runs it, first choice first.
    device, device_id
        "cpu" or "cuda", and which GPU: where outputs lie.
    on_cpu
        Nodes that a GPU's session left to the CPU, by operator; None on CPUs, and where onnxruntime
        does not tell.
    """

    def __init__(
        self,
        file: Path,
        settings: SessionSettings,
        *,
        graph: bytes | None = None,
        called: Path | None = None,
    ) -> None:
        """Load a file that nobody writes to, or `graph`; `called` is its name for messages."""
        file, source = file if called is None else called, file if graph is None else graph
        self._session, asked = _load(file, source, settings)
        self._file, self._threads, self._closed = file, settings.threads, False
        nodes = (*self._session.get_inputs(), *self._session.get_outputs())
        self._types = {node.name: str(node.type) for node in nodes}  # as in "tensor(float16)"
        self._shapes = {node.name: tuple(node.shape) for node in nodes}
        self.providers: list[str] = self._session.get_providers()
        check_used(settings.providers, asked, self.providers)
        self.device = "cuda" if self.providers[0] in ON_GPU else "cpu"
        self.on_cpu = nodes_on_cpu(self._session) if self.device == "cuda" else None
        check_placed(file, settings.providers, self.on_cpu)
        self.device_id = device_id(settings.providers) if self.device == "cuda" else 0
        self._narrowing: dict[int, Session] = {}  # to bfloat16, by number of axes

    @property
    def memory(self) -> Memory:
        """Where outputs lie."""
        return "onnxruntime", self.device, self.device_id

    def expect(self, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]) -> None:
        """Raise InputError unless the graph has these, with these shapes (None: any length)."""
        for wanted_nodes, nodes in (
            (inputs, self._session.get_inputs()), (outputs, self._session.get_outputs())
        ):  # fmt: skip
            check_shapes(self._file, {node.name: _lengths(node) for node in nodes}, wanted_nodes)

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str]) -> list[Any]:
        """Run the graph on arrays or values of this device; return values that stay on it.

        Raises
        ------
        MachineError
            Out of memory; or the GPU failed: the graph is given up, and its memory with it.
        InputError
            The graph cannot be run on these inputs.
        """
        return self._run(inputs, dict.fromkeys(outputs, ()))

    def run_into(self, inputs: Mapping[str, Any], output: str, place: Place) -> None:
        """Run the graph; its output goes to that place on this session's device."""
        self._run(inputs, {output: (place.dtype.type, list(place.shape), place.address)})

    def longest(self, name: str, axis: int) -> int | None:
        """Return the length that the graph was made for; None: any."""
        length = self._shapes[name][axis]
        return length if isinstance(length, int) else None

    def to_device(self, array: NDArray[Any], name: str | None = None) -> Any:
        """Return the array as a value on this session's device.

        Float32 values for an input `name` that is bfloat16 become that.

        Raises
        ------
        MachineError
            Out of memory.
        """
        if name is not None and self._types[name] == _BFLOAT16:
            return self._bfloat16(array)
        with self._memory_for(array.nbytes):
            return onnxruntime().OrtValue.ortvalue_from_numpy(
                np.ascontiguousarray(array), self.device, self.device_id
            )

    def allocate(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Any:
        """Return a value on this session's device, full of zeros.

        A graph makes it: what onnxruntime allocates for an OrtValue comes from an arena that grows
        by powers of two, whatever the provider's options say.

        Raises
        ------
        MachineError
            Out of memory.
        """
        with self._memory_for(math.prod(shape) * dtype.itemsize):
            maker = self._beside("memory on the device", zeros(dtype, len(shape)))
            (value,) = maker.run({"lengths": np.array(shape, np.int64)}, ["made"])
        return value

    def row_block(
        self, output: str, count: int, shape: Sequence[int], dtype: np.dtype[Any]
    ) -> RowBlock | None:
        """Return a block for rows of an output; None where they may as well lie on the host.

        Raises
        ------
        MachineError
            The device has no memory for it.
        """
        dtype_name = _TYPES.get(self._types[output])
        if self.device != "cuda" or CUDA not in self.providers or dtype_name != dtype.name:
            return None
        copier = self._beside("vision tokens on the device", gather(dtype, shape))
        # Where the CPU gathers, each run would fetch the whole block.
        return None if copier.on_cpu else OnnxRows(copier, count, shape, dtype)

    def close(self) -> None:
        """Free what was loaded, after runs in progress; what is asked later is an InputError."""
        self._session, self._closed = None, True
        self._narrowing.clear()

    def _bfloat16(self, array: NDArray[Any]) -> Any:
        """Let the device narrow the values: NumPy has no such type to send."""
        rank = array.ndim
        if rank not in self._narrowing:
            self._narrowing[rank] = self._beside("values to bfloat16", to_bfloat16(rank))
        (value,) = self._narrowing[rank].run({"wide": array}, ["narrow"])
        return value

    def _beside(self, name: str, graph: bytes) -> "Session":
        """Load a small graph of our own on the same device."""
        options = {**CUDA_OPTIONS, "device_id": str(self.device_id)}
        providers: Providers = "cpu" if self.device == "cpu" else [(CUDA, options)]
        return Session(Path(name), SessionSettings(providers, self._threads), graph=graph)

    def _loaded(self) -> Any:
        """Return what was loaded; MachineError if the GPU has failed, InputError if closed."""
        if self._closed:
            raise InputError(f"{self._file} was closed with its engine: load that again")
        if self._session is None:
            raise MachineError(
                f"{self._file} was given up when the GPU failed: load the engine again, in a new "
                "process"
            )
        return self._session

    @contextmanager
    def _memory_for(self, size: int) -> Iterator[None]:
        self._loaded()
        try:
            yield
        except Exception as error:
            raise MachineError(
                f"{self._file}: {max(1, size >> 20)} MiB more are wanted on the device than it has "
                f"free: {message_of(error)}"
            ) from error

    def _run(self, inputs: Mapping[str, Any], outputs: Mapping[str, tuple[Any, ...]]) -> list[Any]:
        session = self._loaded()  # held until the end, whoever closes meanwhile
        try:
            binding = session.io_binding()
            for name, value in inputs.items():
                if isinstance(value, np.ndarray):
                    binding.bind_cpu_input(name, np.ascontiguousarray(value))
                else:
                    binding.bind_ortvalue_input(name, value)
            for name, place in outputs.items():
                binding.bind_output(name, self.device, self.device_id, *place)
            session.run_with_iobinding(binding)
            if self.device != "cpu":
                # A session has streams of its own, and what comes next may run on another's: the
                # outputs must be there on return, and the inputs no longer read. By default a
                # run waits for its own stream; this waits for the device, whatever was set.
                binding.synchronize_outputs()
            values: list[Any] = binding.get_outputs()
        except Exception as error:
            # onnxruntime raises its own kinds, one a status, and RuntimeError for the allocator.
            shapes = [f"{name} {_shape(value)}" for name, value in inputs.items()]
            if is_fault(error):
                # A CUDA context that failed stays so: free what can be freed, tracebacks included.
                self._session = session = binding = None
                error.__traceback__ = None
            raise run_error(self._file, shapes, error) from error
        return values


def _lengths(node: Any) -> Shape:
    return tuple(one if isinstance(one, int) else None for one in node.shape)  # free: named or None


def _shape(value: Any) -> list[int]:
    return list(value.shape if isinstance(value, np.ndarray) else value.shape())


def onnxruntime() -> Any:
    """Import onnxruntime, without its telemetry; MachineError if that cannot be."""
    warn_if_on()
    return library("onnxruntime", install=f"{pip_install('cpu')} or 'murank[gpu]'")


def _load(file: Path, source: Path | bytes, settings: SessionSettings) -> tuple[Any, list[Any]]:
    """Return a session of onnxruntime, and what was asked of it."""
    runtime = onnxruntime()
    asked = wanted(settings.providers, runtime.get_available_providers())
    find_gpu_libraries(runtime, asked)
    options = _options(runtime, asked, settings.threads)
    if not multiplies_exactly() and _has_zero_points(file, source):
        options.add_session_config_entry(EXACT_PRODUCTS, "1")
    if not settings.optimise:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        # onnxruntime's own fallback would tell of it on stdout, and forget what was asked for.
        session = runtime.InferenceSession(
            str(source) if isinstance(source, Path) else source,
            options,
            providers=asked,
            enable_fallback=0,
        )
    except Exception as error:
        # onnxruntime raises its own kinds, one a status, and ValueError on provider options.
        raise load_error(file, asked, error, runtime.__version__) from error
    return session, asked


def _has_zero_points(file: Path, source: Path | bytes) -> bool:
    """Return False for graphs whose weights would become uint8 with a zero point of wrong shape.

    Such are made for TensorRT and computed in floats here. A file that cannot be read: loading it
    says so.
    """
    try:
        facts = graph_facts(source, file) if isinstance(source, Path) else facts_of(source, file)
    except InputError:
        return False
    return not facts.omits_zero_points


def _options(runtime: Any, asked: Sequence[Any], threads: int | None) -> Any:
    options = runtime.SessionOptions()
    options.log_severity_level = _SEVERITY_ERROR
    options.intra_op_num_threads = threads or usable_cores()
    # One block for each shape seen would double the activations' memory, and saves no time.
    options.enable_mem_pattern = False
    # Several graphs take turns: a pool that spins after its turn slows the next one down.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Its own choice would give activations 8 bits where weights have 4.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    if any(name_of(one) in ON_GPU for one in asked):
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options
