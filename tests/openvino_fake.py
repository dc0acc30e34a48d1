"""An OpenVINO that is made up: which devices it has, what they can, and what they really do."""

import sys
from io import BytesIO
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

FLOATS = ("FP32", "INT8", "EXPORT_IMPORT")


class FakeOpenVino(ModuleType):
    """Has `devices` with capabilities; `does` is what products really run in, None: as asked."""

    def __init__(self) -> None:
        super().__init__("openvino")
        self.__dict__["__version__"] = "2026.4.1-22982-releases"
        self.devices: dict[str, tuple[str, ...]] = {"CPU": FLOATS}
        self.promises: str | None = None
        self.does: str | None = None
        self.group = 0  # of activations that are rounded to eight bits
        self.tells = True  # of its layers
        self.error: RuntimeError | None = None  # of compiling
        self.run_error: Exception | None = None
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.imported: list[bytes] = []

    def Core(self) -> Any:
        return SimpleNamespace(
            available_devices=list(self.devices),
            get_property=lambda device, _name: self.devices[device],
            read_model=lambda _file: SimpleNamespace(outputs=[]),
            compile_model=self._compile,
            import_model=self._import,
        )

    def Tensor(self, *_: Any, **__: Any) -> Any:
        return SimpleNamespace()

    def _infer(self) -> None:
        if self.run_error is not None:
            raise self.run_error

    def _compile(self, _model: Any, device: str, config: dict[str, Any]) -> Any:
        if self.error is not None:
            raise self.error
        self.asked.append((device, config))
        return self._compiled(device, config["INFERENCE_PRECISION_HINT"])

    def _import(self, stream: BytesIO, device: str, config: dict[str, Any]) -> Any:
        self.imported.append(stream.getvalue())
        return self._compiled(device, config["INFERENCE_PRECISION_HINT"])

    def _compiled(self, device: str, hint: str) -> Any:
        told: dict[str, Any] = {
            "EXECUTION_DEVICES": [device],
            "INFERENCE_PRECISION_HINT": _type(self.promises or hint),
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": self.group,
        }
        nodes = [_node("FullyConnected", self.does or hint), _node("Reshape", "i32")]

        def layers() -> Any:
            if not self.tells:
                raise RuntimeError("not implemented")
            return SimpleNamespace(get_ops=lambda: nodes)

        return SimpleNamespace(
            inputs=[], outputs=[], get_property=told.__getitem__, get_runtime_model=layers,
            create_infer_request=lambda: SimpleNamespace(infer=self._infer),
            export_model=lambda: BytesIO(b"compiled"),
        )  # fmt: skip


def _type(name: str) -> Any:
    return SimpleNamespace(get_type_name=lambda: name)


def _node(layer: str, values: str) -> Any:
    kind = SimpleNamespace(astype=lambda _: layer)
    port = SimpleNamespace(get_element_type=lambda: _type(values))
    return SimpleNamespace(get_rt_info=lambda: {"layerType": kind}, input=lambda _: port)


def installed(monkeypatch: pytest.MonkeyPatch) -> FakeOpenVino:
    """Put a FakeOpenVino in the place of OpenVINO."""
    fake = FakeOpenVino()
    monkeypatch.setitem(sys.modules, "openvino", fake)
    return fake
