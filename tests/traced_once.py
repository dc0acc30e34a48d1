"""Graphs that are traced once for all exports which trace the same module, in pytest's cache."""

import hashlib
import io
import pickle
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
import torch
from torch import Tensor, nn

import murank_export

Values = Mapping[str, bytes]
WEIGHTS = "weights.pickle"  # as they were traced


class TracedOnce:
    """`export_vision` or `export_decoder`, with its files kept.

    A graph is made of a module and the sizes of its inputs alone. Where structure, settings and
    buffers are the same, its files are copied, and weights that differ (as an adapter makes them)
    are written over those of the copy. Layout, prompt, tau, encoder: none is in a graph.
    """

    def __init__(self, trace: Callable[..., None], store: Path) -> None:
        self.trace, self.store = trace, store

    def __call__(self, module: nn.Module, file: Path, *sizes: Any, **more: Any) -> None:
        """Write `file` and the weights beside it."""
        kept, wanted = self.store / digest(module, sizes, more), values(module)
        if not kept.is_dir():
            self.trace(module, file, *sizes, **more)
            self._keep(kept, file, wanted)
            return
        traced = pickle.loads((kept / WEIGHTS).read_bytes())  # noqa: S301 - of `_keep`
        changed = {name: new for name, new in wanted.items() if new != traced[name]}
        for saved in kept.iterdir():
            if saved.name != WEIGHTS:
                shutil.copyfile(saved, file.with_name(saved.name))
        if not overwrite(file, changed, traced):
            self.trace(module, file, *sizes, **more)

    def _keep(self, kept: Path, file: Path, wanted: Values) -> None:
        """Write all or nothing: another run may read it, or have written it by now."""
        with TemporaryDirectory(dir=self.store, ignore_cleanup_errors=True) as scratch:
            whole = Path(scratch) / "whole"
            whole.mkdir()
            for written in file.parent.glob(f"{file.name}*"):
                shutil.copyfile(written, whole / written.name)
            (whole / WEIGHTS).write_bytes(pickle.dumps(dict(wanted)))
            with suppress(OSError):
                whole.rename(kept)


def code_that_traces() -> str:
    """Return what tells the code which makes graphs from any other: sources and versions."""
    found = hashlib.sha256()
    for source in sorted(Path(murank_export.__file__).parent.rglob("*.py")):
        found.update(source.read_bytes())
    for package in ("torch", "transformers", "onnx", "onnxscript", "onnx-ir"):
        found.update(f"{package} {version(package)}\n".encode())
    return found.hexdigest()


class _Structure(pickle.Pickler):
    """A module with its parameters by type and shape alone."""

    def persistent_id(self, value: object) -> object:
        if not isinstance(value, Tensor):
            return None
        held = b"" if isinstance(value, nn.Parameter) else raw(value)
        return str(value.dtype), tuple(value.shape), held


def digest(module: nn.Module, *sizes: Any) -> str:
    """Return what tells a module from another: structure, settings, buffers."""
    pickled = io.BytesIO()
    _Structure(pickled).dump(module.eval())
    return hashlib.sha256(pickled.getvalue() + repr(sizes).encode()).hexdigest()


def values(module: nn.Module) -> Values:
    """Return the bytes of all parameters."""
    return {name: raw(value) for name, value in module.named_parameters()}


def raw(value: Tensor) -> bytes:
    """Return the bytes of a tensor, whatever its type is."""
    return value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def overwrite(file: Path, changed: Values, traced: Values) -> bool:
    """Write weights over those of a graph; False if they are not in it as they were traced.

    Equal ones may be one in the graph, and of packed ones there are other bytes.
    """
    alike = Counter(traced.values())
    graph = onnx.load(file, load_external_data=False).graph
    places = {
        one.name: {entry.key: entry.value for entry in one.external_data}
        for one in graph.initializer
    }
    held = file.parent.joinpath(f"{file.name}.data").read_bytes()
    data = bytearray(held)
    for name, new in changed.items():
        place, old = places.get(name, {}), traced[name]
        begin, length = int(place.get("offset", 0)), int(place.get("length", 0))
        if alike[old] > 1 or held[begin : begin + length] != old:
            return False
        data[begin : begin + length] = new
    if changed:
        file.with_name(f"{file.name}.data").write_bytes(data)
    return True
