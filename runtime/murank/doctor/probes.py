"""One real computation on each backend, its answer checked; run in processes of their own."""

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import MachineError
from murank.backends.providers import CUDA, TENSORRT
from murank.doctor import gpus as _driver

_SIZE = 64
_CLOSE = 0.05  # of sums of 64 products of normal numbers, should the GPU round to TF32
_TWINS, _DIM = 6, 32


def driver() -> tuple[str, Any]:
    """Ask NVIDIA's driver for its GPUs."""
    return "asked", _driver.gpus()


def kernels(device: str) -> tuple[str, Any]:
    """Re-rank queries among whose gallery each has a twin."""
    from murank_kernels import MurankKernelsError, k_reciprocal

    features = np.random.default_rng(0).standard_normal((2 * _TWINS, _DIM)).astype(np.float32)
    features[_TWINS:] = features[:_TWINS]
    try:
        _, places = k_reciprocal(features, _TWINS, k1=3, k2=2, top_k=1, device=device)
    except MurankKernelsError as error:
        raise MachineError(str(error)) from error
    if not np.array_equal(np.asarray(places).ravel(), np.arange(_TWINS)):
        raise MachineError("k_reciprocal gave a wrong order: do not use these kernels here")
    return "k_reciprocal ran, its order is right", None


def product(*providers: str) -> tuple[str, Any]:
    """Multiply matrices by onnxruntime."""
    from murank.backends.onnx.session import Session, SessionSettings, onnxruntime
    from murank.backends.onnx.tiny_onnx import matmul

    settings = SessionSettings(list(providers), threads=1)
    session = Session(Path("the test graph"), settings, graph=matmul(_SIZE))
    a, b = _matrices()
    (c,) = session.run({"a": a, "b": b}, ["c"])
    _check(c.numpy())
    version = onnxruntime().__version__
    return f"onnxruntime {version} multiplied matrices, the product is right", None


def tensorrt() -> tuple[str, Any]:
    """Build a plan that multiplies matrices, and run it."""
    from murank.backends.onnx.tiny_onnx import matmul
    from murank.backends.trt import BuildSettings, this_machine
    from murank.backends.trt.builder import make_plan

    machine = this_machine()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "product.onnx"
        file.write_bytes(matmul(_SIZE))
        plan = make_plan(
            machine, file, (), BuildSettings(), timing_cache=b"", progress=lambda *_: None
        )
    _check(_run_plan(machine, plan.content))
    return f"{machine.api.title} built a plan and ran it, the product is right", None


def _run_plan(machine: Any, content: Any) -> NDArray[np.float32]:
    """Run a plan of the product on this machine's GPU."""
    from murank.backends.trt.api import make_logger

    gpu, product = machine.gpu, np.empty((_SIZE, _SIZE), np.float32)
    with gpu.active():
        logger = make_logger(machine.api)
        runtime = machine.api.module.Runtime(logger)
        engine = runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise MachineError(f"{machine.api.title} could not load the plan that it built")
        context = engine.create_execution_context()
        memory = {name: gpu.allocate(product.nbytes) for name in "abc"}
        for name, matrix in zip("ab", _matrices(), strict=True):
            gpu.upload(int(memory[name]), matrix)
        for name, buffer in memory.items():
            context.set_tensor_address(name, int(buffer))
        if not context.execute_async_v3(gpu.stream):
            raise MachineError(f"{machine.api.title} could not run the plan that it built")
        gpu.download(product, int(memory["c"]))
    return product


def openvino() -> tuple[str, Any]:
    """Multiply matrices by OpenVINO on the CPU."""
    from murank.backends.onnx.tiny_onnx import matmul
    from murank.backends.openvino import OpenVinoSession
    from murank.backends.openvino.devices import openvino as library
    from murank.backends.protocol import SessionSettings
    from murank.folder.contents import EngineFiles

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "product.onnx").write_bytes(matmul(_SIZE))
        settings = SessionSettings("openvino", threads=1)
        session = OpenVinoSession(EngineFiles(Path(folder)), "product.onnx", settings)
        a, b = _matrices()
        (c,) = session.run({"a": a, "b": b}, ["c"])
    _check(c.numpy())
    version = str(library().__version__).partition("-")[0]
    return f"OpenVINO {version} multiplied matrices, the product is right", None


def golden(
    engine: str, providers: str, products: Any = "float32", plans: str | None = None
) -> tuple[str, Any]:
    """Replay an engine's golden images."""
    from murank.backends.protocol import SessionSettings
    from murank.engine.golden import replay
    from murank.folder.integrity import check_engine

    folder = Path(engine)
    manifest = check_engine(folder)
    kept = None if plans is None else Path(plans)
    replays = replay(folder, manifest, SessionSettings(providers, None, kept, products))
    told = ", ".join(
        f"{one.name} differs by {one.largest:.1e} of {one.unit} (tolerance {one.tolerance:.0e})"
        for one in replays
    )
    for one in replays:
        if one.fault is not None:
            raise MachineError(f"its {one.name} {one.fault}")
    if not all(one.passed for one in replays):
        raise MachineError(f"it does not answer here as it did at export: {told}")
    return f"answers as at export: {told}", None


def pace(
    engine: str, providers: str, products: Any = "float32", plans: str | None = None
) -> tuple[str, Any]:
    """Return the milliseconds of an engine's query."""
    from murank.doctor.pace import query_ms
    from murank.engine.engine import Engine

    kept = None if plans is None else Path(plans)
    with Engine.from_pretrained(
        engine, providers=providers, products=products, plans=kept, check="sizes"
    ) as loaded:
        return "timed", query_ms(loaded)


PROBES: Mapping[str, Callable[..., tuple[str, Any]]] = {
    "driver": driver,
    "kernels-cpu": lambda: kernels("cpu"),
    "kernels-cuda": lambda: kernels("cuda"),
    "onnxruntime-cpu": lambda: product("CPUExecutionProvider"),
    "onnxruntime-cuda": lambda: product(CUDA),
    "onnxruntime-tensorrt": lambda: product(TENSORRT),
    "tensorrt": tensorrt,
    "openvino": openvino,
    "golden": golden,
    "pace": pace,
}


def answer(probe: str, *arguments: str) -> str:
    """Run a probe and return one line of JSON; whatever goes wrong is an answer, too."""
    try:
        said, more = PROBES[probe](*arguments)
        told: dict[str, Any] = {"works": True, "said": said, "found": more}
    except Exception as error:  # noqa: BLE001 - of any library's making
        kind = "" if isinstance(error, MachineError) else f"{type(error).__name__}: "
        told = {"works": False, "said": f"{kind}{error}", "found": None}
    return json.dumps(told)


def _matrices() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((2, _SIZE, _SIZE)).astype(np.float32)


def _check(product: NDArray[np.float32]) -> None:
    a, b = _matrices().astype(np.float64)
    off = float(np.abs(product - a @ b).max())
    if not off < _CLOSE:  # NaN is far off as well
        raise MachineError(f"a product of matrices is wrong by {off:.3g}: do not use it here")
