"""Which provider runs, told by an onnxruntime that is made up here."""

import gc
import sys
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from murank import InputError, MachineError
from murank._cores import usable_cores
from murank.engine.session import Session, SessionSettings, load_session

CPU, CUDA, TENSORRT = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt"))
GRAPH = Path("engine/onnx/vision.onnx")


class FakeSession(SimpleNamespace):
    """What is loaded; can be seen to go."""


class FakeRuntime(ModuleType):
    """Has `available` providers in the library, of which `working` can be used here."""

    def __init__(self, available: Sequence[str], working: Sequence[str]) -> None:
        super().__init__("onnxruntime")
        self.available, self.working = available, working
        self.asked: list[list[Any]] = []
        self.options: list[Any] = []
        self.error: Exception | None = None
        self.failing = {CPU, CUDA, TENSORRT}
        self.on_cpu: list[str] | None = []  # operators; None: a version that does not tell
        self.preloaded = 0
        self.bound: list[tuple[Any, ...]] = []

    def get_available_providers(self) -> list[str]:
        return list(self.available)

    def preload_dlls(self) -> None:
        print("Failed to load libcublas.so.13")  # as the real one does
        self.preloaded += 1

    def SessionOptions(self) -> Any:
        entries: dict[str, str] = {}
        return SimpleNamespace(entries=entries, add_session_config_entry=entries.__setitem__)

    def InferenceSession(
        self, file: str, options: Any, *, providers: list[Any], enable_fallback: int
    ) -> Any:
        assert file == str(GRAPH)
        assert not enable_fallback  # it prints to stdout
        names = [name if isinstance(name, str) else name[0] for name in providers]
        if self.error is not None and set(names) & self.failing:
            raise self.error
        self.asked.append(providers)
        self.options.append(options)
        used = [name for name in names if name in self.working]
        used += [] if CPU in used else [CPU]  # as onnxruntime does by itself
        node = SimpleNamespace(name="images", shape=["batch", 3, 28, 28], type="tensor(uint8)")
        output = SimpleNamespace(name="tokens", shape=["batch", 50], type="tensor(float16)")
        telling = {} if self.on_cpu is None else {
            "get_provider_graph_assignment_info": lambda: self._assigned(options)
        }  # fmt: skip
        return FakeSession(
            **telling,
            get_providers=lambda: used,
            get_inputs=lambda: [node],
            get_outputs=lambda: [output],
            io_binding=self._binding,
            run_with_iobinding=lambda binding: self.bound.append(("run", binding)),
        )

    def _assigned(self, options: Any) -> list[Any]:
        assert options.entries["session.record_ep_graph_assignment_info"] == "1"
        assert self.on_cpu is not None
        return [
            SimpleNamespace(
                ep_name=provider,
                get_nodes=lambda types=types: [SimpleNamespace(op_type=name) for name in types],
            )
            for provider, types in ((CUDA, ["MatMul", "Softmax"]), (CPU, self.on_cpu))
        ]

    def _binding(self) -> Any:
        def note(kind: str) -> Callable[..., None]:
            return lambda *what: self.bound.append((kind, *what))

        return SimpleNamespace(
            bind_cpu_input=note("array"),
            bind_ortvalue_input=note("value"),
            bind_output=note("output"),
            synchronize_outputs=note("wait"),
            get_outputs=lambda: ["result"],
        )


Install = Callable[..., FakeRuntime]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    def _install(available: Sequence[str], working: Sequence[str] | None = None) -> FakeRuntime:
        fake = FakeRuntime(available, available if working is None else working)
        monkeypatch.setitem(sys.modules, "onnxruntime", fake)
        return fake

    return _install


@pytest.mark.parametrize(
    ("providers", "available", "asked", "device"),
    [
        ("auto", [CPU], [CPU], "cpu"),
        ("auto", [TENSORRT, CUDA, CPU], [CUDA, CPU], "cuda"),
        ("cpu", [TENSORRT, CUDA, CPU], [CPU], "cpu"),
        ("cuda", [CUDA, CPU], [CUDA, CPU], "cuda"),
        ("tensorrt", [TENSORRT, CUDA, CPU], [TENSORRT, CUDA, CPU], "cuda"),
        ("tensorrt", [TENSORRT, CPU], [TENSORRT, CPU], "cuda"),
        ([CUDA], [CUDA, CPU], [CUDA], "cuda"),
    ],
)
def test_what_is_asked_of_onnxruntime(
    install: Install, providers: Any, available: list[str], asked: list[str], device: str
) -> None:
    fake = install(available)
    session = Session(GRAPH, SessionSettings(providers))
    assert fake.asked == [asked]
    assert session.providers[: len(asked)] == asked
    assert session.device == device


