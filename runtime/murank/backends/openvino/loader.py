"""From an engine's graph to what a device runs, and what that really computes in."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from murank._exceptions import InputError, MachineError
from murank.backends.memory_errors import no_memory_to_load, ran_out
from murank.backends.openvino.answer_head import keep_head_exact
from murank.backends.openvino.compiled_files import CompiledFiles
from murank.backends.openvino.devices import HINTS, capabilities, check_device, message_of
from murank.backends.protocol import Products, SessionSettings
from murank.backends.providers import openvino_device
from murank.files.plain import check_utf8
from murank.folder.contents import EngineFiles
from murank_kernels.machine.cores import usable_cores

# Layers of multiplications, as plugins call them, in lower case and without underscores.
_PRODUCTS = ("fullyconnected", "matmul", "gemm", "convolution", "attention", "innerproduct")


@dataclass(frozen=True)
class CompiledGraph:
    """A graph that was compiled for a device."""

    compiled: Any
    title: str  # what runs it: "OpenVINO CPU float32"
    on_cpu: bool


@dataclass(frozen=True)
class _AskedGraph:
    """A graph of an engine folder, and how it is to run."""

    files: EngineFiles
    name: str
    device: str
    products: Products
    config: dict[str, Any]

    @property
    def file(self) -> Path:
        """As messages call it."""
        return self.files.folder / self.name


def load_compiled(
    module: Any, files: EngineFiles, name: str, settings: SessionSettings
) -> CompiledGraph:
    """Compile a graph of an engine folder, or take what an earlier process compiled.

    Raises
    ------
    MachineError
        The device is not here, lacks such products, would compute in another precision, or memory
        is too little.
    InputError
        The graph is not what the manifest says, or OpenVINO does not take it.
    """
    device = openvino_device(settings.providers)
    assert device is not None  # noqa: S101 (`load_session` asked)
    asked = _AskedGraph(files, name, device, settings.products, _config(device, settings))
    core = module.Core()
    check_device(core, device, asked.products)
    kept = CompiledFiles(files, name, settings.plans, {
        "openvino": str(module.__version__), "device": device,
        "capabilities": capabilities(core, device),
        "config": {key: str(value) for key, value in asked.config.items()},
    })  # fmt: skip
    compiled = _imported(core, kept, asked)
    if compiled is None:
        compiled = _compiled(module, core, asked)
        kept.write(compiled)
    runs_on = _check_precision(compiled, asked)
    title = f"OpenVINO {runs_on} {asked.products}"
    return CompiledGraph(compiled, title, device.startswith("CPU"))


def _config(device: str, settings: SessionSettings) -> dict[str, Any]:
    """Return what is asked of a device, so that nothing is left to its choice that moves answers.

    ACCURACY rules out what OpenVINO else does for speed: activations in 8 bits, sums in few.
    """
    config: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": HINTS[settings.products],
        "EXECUTION_MODE_HINT": "ACCURACY",
        "PERFORMANCE_HINT": "LATENCY",
    }
    if device.startswith("CPU"):
        config["INFERENCE_NUM_THREADS"] = settings.threads or usable_cores()
        config["NUM_STREAMS"] = 1  # one call after the other, each with all threads
        config["ENABLE_CPU_PINNING"] = False  # workers side by side would share one core
    return config


def _imported(core: Any, kept: CompiledFiles, asked: _AskedGraph) -> Any:
    """Return what was compiled earlier, or None: OpenVINO may have come to think otherwise."""
    content = kept.read()
    if content is None:
        return None
    try:
        return core.import_model(BytesIO(content), asked.device, asked.config)
    except RuntimeError:  # whatever it was: it is compiled again
        return None


def _compiled(module: Any, core: Any, asked: _AskedGraph) -> Any:
    file, on_cpu = asked.file, asked.device.startswith("CPU")
    with asked.files.graph(asked.name) as own:
        check_utf8(own)
        try:
            model = core.read_model(str(own))
            if asked.products != "float32" and on_cpu:
                keep_head_exact(module, model)
            return core.compile_model(model, asked.device, asked.config)
        except Exception as error:
            text = message_of(error).replace(str(own), str(file))
            if ran_out(error):
                raise no_memory_to_load(file, text) from error
            if on_cpu:
                raise InputError(
                    f"{file} could not be loaded by OpenVINO: {text}; leave providers= out"
                ) from error
            raise MachineError(
                f"{file} could not be loaded by OpenVINO on {asked.device}: {text}; pass "
                "providers='openvino' for the CPU"
            ) from error


def _check_precision(compiled: Any, asked: _AskedGraph) -> str:
    """Return the devices that run it; MachineError unless in the precision that was asked for."""
    file, products = asked.file, asked.products
    wanted = HINTS[products]
    try:
        devices = ", ".join(map(str, compiled.get_property("EXECUTION_DEVICES")))
        promised = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    except Exception as error:
        raise MachineError(
            f"{file}: OpenVINO does not tell what it computes in: {message_of(error)}"
        ) from error
    found = _product_types(compiled)
    # What is more exact than asked may be: attention of a few tokens.
    if promised != wanted or found - {wanted, "f32"} or (found and wanted not in found):
        told = ", ".join(sorted(found | {promised}))
        raise MachineError(
            f"{file}: {products} was asked for, and OpenVINO would compute in {told} on {devices}: "
            f"leave {'providers=' if products == 'float32' else 'products='} out"
        )
    return devices


def _product_types(compiled: Any) -> set[str]:
    """Return what the values are that weights are multiplied with; none where it is not told.

    Weights themselves may be narrow: those of w8 become floats inside the product.
    """
    try:
        nodes = [(str(_layer(one)), one) for one in compiled.get_runtime_model().get_ops()]
    except RuntimeError:  # the NPU's plugin has no such graph
        return set()
    found = {
        str(node.input(0).get_element_type().get_type_name())
        for layer, node in nodes
        if any(name in layer.lower().replace("_", "") for name in _PRODUCTS)
    }
    return found | ({"i8"} if _quantises(compiled) else set())


def _layer(node: Any) -> Any:
    return node.get_rt_info()["layerType"].astype(str)


def _quantises(compiled: Any) -> bool:
    """Whether values are rounded to eight bits inside the products, a group at a time."""
    try:
        return int(compiled.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE")) != 0
    except RuntimeError:  # a device that cannot knows no such property
        return False
