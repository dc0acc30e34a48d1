"""A GPU whose memory is the host's, and a TensorRT whose plans are run by onnxruntime on the CPU.

Addresses are real ones: a wrong offset or a freed array shows as wrong values.
"""

import ctypes
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank import MachineError
from murank.backends.trt import PlanSession
from murank.backends.trt.faults import GpuError
from murank.folder.contents import EngineFiles
from murank.folder.manifest import read_manifest

_BFLOAT16 = 16  # onnx.TensorProto
_ALIGNMENT = 256  # bytes: what NvInferRuntime.h asks of setTensorAddress
_TYPES = {
    "tensor(uint8)": np.uint8, "tensor(float16)": np.float16, "tensor(float)": np.float32,
    "tensor(int64)": np.int64, "tensor(bfloat16)": "bfloat16",
}  # fmt: skip


class Block:
    """Memory of the fake GPU."""

    def __init__(self, count: int) -> None:
        self._bytes = np.full(max(1, count) + _ALIGNMENT, 0xA5, np.uint8)

    def __int__(self) -> int:
        return -(-int(self._bytes.ctypes.data) // _ALIGNMENT) * _ALIGNMENT


class FakeGpu:
    """See murank.backends.trt.cuda.Gpu."""

    def __init__(self, compute_capability: str = "8.7") -> None:
        self.name, self.driver = "Fake Orin", "12.6"
        self.compute_capability = compute_capability
        self.total_bytes = self.free = 8 << 30
        self.stream = 77
        self.uploads = self.downloads = self.released = 0
        self.copied: list[int] = []  # bytes of each copy within
        self.reserved: list[int] = []
        self.depth = 0  # of `active`
        self.failed = False
        self.broken: str | None = None  # what the driver will say to whatever comes next

    @contextmanager
    def active(self) -> Iterator[None]:
        if self.failed:
            raise MachineError("the GPU failed, and this process has lost it")
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def has_failed(self) -> bool:
        self.failed = self.failed or self.broken is not None
        return self.failed

    def _work(self) -> None:
        if self.failed:
            raise MachineError("the GPU failed, and this process has lost it")
        if self.broken is not None:
            self.failed = True
            raise GpuError(self.broken)

    def free_bytes(self) -> int:
        return self.free

    def allocate(self, count: int) -> Block:
        self._work()
        if count > self.free:
            raise MachineError("the GPU is out of memory")
        return Block(count)

    def reserve(self, count: int) -> Block:
        self.reserved.append(count)
        return self.allocate(count)

    def release(self) -> None:
        self._work()
        self.released += 1

    def upload(self, address: int, array: NDArray[Any]) -> None:
        self._work()
        assert array.flags.c_contiguous
        self.uploads += 1
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def copy(self, target: int, source: int, count: int) -> None:
        self._work()
        self.copied.append(count)
        ctypes.memmove(target, source, count)

    def download(self, array: NDArray[Any], address: int) -> None:
        self._work()
        self.downloads += 1
        ctypes.memmove(array.ctypes.data, address, array.nbytes)


def plan_session(engine: Path, name: str) -> PlanSession:
    """Load the plan of a graph of an engine folder."""
    return PlanSession(EngineFiles(engine, read_manifest(engine)), name)


class FakeTensorRT(ModuleType):
    """The names of `tensorrt` that murank uses."""

    class ILogger:
        Severity = IntEnum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO"], start=0)

    class IProgressMonitor:
        pass

    NetworkDefinitionCreationFlag = IntEnum(
        "NetworkDefinitionCreationFlag", ["EXPLICIT_BATCH", "STRONGLY_TYPED"], start=0
    )
    BuilderFlag = IntEnum("BuilderFlag", ["TF32"])
    MemoryPoolType = IntEnum("MemoryPoolType", ["WORKSPACE"])
    ComputeCapability = IntEnum("ComputeCapability", ["SM86", "SM87", "SM89"])  # of RTX
    DataType = SimpleNamespace(BF16="bfloat16")
    TensorIOMode = IntEnum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"], start=0)
    ExecutionContextAllocationStrategy = IntEnum(
        "ExecutionContextAllocationStrategy", ["STATIC", "ON_PROFILE_CHANGE", "USER_MANAGED"]
    )

    def __init__(self, name: str = "tensorrt", version: str = "10.3.0") -> None:
        super().__init__(name)
        self.__version__ = version
        self.built: list[Any] = []  # (file, config) of each plan
        self.parsed: dict[str, Any] = {}  # sessions, by the hash of what was parsed
        self.deserialised = 0
        self.refuse_parse = self.refuse_build = self.refuse_load = self.refuse_run = False
        self.on_step: Callable[[], object] | None = None
        self.runs: list[tuple[int, dict[str, tuple[int, ...]]]] = []  # profile, input shapes
        self.Builder = lambda logger: _Builder(self, logger)
        self.OnnxParser = lambda network, _: _Parser(self, network)
        self.Runtime = lambda logger: _Runtime(self, logger)

    @staticmethod
    def nptype(dtype: Any) -> Any:
        if dtype == "bfloat16":
            raise TypeError("Could not resolve TensorRT datatype")
        return dtype


class _Builder:
    def __init__(self, trt: FakeTensorRT, logger: Any) -> None:
        self._trt, self._logger = trt, logger

    def create_network(self, flags: int) -> Any:
        assert flags == 1 << self._trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return SimpleNamespace(file=None, graph=None, names=[], num_inputs=0, get_input=None)

    def create_optimization_profile(self) -> Any:
        shapes: dict[str, Any] = {}
        return SimpleNamespace(
            shapes=shapes,
            set_shape=lambda name, *of: shapes.__setitem__(name, [list(one) for one in of]),
        )

    def create_builder_config(self) -> Any:
        return _Config()

    def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
        for step in range(2):
            if self._trt.on_step is not None:
                self._trt.on_step()
            config.progress_monitor.phase_start("tactics", None, 2)
            if not config.progress_monitor.step_complete("tactics", step):
                return None
            config.progress_monitor.phase_finish("tactics")
        if self._trt.refuse_build:
            self._logger.log(self._trt.ILogger.Severity.WARNING, "it is warm")
            self._logger.log(self._trt.ILogger.Severity.ERROR, "Out of\nmemory")
            return None
        self._trt.built.append((network.file, config))
        if self._trt.__name__ == "tensorrt_rtx":
            assert config.timings is None, "deprecated there"
        else:
            config.timings.content += b"+"
        return json.dumps({"graph": network.graph, "profiles": config.profiles}).encode()


class _Config:
    def __init__(self) -> None:
        self.profiles: list[Any] = []
        self.limits: dict[Any, int] = {}
        self.tf32 = True
        self.timings: Any = None
        self.progress_monitor: Any = None
        self.num_compute_capabilities = 0
        self.compute_capabilities: dict[int, Any] = {}

    def set_compute_capability(self, which: Any, index: int) -> None:
        self.compute_capabilities = {index: which}

    def set_memory_pool_limit(self, pool: Any, count: int) -> None:
        self.limits[pool] = count

    def set_flag(self, flag: Any) -> None:
        assert flag.name == "TF32"
        self.tf32 = True

    def clear_flag(self, flag: Any) -> None:
        assert flag.name == "TF32"
        self.tf32 = False

    def add_optimization_profile(self, profile: Any) -> int:
        for least, usual, most in profile.shapes.values():
            if any(not a <= b <= c for a, b, c in zip(least, usual, most, strict=True)):
                return -1
        self.profiles.append(profile.shapes)
        return len(self.profiles) - 1

    def create_timing_cache(self, content: bytes) -> Any:
        cache: Any = SimpleNamespace(content=content)
        cache.serialize = lambda: cache.content
        return cache

    def set_timing_cache(self, cache: Any, *, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if cache.content == b"of another version":
            return False
        self.timings = cache
        return True


class _Parser:
    def __init__(self, trt: FakeTensorRT, network: Any) -> None:
        self._trt, self._network = trt, network
        self.num_errors = 0

    def parse_from_file(self, file: str) -> bool:
        if self._trt.refuse_parse:
            self.num_errors = 1
            return False
        session, graph = _session(file), hashlib.sha256(Path(file).read_bytes()).hexdigest()
        self._trt.parsed[graph] = session
        inputs = [
            SimpleNamespace(
                name=node.name, shape=[one if isinstance(one, int) else -1 for one in node.shape]
            )
            for node in session.get_inputs()
        ]
        names = [one.name for one in inputs]
        self._network.file, self._network.graph = file, graph
        self._network.num_inputs = len(names)
        self._network.get_input = lambda index: inputs[index]
        return True

    def get_error(self, index: int) -> Any:
        assert index == 0
        return SimpleNamespace(desc=lambda: "no such\noperator")


class _Runtime:
    def __init__(self, trt: FakeTensorRT, logger: Any) -> None:
        self._trt, self._logger = trt, logger

    def deserialize_cuda_engine(self, content: Any) -> Any:
        self._trt.deserialised += 1
        if self._trt.refuse_load:
            self._logger.log(self._trt.ILogger.Severity.ERROR, "no memory left")
            return None
        return FakeEngine(self._trt, **json.loads(bytes(content)))


class FakeEngine:
    def __init__(self, trt: FakeTensorRT, graph: str, profiles: list[Any]) -> None:
        self.trt, self._profiles = trt, profiles
        self.session = trt.parsed[graph]
        self.inputs = {node.name: node for node in self.session.get_inputs()}
        self.outputs = {node.name: node for node in self.session.get_outputs()}
        self.nodes: dict[str, Any] = {**self.inputs, **self.outputs}
        self.num_io_tensors = len(self.nodes)
        self.num_optimization_profiles = len(profiles)

    def get_tensor_name(self, index: int) -> str:
        return [*self.nodes][index]

    def get_tensor_dtype(self, name: str) -> Any:
        return _TYPES[self.nodes[name].type]

    def get_tensor_mode(self, name: str) -> Any:
        modes = self.trt.TensorIOMode
        return modes.INPUT if name in self.inputs else modes.OUTPUT

    def get_tensor_shape(self, name: str) -> list[int]:
        return [one if isinstance(one, int) else -1 for one in self.nodes[name].shape]

    def get_tensor_profile_shape(self, name: str, profile: int) -> Any:
        return self._profiles[profile][name]

    def get_device_memory_size_for_profile_v2(self, profile: int) -> int:
        return 1000 * (profile + 1)

    def create_execution_context(self, strategy: Any) -> "_Context":
        assert strategy.name == "USER_MANAGED"
        return _Context(self)


class _Context:
    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine
        self._profile: int | None = None
        self._scratch = 0
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_device_memory(self, address: int, size: int) -> None:
        assert address
        self._scratch = size

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        assert stream == 77
        self._profile = profile
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self._profile is not None
        least, _, most = self._engine.get_tensor_profile_shape(name, self._profile)
        self._shapes[name] = shape
        return all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True))

    def get_tensor_shape(self, name: str) -> list[int]:
        """Of an output: its named dimensions, or sums of such, as the inputs have them."""
        free = {
            word: length
            for key, shape in self._shapes.items()
            for word, length in zip(self._engine.nodes[key].shape, shape, strict=True)
            if isinstance(word, str) and "+" not in word
        }
        return [_length(one, free) for one in self._engine.nodes[name].shape]

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address % _ALIGNMENT == 0, f"{name} is not where TensorRT takes it from"
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 77
        assert self._profile is not None
        needed = self._engine.get_device_memory_size_for_profile_v2(self._profile)
        assert self._scratch >= needed
        if self._engine.trt.refuse_run:
            return False
        self._engine.trt.runs.append((self._profile, dict(self._shapes)))
        feed = {name: self._read(name) for name in self._engine.inputs}
        names = list(self._engine.outputs)
        found = self._engine.session.run_with_ort_values(names, feed)
        for name, value in zip(names, found, strict=True):
            assert list(value.shape()) == self.get_tensor_shape(name)
            size = value.tensor_size_in_bytes()
            ctypes.memmove(self._addresses.pop(name), value.data_ptr(), size)
        return True

    def _read(self, name: str) -> Any:
        from onnxruntime import OrtValue

        dtype = self._engine.get_tensor_dtype(name)
        is_bfloat16 = dtype == "bfloat16"
        array = np.empty(self._shapes[name], np.uint16 if is_bfloat16 else dtype)
        ctypes.memmove(array.ctypes.data, self._addresses.pop(name), array.nbytes)
        if is_bfloat16:
            return OrtValue.ortvalue_from_numpy_with_onnx_type(array, _BFLOAT16)
        return OrtValue.ortvalue_from_numpy(array)


def _length(dimension: int | str, free: dict[str, int]) -> int:
    if isinstance(dimension, int):
        return dimension
    return sum(int(one) if one.isdecimal() else free[one] for one in dimension.split(" + "))


def _session(file: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    # As TensorRT: floats by weights of four bits.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