def test_options_of_a_list_are_passed_through(install: Install) -> None:
    fake = install([CUDA, CPU])
    providers: list[Any] = [(CUDA, {"device_id": 1}), CPU]
    session = Session(GRAPH, SessionSettings(providers))
    assert fake.asked == [[(CUDA, {"device_id": 1}), CPU]]
    assert session.providers == [CUDA, CPU]


def test_auto_accepts_a_gpu_that_does_not_work(install: Install) -> None:
    install([CUDA, CPU], working=[CPU])
    session = Session(GRAPH, SessionSettings("auto"))
    assert (session.providers, session.device) == ([CPU], "cpu")


def test_auto_accepts_a_gpu_that_fails_to_start(install: Install) -> None:
    fake = install([CUDA, CPU])
    fake.error, fake.failing = RuntimeError("CUDA failure 35"), {CUDA}
    assert Session(GRAPH, SessionSettings("auto")).providers == [CPU]
    with pytest.raises(MachineError, match=r"could not be loaded with .*: CUDA failure 35"):
        Session(GRAPH, SessionSettings("cuda"))


@pytest.mark.parametrize("providers", ["cuda", "tensorrt", [CUDA], [(CUDA, {"device_id": 0}), CPU]])
def test_falling_back_unasked_is_an_error(install: Install, providers: Any) -> None:
    install([TENSORRT, CUDA, CPU], working=[CPU])
    with pytest.raises(MachineError, match=rf"was asked for.*fell back to {CPU}.*'auto'"):
        Session(GRAPH, SessionSettings(providers))


def test_tensorrt_that_falls_back_to_cuda_is_an_error_too(install: Install) -> None:
    install([TENSORRT, CUDA, CPU], working=[CUDA, CPU])
    with pytest.raises(MachineError, match=rf"{TENSORRT} was asked for.*{CUDA}, {CPU}"):
        Session(GRAPH, SessionSettings("tensorrt"))


@pytest.mark.parametrize(("name", "first"), [("cuda", CUDA), ("tensorrt", TENSORRT)])
def test_a_library_without_the_provider(install: Install, name: str, first: str) -> None:
    install([CPU])
    with pytest.raises(MachineError, match=rf"no {first}: .*with its extra 'gpu'"):
        Session(GRAPH, SessionSettings(name))


def test_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MachineError, match="with its extra 'cpu' or 'gpu'"):
        Session(GRAPH, SessionSettings())


@pytest.mark.parametrize(
    ("providers", "message"),
    [
        ("gpu", "one of auto, cpu, cuda, tensorrt, tensorrt-plans, or a list, got 'gpu'"),
        ("CUDAExecutionProvider", "or a list, got 'CUDAExecutionProvider'"),
        ([], "an empty list"),
        ((), "an empty list"),
    ],
)
def test_names_that_mean_nothing(install: Install, providers: Any, message: str) -> None:
    install([CPU])
    with pytest.raises(InputError, match=message):
        Session(GRAPH, SessionSettings(providers))


def test_a_graph_that_cannot_be_loaded(install: Install) -> None:
    """On the CPU the file is to blame, with anything else it may be the machine."""
    fake = install([CUDA, CPU])
    fake.error = RuntimeError("no\nsuch  kernel " + 400 * "x")
    with pytest.raises(InputError, match=r"onnx/vision\.onnx could not.*: no such kernel x") as cpu:
        Session(GRAPH, SessionSettings("cpu"))
    assert "\n" not in str(cpu.value)
    assert len(str(cpu.value)) < 400
    with pytest.raises(MachineError, match=rf"could not be loaded with {CPU}, {CUDA}: no such"):
        Session(GRAPH, SessionSettings("cuda"))


