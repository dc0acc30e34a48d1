"""Real computations with checked answers, and processes that end badly."""

import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from murank import Engine, MachineError
from murank.doctor import child as _child
from murank.doctor import pace as _pace
from murank.doctor import probes as _probes
from murank.doctor.child import ask

ENGINE = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine"


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let a script stand for the interpreter."""

    def _python(script: str) -> None:
        file = tmp_path / "python"
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(file))

    return _python


def test_what_needs_no_gpu_works() -> None:
    found = ask("onnxruntime-cpu")
    assert found.works, found.said
    assert found.said.endswith("multiplied matrices, the product is right")


def test_without_a_gpu() -> None:
    found = ask("onnxruntime-cuda")
    assert not found.works
    assert "CUDAExecutionProvider was asked for" in found.said


def test_openvino_works() -> None:
    pytest.importorskip("openvino")
    found = told("openvino")
    assert found["works"], found["said"]
    assert found["said"].endswith("multiplied matrices, the product is right")


class Clock:
    """Time that passes only while a query is asked."""

    def __init__(self, *spent: float) -> None:
        self.now, self.spent = 0.0, list(spent)

    def __call__(self) -> float:
        return self.now

    def ask(self) -> None:
        self.now += self.spent.pop(0)


@pytest.mark.parametrize(
    ("spent", "left", "median"),
    [
        ([9.0, 1.0], [1.0], 9000.0),  # the first one took all the time there is
        ([2.0, 1.0, 1.5, 0.5], [0.5], 1250.0),  # the next would end too late
        ([0.5, 2.0, 2.0, 2.0], [2.0], 2000.0),
    ],
)
def test_the_pace_of_a_query(
    monkeypatch: pytest.MonkeyPatch, spent: list[float], left: list[float], median: float
) -> None:
    clock, engine = Clock(*spent), cast("Engine", None)
    monkeypatch.setattr(_pace, "_query", lambda _: clock.ask)
    assert _pace.query_ms(engine, seconds=5.0, clock=clock) == median
    assert clock.spent == left


def test_what_is_timed() -> None:
    with Engine.from_pretrained(ENGINE, providers="cpu", threads=1, check="sizes") as engine:
        assert _pace.query_ms(engine, seconds=0.0) > 0
        assert _pace.what_is_timed(engine.manifest).startswith("a query of 20 candidates")
    only = Engine.from_pretrained(ENGINE, providers="cpu", threads=1, parts=["encoder"])
    assert _pace.query_ms(only, seconds=0.0) > 0


def test_an_engine_replayed() -> None:
    found = ask("golden", str(ENGINE), "cpu")
    assert found.works, found.said
    assert "encoder differs by" in found.said
    assert "scorer differs by" in found.said


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("kill -SEGV $$", "its process was ended by SIGSEGV"),
        ("kill -KILL $$", "its process was ended by SIGKILL: out of memory?"),
        ("echo /opt/lib/libx.so is missing >&2; exit 7", "code 7: libx.so is missing"),
        ("exit 7", "code 7: it said nothing"),
        ("exit 0", "ended without an answer"),
        ("echo '[1]'", "ended without an answer"),
    ],
)
def test_processes_that_end_badly(python: Any, script: str, said: str) -> None:
    python(script)
    found = ask("driver")
    assert not found.works
    assert said in found.said


def test_a_library_that_prints_before_the_answer(python: Any) -> None:
    told = json.dumps({"works": True, "said": "a /usr/lib/b.so", "found": [1]})
    called = '"$PYTHONSAFEPATH $1 $2 $3 $4" = "1 -m murank.doctor golden E"'
    python(f"echo hello; echo '{told}'; [ {called} ] || exit 9")
    found = ask("golden", "E")
    assert (found.works, found.said, found.more) == (True, "a b.so", [1])


def test_one_that_hangs(python: Any) -> None:
    python("exec sleep 60")
    assert "no answer within 1 seconds" in ask("driver", seconds=1.0).said


def test_no_process_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    assert "no process could be started: No such file" in ask("driver").said


def told(probe: str, *arguments: str) -> Any:
    return json.loads(_probes.answer(probe, *arguments))


def test_answers_that_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def reversed_order(features: Any, num_query: int, **options: Any) -> Any:
        del features, options
        return None, np.arange(num_query)[::-1, None]

    monkeypatch.setattr("murank_kernels.k_reciprocal", reversed_order)
    found = told("kernels-cpu")
    assert (found["works"], "wrong order" in found["said"]) == (False, True)
    right = np.matmul(*_probes._matrices().astype(np.float64)).astype(np.float32)
    _probes._check(right + 0.001)
    for wrong in (right + 0.1, np.full_like(right, np.nan), right.T):
        with pytest.raises(MachineError, match="product of matrices is wrong by"):
            _probes._check(wrong)


def test_errors_of_any_kind_are_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert told("no-such-probe")["said"] == "KeyError: 'no-such-probe'"
    found = told("golden", str(tmp_path), "cpu")
    assert not found["works"]
    assert found["said"].startswith("InputError: ")

    def broken(*_: object, **__: object) -> Any:
        raise MachineError("no device")

    monkeypatch.setattr("murank.backends.onnx.session.Session", broken)
    assert told("onnxruntime-cpu") == {"works": False, "said": "no device", "found": None}


def test_kernels_that_refuse_the_device() -> None:
    found = told("kernels-cuda")
    if not found["works"]:  # on a machine with a GPU they may well work
        assert not found["said"].startswith("DeviceUnavailableError")


class FakeGpu:
    """Memory is NumPy's; an address is where an array is kept."""

    stream = 77

    def __init__(self) -> None:
        self.arrays: dict[int, Any] = {}

    def active(self) -> Any:
        return nullcontext()

    def allocate(self, count: int) -> int:
        assert count == 64 * 64 * 4
        self.arrays[len(self.arrays) + 1] = None
        return len(self.arrays)

    def upload(self, address: int, array: Any) -> None:
        self.arrays[address] = array

    def download(self, array: Any, address: int) -> None:
        array[:] = self.arrays[address]


