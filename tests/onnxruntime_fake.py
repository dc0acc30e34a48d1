"""An onnxruntime that is made up: which providers it has, which work, and what it was asked."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

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
        self.__version__ = "1.32.0"
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


def installer(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return what puts a FakeRuntime in the place of onnxruntime."""

    def install(available: Sequence[str], working: Sequence[str] | None = None) -> FakeRuntime:
        fake = FakeRuntime(available, available if working is None else working)
        monkeypatch.setitem(sys.modules, "onnxruntime", fake)
        return fake

    return install