def test_threads_and_spinning(install: Install) -> None:
    fake = install([CPU])
    Session(GRAPH, SessionSettings(threads=3))
    Session(GRAPH, SessionSettings())
    limited, free = fake.options
    assert limited.intra_op_num_threads == 3
    assert free.intra_op_num_threads == usable_cores()
    assert limited.enable_mem_pattern is False
    assert limited.entries == {"session.intra_op.allow_spinning": "0"}


def test_values_of_the_device_are_not_copied(install: Install) -> None:
    fake = install([CUDA, CPU])
    session = Session(GRAPH, SessionSettings())
    array, on_device = np.zeros((4, 4))[:, ::2], object()
    assert session.run({"a": array, "b": on_device}, ["tokens"]) == ["result"]
    (_, name, bound), value, output, (ran, _), (waited,) = fake.bound
    assert (name, ran, waited) == ("a", "run", "wait")
    assert bound.flags.c_contiguous
    assert value == ("value", "b", on_device)
    assert output == ("output", "tokens", "cuda", 0)


def test_a_graph_that_does_not_fit_the_manifest(install: Install) -> None:
    install([CPU])
    session = Session(GRAPH, SessionSettings())
    session.expect({"images": (None, 3, 28, None)}, {"tokens": (None, 50)})
    for inputs, outputs, what in (
        ({"images": (None, 3, 56, 28)}, {}, "images is"),
        ({"images": (None, 3, 28)}, {}, "images is"),
        ({"crops": (None, 3, 28, 28)}, {}, "crops is missing"),
        ({}, {"features": (None, 4)}, "features is missing"),
    ):
        with pytest.raises(InputError, match=what):
            session.expect(inputs, outputs)


def failing(session: Session, error: Exception) -> None:
    def fail(*_: object) -> None:
        raise error

    session._session.run_with_iobinding = fail


@pytest.mark.parametrize(
    ("said", "kind", "remedy"),
    [
        ("BFCArena: Failed to allocate memory", MachineError, "out of memory; pass a smaller"),
        ("CUDA failure 2: out of memory ; GPU=0", MachineError, "out of memory; pass a smaller"),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED", MachineError, "out of memory"),
        ("Got invalid dimensions", InputError, "could not be run"),
    ],
)
def test_a_run_that_fails(install: Install, said: str, kind: type[Exception], remedy: str) -> None:
    install([CUDA, CPU])
    session = Session(GRAPH, SessionSettings())
    failing(session, RuntimeError(said))
    for _ in range(2):  # and may be tried again
        with pytest.raises(kind, match=rf"vision\.onnx.*{remedy}.*{said}"):
            session.run({}, [])


@pytest.mark.parametrize(
    "said",
    [
        "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=ward7 ; "
        "file=cuda_allocator.cc",
        "CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED ; GPU=0 ; hostname=ward7",
        "CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED",
        "CUDA error cudaErrorLaunchFailure:unspecified launch failure",
        "TensorRT EP execution context enqueue failed.",
    ],
)
def test_a_gpu_that_fails_gives_the_graph_up(install: Install, said: str) -> None:
    """The context is lost: what was loaded only keeps memory that a new process needs."""
    install([CUDA, CPU])
    session = Session(GRAPH, SessionSettings("cuda"))
    loaded = weakref.ref(session._session)
    failing(session, RuntimeError(said))
    on_device = SimpleNamespace(shape=lambda: [2, 7])
    with pytest.raises(
        MachineError, match=r"vision\.onnx: the GPU failed .* on a \[4, 3\], b \[2, 7\]"
    ) as found:
        session.run({"a": np.zeros((4, 3)), "b": on_device}, ["tokens"])
    assert "in a new process" in str(found.value)
    assert "ward7" not in str(found.value)
    gc.collect()
    assert loaded() is None  # though the exception is still here
    with pytest.raises(MachineError, match=r"vision\.onnx was given up when the GPU failed: load"):
        session.run({}, ["tokens"])