class FakeTensorRT(ModuleType):
    """Runs the product on a FakeGpu."""

    def __init__(self, gpu: FakeGpu, *, loads: bool = True, runs: bool = True) -> None:
        super().__init__("tensorrt")
        self._gpu, self._loads, self._runs = gpu, loads, runs
        self.ILogger = object
        self._places: dict[str, int] = {}

    def Runtime(self, logger: Any) -> Any:
        del logger
        context = SimpleNamespace(
            set_tensor_address=self._places.__setitem__, execute_async_v3=self._run
        )
        engine = SimpleNamespace(create_execution_context=lambda: context)
        return SimpleNamespace(deserialize_cuda_engine=lambda _: engine if self._loads else None)

    def _run(self, stream: int) -> bool:
        assert stream == 77
        a, b = (self._gpu.arrays[self._places[name]] for name in "ab")
        self._gpu.arrays[self._places["c"]] = a @ b
        return self._runs


def fake_machine(**how: bool) -> Any:
    gpu = FakeGpu()
    api = SimpleNamespace(module=FakeTensorRT(gpu, **how), title="TensorRT 10.3")
    return SimpleNamespace(api=api, gpu=gpu)


def test_a_plan_is_built_and_run(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = fake_machine()
    built: list[bytes] = []

    def make_plan(given: Any, file: Path, profiles: Any, *_: Any, **__: Any) -> Any:
        assert (given, profiles) == (machine, ())
        built.append(file.read_bytes())
        return SimpleNamespace(content=b"plan")

    monkeypatch.setattr("murank.backends.trt.this_machine", lambda: machine)
    monkeypatch.setattr("murank.backends.trt.builder.make_plan", make_plan)
    found = told("tensorrt")
    assert found["said"] == "TensorRT 10.3 built a plan and ran it, the product is right"
    assert b"MatMul" in built[0]


@pytest.mark.parametrize(
    ("how", "said"),
    [({"loads": False}, "could not load the plan"), ({"runs": False}, "could not run the plan")],
)
def test_plans_that_cannot(how: dict[str, bool], said: str) -> None:
    with pytest.raises(MachineError, match=said):
        _probes._run_plan(fake_machine(**how), b"plan")


def test_the_environment_goes_along(python: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SETTING", "kept")
    python('[ "$SOME_SETTING" = kept ] && exit 3')
    assert "code 3" in ask("driver").said
    assert os.environ.get("PYTHONSAFEPATH") is None
    assert _child._SECONDS >= 60  # a first run compiles
