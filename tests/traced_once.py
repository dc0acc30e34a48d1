"""Graphs that are traced once for all exports of a session which trace the same module."""

import functools
import hashlib
import io
import pickle
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

Values = Mapping[str, bytes]


class TracedOnce:
    """`export_vision` or `export_decoder`, with its files kept.

    A graph is made of a module and the sizes of its inputs alone. Where structure, settings and
    buffers are the same, its files are copied, and weights that differ (as an adapter makes them)
    are written over those of the copy. Layout, prompt, tau, encoder: none is in a graph.
    """

    def __init__(self, trace: Callable[..., None], store: Path) -> None:
        self.trace, self.store = trace, store
        self.weights: dict[Path, Values] = {}  # of what is kept

    def __call__(self, module: nn.Module, file: Path, *sizes: Any, **more: Any) -> None:
        """Write `file` and the weights beside it."""
        kept, wanted = self.store / digest(module, sizes, more), values(module)
        if kept not in self.weights:
            self.trace(module, file, *sizes, **more)
            self.weights[kept] = wanted
            kept.mkdir()
            for written in file.parent.glob(f"{file.name}*"):
                shutil.copyfile(written, kept / written.name)
            return
        traced = self.weights[kept]
        changed = {name: new for name, new in wanted.items() if new != traced[name]}
        for saved in kept.iterdir():
            shutil.copyfile(saved, file.with_name(saved.name))
        if not overwrite(file, changed, traced):
            self.trace(module, file, *sizes, **more)


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


def list_operators_once(patch: pytest.MonkeyPatch) -> None:
    """Let torch's exporter make its table of operators once, and not for each graph: a second."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    made = functools.cache(ONNXRegistry.from_torchlib)
    patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(made))