def test_what_the_cpu_got_unasked(install: Install) -> None:
    fake = install([TENSORRT, CUDA, CPU])
    fake.on_cpu = ["Shape", "Gather", "Shape"]
    session = Session(GRAPH, SessionSettings("cuda"))
    assert session.on_cpu == {"Shape": 2, "Gather": 1}
    fake.on_cpu = ["Shape", "MatMul", "Softmax", "MatMul"]
    for providers in ("cuda", "tensorrt", [CUDA], [(CUDA, {"device_id": 1}), CPU]):
        with pytest.raises(MachineError, match=r"left 2 MatMul, 1 Softmax to the CPU.*'auto'"):
            Session(GRAPH, SessionSettings(providers))  # type: ignore[arg-type]
    assert Session(GRAPH, SessionSettings("auto")).on_cpu == {"Shape": 1, "MatMul": 2, "Softmax": 1}
    assert Session(GRAPH, SessionSettings([CPU, CUDA])).on_cpu is None


def test_a_version_that_does_not_tell(install: Install) -> None:
    fake = install([CUDA, CPU])
    fake.on_cpu = None
    assert Session(GRAPH, SessionSettings("cuda")).on_cpu is None


def test_libraries_from_pip_are_looked_for_where_a_gpu_is_asked_for(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = install([CUDA, CPU])
    Session(GRAPH, SessionSettings("cpu"))
    assert fake.preloaded == 0
    Session(GRAPH, SessionSettings("cuda"))
    assert fake.preloaded == 1
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("value", ["1", 1, True, "True"])
def test_captured_graphs_are_refused(install: Install, value: object) -> None:
    install([CUDA, CPU])
    providers: list[Any] = [(CUDA, {"enable_cuda_graph": value}), CPU]
    with pytest.raises(InputError, match="enable_cuda_graph replays one shape at fixed addresses"):
        Session(GRAPH, SessionSettings(providers))
    Session(GRAPH, SessionSettings([(CUDA, {"enable_cuda_graph": "0"}), CPU]))


def test_a_node_compiled_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    node = helper.make_node(
        "EPContext", [], ["y"], domain="com.microsoft", ep_cache_context=b"code"
    )
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    file = tmp_path / "compiled.onnx"
    file.write_bytes(
        helper.make_model(helper.make_graph([node], "g", [], [value])).SerializeToString()
    )
    with pytest.raises(InputError, match=r"compiled\.onnx holds a node compiled for one device"):
        Session(file, SessionSettings("cpu"))


def test_plans_are_loaded_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr("murank.trt.PlanSession", lambda file: ("plan", file))
    found: object = load_session(GRAPH, SessionSettings("tensorrt-plans"))
    assert found == ("plan", GRAPH)


def test_no_memory_for_a_block(install: Install) -> None:
    fake = install([CUDA, CPU])

    def none_left(*_: object) -> None:
        raise RuntimeError("CUDA failure 2: out of memory")

    fake.OrtValue = SimpleNamespace(  # type: ignore[attr-defined]
        ortvalue_from_shape_and_type=none_left, ortvalue_from_numpy=none_left
    )
    session = Session(GRAPH, SessionSettings("cuda"))
    with pytest.raises(MachineError, match=r"6 MiB more are wanted on the device .*failure 2"):
        session.allocate((3, 1 << 20), np.dtype(np.float16))
    with pytest.raises(MachineError, match=r"4 MiB more are wanted on the device .*failure 2"):
        session.to_device(np.zeros(1 << 20, np.float32))


def test_the_real_one_names_the_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    for name, content in (("empty", b""), ("garbage", b"no graph")):
        (tmp_path / f"{name}.onnx").write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}\.onnx could not be loaded by onnxruntime"):
            Session(tmp_path / f"{name}.onnx", SessionSettings("cpu"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
@pytest.mark.parametrize(
    ("providers", "error"),
    [([CPU, "NoSuchProvider"], MachineError), ([(CPU, "no options")], InputError)],
)
def test_the_real_one_keeps_its_complaints_off_stdout(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], providers: Any, error: type[Exception]
) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "any.onnx").write_bytes(b"")
    with pytest.raises(error, match=r"any\.onnx could not be loaded"):
        Session(tmp_path / "any.onnx", SessionSettings(providers))
    assert capfd.readouterr().out == ""


def test_the_gpu_that_was_named(install: Install) -> None:
    fake = install([CUDA, CPU])
    session = Session(GRAPH, SessionSettings([(CUDA, {"device_id": 1}), CPU]))
    session.run({}, ["tokens"])
    assert ("output", "tokens", "cuda", 1) in fake.bound
