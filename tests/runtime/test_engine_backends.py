"""Which backend runs an engine, and that all of its graphs run on one."""

import gc
import sys
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import numpy as np
import pytest
from engine_folder import edit_manifest, make_engine
from logged import logged
from onnxruntime_fake import CPU, CUDA, GRAPH, TENSORRT, installer
from wide_engine import ENGINE as MINIATURE

from murank import Engine, InputError, MachineError
from murank.backends import choose as backends
from murank.backends.choose import backend_of, refusal
from murank.backends.onnx.session import Session, SessionSettings
from murank.engine.golden import TOLERANCE, replay
from murank.folder.manifest import read_manifest
from murank.folder.precision import Precision

PLANS = "tensorrt-plans"
PRECISIONS = get_args(Precision)


@pytest.mark.parametrize(
    ("providers", "backend"),
    [
        ("cpu", "cpu"),
        ("cuda", "cuda"),
        ("tensorrt", "plans"),
        (PLANS, "plans"),
        ([CPU], "cpu"),
        ([CUDA, CPU], "cuda"),
        ([(CUDA, {"device_id": 1})], "cuda"),
        ([TENSORRT, CUDA, CPU], "plans"),
        (["OpenVINOExecutionProvider"], None),
        ("openvino", "openvino"),
        ("openvino:GPU.1", "openvino"),
        ("auto", None),
        ([], None),
    ],
)
def test_what_runs_the_products(providers: Any, backend: str | None) -> None:
    assert backend_of(providers) == backend


# By precision, in the order of its definition: cpu, cuda, TensorRT, OpenVINO, unknown.
RUNS = {
    "fp32": "yyyyy", "fp16": "yyyyy", "bf16": "-yy-y", "w8": "yy-yy", "int8": "y----",
    "w8a16": "y----", "int8-qdq": "y-y-y", "fp8": "y-y-y", "int4": "y-y-y",
}  # fmt: skip


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_each_precision_runs_on(precision: Precision) -> None:
    found = [refusal(precision, backend) for backend in ("cpu", "cuda", "plans", "openvino", None)]
    assert "".join("y" if why is None else "-" for why in found) == RUNS[precision]


def test_each_precision_has_a_tolerance() -> None:
    assert set(TOLERANCE) == set(PRECISIONS) == set(RUNS)


@pytest.mark.parametrize(
    ("precision", "providers", "message"),
    [
        ("bf16", "cpu", r"bf16 does not run on CPUs; pass providers='cuda' or"),
        ("bf16", [CPU], r"bf16 does not run on CPUs.*--dtype fp32 or int8"),
        ("int8", "cuda", "int8 runs on CPUs only; run murank export with --dtype fp16"),
        ("w8a16", PLANS, "w8a16 runs on CPUs only"),
        ("int8", ["OpenVINOExecutionProvider"], "int8 runs on CPUs only"),
        ("int8-qdq", "cuda", "products of int8-qdq are TensorRT's; run murank build"),
        ("fp8", [(CUDA, {}), CPU], "products of fp8 are TensorRT's"),
        ("int4", [CUDA], "products of int4 are TensorRT's.*or run murank export with --dtype fp16"),
    ],
)
def test_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, providers: Any, message: str
) -> None:
    make_engine(tmp_path / "engine")
    edit_manifest(tmp_path / "engine", lambda data: data.update(precision=precision))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=message) as found:
        Engine.from_pretrained(tmp_path / "engine", providers=providers)
    assert "\n" not in str(found.value)
    with pytest.raises(MachineError, match="onnxruntime is not installed"):  # as fp32
        Engine.from_pretrained(tmp_path / "engine", providers="cpu", parts=["encoder"])
    assert not Engine.from_pretrained(tmp_path / "engine", providers=providers, parts=[]).providers


class Attempts:
    """Notes what is tried; from a given one on, loading works."""

    def __init__(self, works: Sequence[str] = ()) -> None:
        self.works, self.asked = works, list[Any]()

    def __call__(self, providers: Any) -> str:
        self.asked.append(providers)
        if providers not in self.works:
            raise MachineError(f"no {providers} here")
        return f"loaded with {providers}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "engine"


def load_on_one(providers: Any, precision: Precision, folder: Path, load: Any) -> Any:
    """Where `machine` says that plans were built."""
    has_plans = (folder / "plans").is_dir()
    return backends.load_on_one(providers, precision, folder, load, has_plans=has_plans)


def machine(monkeypatch: pytest.MonkeyPatch, folder: Path, has: str) -> None:
    """Let a machine have cuda, plans and a driver for them, plans alone, or none of these."""
    monkeypatch.setattr(backends, "has_driver", lambda: "copied" not in has)
    installer(monkeypatch)([CUDA, CPU] if "cuda" in has else [CPU])
    monkeypatch.setattr(backends, "multiplies_exactly", lambda: True)
    folder.mkdir()
    if "plans" in has:
        (folder / "plans").mkdir()


