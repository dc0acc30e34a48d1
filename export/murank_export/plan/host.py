"""The CPU of this machine as a device: rates that are measured, in about two seconds."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from murank.backends.onnx.session import onnxruntime
from murank.machine.hardware import cpu_model, resident_bytes
from murank.machine.memory import available_bytes
from murank_export.plan.devices import CPU, Device
from murank_export.plan.onnx import onnx
from murank_kernels.machine.cores import usable_cores

_SIZE = 1024  # of the products: 2 x 1024^3 operations
_COPIED = 64 << 20  # bytes: far above any cache
_SECONDS, _ROUNDS = 0.25, 2  # of one measurement
_OPSET, _IR = 18, 9


def this_cpu(threads: int | None = None) -> Device:
    """Measure this machine.

    Parameters
    ----------
    threads
        Of one operator; None: the physical cores that this process may use.

    Raises
    ------
    MachineError
        onnx or onnxruntime is not installed.
    """
    count = threads or usable_cores()
    runs = {"fp32": _product("fp32", count), "int8": _product("int8", count)}
    runs["copy"] = _copy(count)
    # In turns: what disturbs one measurement is often gone at the next.
    rounds = [{name: fastest(run) for name, run in runs.items()} for _ in range(_ROUNDS)]
    least = {name: min(one[name] for one in rounds) for name in runs}
    bandwidth = 2 * _COPIED / least.pop("copy")
    rates = {kind: 2 * _SIZE**3 / seconds for kind, seconds in least.items()}
    machine = os.uname().machine
    return Device(
        "cpu", f"this CPU ({cpu_model() or machine}, {count} threads)", "cpu", machine, rates,
        bandwidth, available_bytes() or 0, shared=True, host_bandwidth=bandwidth, assumed=CPU,
        source=f"measured here: products of {_SIZE} x {_SIZE} matrices in onnxruntime, and a copy "
        f"of {_COPIED >> 20} MiB",
    )  # fmt: skip


def faster(one: Device, other: Device) -> Device:
    """Return a measured device with the larger of each rate: another time, fewer neighbours."""
    rates = {kind: max(rate, other.rates[kind]) for kind, rate in one.rates.items()}
    bandwidth = max(one.bandwidth, other.bandwidth)
    return replace(one, rates=rates, bandwidth=bandwidth, host_bandwidth=bandwidth)


def forget_peak() -> int | None:
    """Let the peak of this process begin anew; return its memory now, None if that cannot be."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return resident_bytes()


def fastest(run: Callable[[], object], *, least: int = 1) -> float:
    """Seconds of the fastest of `least` runs and as many more as fit into a quarter of a second.

    The fastest, not the mean: others share the machine.
    """
    run()
    times: list[float] = []
    end = time.perf_counter() + _SECONDS
    while len(times) < least or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def _product(kind: str, threads: int) -> Callable[[], object]:
    """Return a product of two square matrices, as an engine's float or int8 layers have it."""
    tensor, helper = onnx().TensorProto, onnx().helper
    types = (
        (tensor.FLOAT, tensor.FLOAT, tensor.FLOAT)
        if kind == "fp32"
        else (tensor.UINT8, tensor.INT8, tensor.INT32)
    )
    random = np.random.default_rng(0)
    matrices = [random.integers(0, 100, (_SIZE, _SIZE)) for _ in range(2)]
    left, right = (
        matrix.astype(helper.tensor_dtype_to_np_dtype(elem))
        for matrix, elem in zip(matrices, types, strict=False)
    )
    shape = [_SIZE, _SIZE]
    weight = helper.make_tensor("b", types[1], shape, right.tobytes(), raw=True)
    node = helper.make_node("MatMul" if kind == "fp32" else "MatMulInteger", ["a", "b"], ["c"])
    a, c = (
        helper.make_tensor_value_info(name, elem, shape)
        for name, elem in (("a", types[0]), ("c", types[2]))
    )
    graph = helper.make_graph([node], "product", [a], [c], [weight])
    opsets = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR)
    options = onnxruntime().SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime().InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"a": left})


def _copy(threads: int) -> Callable[[], object]:
    source = np.ones(_COPIED, np.uint8)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))

    def run() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda pair: np.copyto(*pair), parts))

    return run
