"""A GPU that fails under plans: who was at work, what is given up, and what goes on."""

import gc
import shutil
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from trt_fakes import FakeGpu, FakeTensorRT, plan_session
from wide_engine import ENGINE

from murank import Engine, MachineError
from murank.backends.trt import BuildSettings, PlanSession, build_plans, this_machine
from murank.backends.trt.faults import GpuError

GIVEN_UP = "was given up when the GPU failed: load the engine again, in a new process"


@pytest.fixture
def engine(tmp_path: Path, gpu: FakeGpu, trt: FakeTensorRT) -> Path:
    del gpu, trt
    folder = Path(shutil.copytree(ENGINE, tmp_path / "engine"))
    build_plans(folder, BuildSettings(), this_machine())
    return folder


@pytest.fixture
def session(engine: Path) -> PlanSession:
    return plan_session(engine, "onnx/vision.onnx")


@pytest.fixture
def images(session: PlanSession) -> NDArray[np.uint8]:
    assert session._loaded is not None
    shape = session._loaded.tensors["images"].shape
    return np.zeros((3, *shape[1:]), np.uint8)


def test_in_a_run(
    session: PlanSession, images: NDArray[np.uint8], gpu: FakeGpu, trt: FakeTensorRT
) -> None:
    """TensorRT says no, and the driver why: memory is let go, the cause is told, once."""
    assert session._loaded is not None
    engine = weakref.ref(session._loaded._engine)
    trt.refuse_run, gpu.broken = True, "an illegal memory access was encountered"
    with pytest.raises(MachineError) as caught:
        session.run({"images": images}, ["tokens"])
    told = str(caught.value)
    for part in (
        "vision.onnx: the GPU failed while it ran this graph on images [3, 3, ",
        "; start again in a new process, and if it fails again see `murank doctor`: ",
    ):
        assert part in told
    gc.collect()
    assert engine() is None  # though the exception is still here
    for call in (
        lambda: session.run({"images": images}, ["tokens"]),
        lambda: session.to_device(images),
        lambda: session.expect({}, {}),
        lambda: session.row_block("tokens", 1, (1,), np.dtype(np.float32)),
    ):
        with pytest.raises(MachineError, match=rf"vision\.onnx {GIVEN_UP}"):
            call()


def test_when_an_input_is_uploaded(
    session: PlanSession, images: NDArray[np.uint8], gpu: FakeGpu
) -> None:
    gpu.broken = "unspecified launch failure"
    with pytest.raises(MachineError, match=r"ran this graph on images .*: unspecified launch fail"):
        session.run({"images": images}, ["tokens"])
    assert session._loaded is None


def test_when_the_answer_is_read(
    session: PlanSession, images: NDArray[np.uint8], gpu: FakeGpu
) -> None:
    """Work is queued: most faults show here."""
    (tokens,) = session.run({"images": images}, ["tokens"])
    gpu.broken = "unspecified launch failure"
    with pytest.raises(
        GpuError, match=r"vision\.onnx: the GPU failed while .* on images \[3, 3, .* queued before"
    ):
        tokens.numpy()
    with pytest.raises(MachineError, match=GIVEN_UP):
        session.run({"images": images}, ["tokens"])
    assert session._loaded is None


def test_all_plans_of_the_process_are_lost(engine: Path, gpu: FakeGpu) -> None:
    loaded = Engine.from_pretrained(engine, providers="tensorrt-plans")
    crop = np.zeros((64, 32, 3), np.uint8)
    gpu.broken = "uncorrectable ECC error"
    with pytest.raises(MachineError, match=r"encoder\.onnx"):
        loaded.embed([crop])
    with pytest.raises(MachineError, match=rf"vision\.onnx {GIVEN_UP}"):
        loaded.mu(crop, [crop])
    with pytest.raises(MachineError, match="lost it"):
        Engine.from_pretrained(engine, providers="tensorrt-plans")


def test_a_run_that_did_not_break_the_gpu_can_be_repeated(
    session: PlanSession, images: NDArray[np.uint8], gpu: FakeGpu, trt: FakeTensorRT
) -> None:
    free = gpu.free
    gpu.free = 10
    with pytest.raises(MachineError, match="out of memory") as caught:
        session.run({"images": images}, ["tokens"])
    assert not isinstance(caught.value, GpuError)
    gpu.free = free
    trt.refuse_run = True
    with pytest.raises(MachineError, match="the plan did not run"):
        session.run({"images": images}, ["tokens"])
    trt.refuse_run = False
    (tokens,) = session.run({"images": images}, ["tokens"])
    assert np.isfinite(tokens.numpy()).all()


def test_memory_of_arrays_is_given_back_before_a_plan_is_loaded(engine: Path, gpu: FakeGpu) -> None:
    """TensorRT takes its memory past the pool that arrays come from."""
    before = gpu.released
    plan_session(engine, "onnx/vision.onnx")
    assert gpu.released == before + 1


def shapes(count: int) -> dict[str, Any]:
    return {f"past_key_{i}": (1, 2, 3) for i in range(count)}


def test_long_lists_of_inputs_are_cut(tmp_path: Path) -> None:
    from murank.backends.trt.faults import Run

    told = str(Run(tmp_path / "decoder.onnx", shapes(60)).fault("why"))
    assert told.endswith("`murank doctor`: why")
    assert len(told) < 600 + len(str(tmp_path))
