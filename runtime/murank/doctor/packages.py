"""Which packages are installed, and which of them are in each other's way. Nothing is imported."""

from collections.abc import Mapping
from importlib import metadata, util

from murank.machine.library import pip_install

# What people call it: names of distributions, and the module that shows it without one.
_PACKAGES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "numpy": (("numpy",), "numpy"),
    "numba": (("numba",), "numba"),
    "pillow": (("pillow",), "PIL"),
    "safetensors": (("safetensors",), "safetensors"),
    "onnxruntime": (("onnxruntime",), ""),
    "onnxruntime-gpu": (("onnxruntime-gpu",), ""),
    "numba-cuda": (("numba-cuda",), "numba_cuda"),
    "cupy": (("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x"), "cupy"),
    "tensorrt": (("tensorrt", "tensorrt-cu12", "tensorrt-cu13"), "tensorrt"),
    "tensorrt-rtx": (("tensorrt-rtx", "tensorrt-rtx-cu12", "tensorrt-rtx-cu13"), "tensorrt_rtx"),
    "pycuda": (("pycuda",), "pycuda"),
    "openvino": (("openvino",), "openvino"),
    "onnx": (("onnx",), "onnx"),
    "torch": (("torch",), "torch"),
}
_UNKNOWN = "installed, version unknown"


def installed() -> dict[str, str | None]:
    """Return the version of each package that matters to murank; None: it is not here."""
    versions = {name: _version(*one) for name, one in _PACKAGES.items()}
    if not (versions["onnxruntime"] or versions["onnxruntime-gpu"]) and _is_module("onnxruntime"):
        versions["onnxruntime-gpu"] = (
            _UNKNOWN  # a build of somebody's own: it may have a GPU's part
        )
    return versions


def distributions(package: str) -> list[str]:
    """Return the names of the distributions that a package was installed from."""
    return [name for name in _PACKAGES[package][0] if _of(name) is not None]


def conflicts(versions: Mapping[str, str | None]) -> list[str]:
    """Return a sentence for each pair of packages that break each other."""
    said = []
    if versions["onnxruntime"] and versions["onnxruntime-gpu"]:
        said.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files: "
            f"pip uninstall onnxruntime onnxruntime-gpu, then {pip_install('cpu')} or 'murank[gpu]'"
        )
    several = distributions("cupy")
    if len(several) > 1:
        said.append(
            f"{' and '.join(several)} are installed and overwrite each other's files: uninstall "
            "all, then install the one for the CUDA that the driver runs"
        )
    return said


def _version(names: tuple[str, ...], module: str) -> str | None:
    version = next((known for name in names if (known := _of(name)) is not None), None)
    if version is None and module and _is_module(module):
        return _UNKNOWN
    return version


def _is_module(name: str) -> bool:
    """Whether there is one; a folder that happens to have its name is none."""
    try:
        spec = util.find_spec(name)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None


def _of(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