@pytest.mark.parametrize(
    ("precision", "has", "asked"),
    [
        ("fp32", "nothing", ["cpu"]),
        ("fp32", "copied plans", ["cpu"]),
        ("fp8", "copied plans", ["cpu"]),
        ("fp32", "cuda plans", ["auto", PLANS, "cpu"]),
        ("fp16", "cuda", ["auto", "cpu"]),
        ("fp16", "plans", [PLANS, "cpu"]),
        ("bf16", "cuda", ["auto"]),
        ("bf16", "plans", [PLANS]),
        ("bf16", "cuda plans", ["auto", PLANS]),
        ("int8", "cuda plans", ["cpu"]),
        ("w8a16", "nothing", ["cpu"]),
        ("int8-qdq", "nothing", ["cpu"]),
        ("int8-qdq", "plans", [PLANS, "cpu"]),
        ("fp8", "cuda plans", [PLANS, "cpu"]),
        ("int4", "cuda", ["cpu"]),
    ],
)
def test_what_auto_tries_in_turn(
    monkeypatch: pytest.MonkeyPatch, folder: Path, precision: Precision, has: str, asked: Any
) -> None:
    machine(monkeypatch, folder, has)
    attempts = Attempts()
    with pytest.raises(MachineError, match=f"^no {asked[-1]} here$"):
        load_on_one("auto", precision, folder, attempts)
    assert attempts.asked == asked


