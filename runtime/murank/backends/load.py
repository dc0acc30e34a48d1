"""A graph of an engine, loaded by the backend that was asked for."""

from murank.backends.onnx.session import Session
from murank.backends.protocol import GraphSession, SessionSettings
from murank.backends.providers import PLANS, openvino_device
from murank.folder.contents import EngineFiles


def load_session(files: EngineFiles, name: str, settings: SessionSettings) -> GraphSession:
    """Load a graph of an engine: with onnxruntime, OpenVINO, or this device's TensorRT plan."""
    if settings.providers == PLANS:
        from murank.backends.trt import PlanSession

        return PlanSession(files, name, plans=settings.plans)
    if openvino_device(settings.providers) is not None:
        from murank.backends.openvino import OpenVinoSession

        return OpenVinoSession(files, name, settings)
    with files.graph(name) as own:
        return Session(own, settings, called=files.folder / name)