def test_auto_goes_on_where_plans_are_of_another_engine(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    machine(monkeypatch, folder, "plans")

    def load(providers: Any) -> str:
        if providers == PLANS:
            raise InputError("the plan of the vision is of another engine")
        return f"loaded with {providers}"

    with logged("'cpu': the plan of the vision is of another engine"):
        found = load_on_one("auto", "int8-qdq", folder, load)
    assert found == ("loaded with cpu", "the plan of the vision is of another engine")
    with pytest.raises(InputError, match="is of another engine"):
        load_on_one(PLANS, "int8-qdq", folder, load)


@pytest.mark.parametrize("providers", [None, 5, [], [None], [(CPU, {}), ()]])
def test_what_are_no_providers(folder: Path, providers: Any) -> None:
    with pytest.raises(InputError, match="providers"):
        load_on_one(providers, "fp32", folder, Attempts([]))


@pytest.mark.parametrize("name", ["cuda", PLANS, "auto"])
def test_a_name_of_ours_in_a_list(folder: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"pass providers='{name}' by itself"):
        load_on_one([name, CPU], "fp32", folder, Attempts([]))


def test_auto_where_nothing_can(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    machine(monkeypatch, folder, "nothing")
    with pytest.raises(
        MachineError, match="engine: bf16 does not run on CPUs; pass providers='cuda'"
    ):
        load_on_one("auto", "bf16", folder, Attempts(["cpu"]))


def test_plans_are_no_sign_of_a_gpu(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """A copied folder brings them along: nothing is tried, nothing is said."""
    machine(monkeypatch, folder, "copied plans")
    assert load_on_one("auto", "fp16", folder, Attempts(["cpu"])) == ("loaded with cpu", None)
    with pytest.raises(MachineError, match=f"^no {PLANS} here$"):
        load_on_one(PLANS, "fp16", folder, Attempts(["cpu"]))
    with pytest.raises(MachineError, match="bf16 does not run on CPUs"):
        load_on_one("auto", "bf16", folder, Attempts(["cpu"]))


def test_plans_that_cannot_be_used_beside_a_driver(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    machine(monkeypatch, folder, "plans")
    with logged(f"with 'cpu': no {PLANS} here"):
        load_on_one("auto", "fp16", folder, Attempts(["cpu"]))


def test_auto_without_onnxruntime(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """An appliance with plans needs none."""
    machine(monkeypatch, folder, "plans")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = load_on_one("auto", "int8-qdq", folder, Attempts([PLANS]))
    assert found == ("loaded with tensorrt-plans", None)


def test_products_that_a_cpu_lacks(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    machine(monkeypatch, folder, "nothing")
    monkeypatch.setattr(backends, "multiplies_exactly", lambda: False)
    monkeypatch.setattr(backends, "products_are_exact", lambda: False)
    for providers in ("auto", "cpu", [CPU]):
        with pytest.raises(MachineError, match=r"int8 weights.*VNNI.*--dtype fp32"):
            load_on_one(providers, "w8a16", folder, Attempts(["cpu"]))
    assert load_on_one("auto", "fp32", folder, Attempts(["cpu"])) == ("loaded with cpu", None)
    monkeypatch.setattr(backends, "products_are_exact", lambda: True)
    with logged("engine is w8a16 and this CPU lacks VNNI"):
        load_on_one("cpu", "w8a16", folder, Attempts(["cpu"]))


def test_what_is_asked_for_by_name_is_all_that_is_tried(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    machine(monkeypatch, folder, "cuda plans")
    attempts = Attempts(["cpu"])
    with pytest.raises(MachineError, match="no cuda here"):
        load_on_one("cuda", "fp16", folder, attempts)
    with pytest.raises(MachineError, match="no tensorrt here"):
        load_on_one("tensorrt", "int8-qdq", folder, attempts)
    assert attempts.asked == ["cuda", "tensorrt"]


def test_a_fallback_is_told(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    machine(monkeypatch, folder, "cuda")
    text = r"^'auto' runs all graphs of .*engine with 'cpu': no auto here$"
    with logged(text):
        found = load_on_one("auto", "fp16", folder, Attempts(["cpu"]))
    assert found == ("loaded with cpu", "no auto here")
    assert load_on_one("auto", "fp16", folder, Attempts(["auto"])) == ("loaded with auto", None)
    with logged("with 'cpu': the products of int4 are TensorRT's"):
        _, why = load_on_one("auto", "int4", folder, Attempts(["cpu"]))
    assert why is not None
    assert "run murank build" in why


def test_a_graph_that_does_not_fit_is_no_reason(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    machine(monkeypatch, folder, "cuda")

    def load(providers: Any) -> None:
        raise InputError(f"with {providers}: tokens is missing")

    with pytest.raises(InputError, match="with auto: tokens is missing"):
        load_on_one("auto", "fp16", folder, load)


def test_what_was_loaded_goes_first(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """The third graph finds no memory: the GPU's is given back before the CPU loads anything."""
    machine(monkeypatch, folder, "cuda")
    fake = installer(monkeypatch)([CUDA, CPU])
    fake.failing = {CUDA}
    gone: list[Any] = []

    def load(providers: Any) -> list[Session]:
        fake.error, loaded = None, []  # it would keep its traceback
        gc.collect()
        assert all(one() is None for one in gone)
        for number in range(3):
            if number == 2:
                fake.error = RuntimeError("CUDA failure 2: out of memory")
            loaded.append(Session(GRAPH, SessionSettings(providers)))
            gone.append(weakref.ref(loaded[-1]))
        return loaded

    with logged("with 'cpu': .*CUDA failure 2: out of memory"):
        found, _ = load_on_one("auto", "fp16", folder, load)
    assert [one.memory for one in found] == [("onnxruntime", "cpu", 0)] * 3
    assert len(gone) == 2 + 3


class HalfGpu(ModuleType):
    """The real onnxruntime, which says that it has a GPU; what is not a decoder loads there."""

    def __init__(self, real: Any) -> None:
        super().__init__("onnxruntime")
        self._real, self.asked = real, list[tuple[str, str]]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def get_available_providers(self) -> list[str]:
        return [CUDA, CPU]

    def InferenceSession(self, file: str, options: Any, *, providers: Any, **more: Any) -> Any:
        name = Path(file).stem
        first = providers[0] if isinstance(providers[0], str) else providers[0][0]
        self.asked.append((name, first))
        if first == CPU:
            return self._real.InferenceSession(file, options, providers=providers, **more)
        if name == "decoder":
            raise RuntimeError("CUDA failure 2: out of memory")
        session = self._real.InferenceSession(file, options, providers=[CPU], **more)
        session.get_providers = lambda: [CUDA, CPU]
        session.get_provider_graph_assignment_info = list
        return session


@pytest.fixture
def half_gpu(monkeypatch: pytest.MonkeyPatch) -> HalfGpu:
    fake = HalfGpu(pytest.importorskip("onnxruntime"))
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    return fake


def test_no_engine_is_on_two_devices(half_gpu: HalfGpu) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 32, 3), np.uint8)
    with logged(r"engine with 'cpu': .*decoder.onnx could not be loa"):
        engine = Engine.from_pretrained(MINIATURE, threads=1)
    cpu = [(name, CPU) for name in ("encoder", "decoder", "vision")]
    assert half_gpu.asked == [("encoder", CUDA), ("decoder", CUDA), *cpu]
    assert set(map(tuple, engine.providers.values())) == {(CPU,)}
    assert engine.fallback is not None
    assert "CUDA failure 2: out of memory" in engine.fallback
    plain = Engine.from_pretrained(MINIATURE, providers="cpu", threads=1)
    assert plain.fallback is None
    mu = plain.mu(images[0], list(images[1:]))
    np.testing.assert_array_equal(engine.mu(images[0], list(images[1:])), mu)
    encoder = Engine.from_pretrained(MINIATURE, threads=1, parts=["encoder"])
    assert (encoder.providers["encoder"][0], encoder.fallback) == (CUDA, None)


def test_golden_answers_are_of_one_device_too(half_gpu: HalfGpu) -> None:
    manifest = read_manifest(MINIATURE)
    with logged(r"engine with 'cpu': .*decoder.onnx"):
        found = replay(MINIATURE, manifest, SessionSettings("auto", 1))
    assert [(one.name, one.passed, one.providers) for one in found] == [
        ("encoder", True, [CPU]), ("scorer", True, [CPU]),
    ]  # fmt: skip
    assert ("vision", CUDA) not in half_gpu.asked


def test_golden_answers_of_a_precision_that_cannot() -> None:
    other = replace(read_manifest(MINIATURE), precision="bf16")
    with pytest.raises(InputError, match="bf16 does not run on CPUs"):
        replay(MINIATURE, other, SessionSettings("cpu", 1))
