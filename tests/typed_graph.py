"""What an exported engine is made of: its graphs with the types of all their values."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto

from murank.folder.manifest import ScorerPart, read_manifest

FLOAT, BF16, HALF = TensorProto.FLOAT, TensorProto.BFLOAT16, TensorProto.FLOAT16


@dataclass(frozen=True)
class TypedGraph:
    """A graph, the element types of all its values, and who makes each."""

    graph: onnx.GraphProto
    types: dict[str, int]
    maker: dict[str, onnx.NodeProto]

    def kinds(self, names: Iterable[str]) -> set[int]:
        return {self.types[name] for name in names if name}

    def comes_from(self, name: str, passing: set[str]) -> onnx.NodeProto | None:
        """Return who makes a value, seen through operators that pass it on."""
        node = self.maker.get(name)
        while node is not None and node.op_type in passing:
            node = self.maker.get(node.input[0])
        return node


def typed(file: Path) -> TypedGraph:
    model = onnx.load(str(file), load_external_data=False)
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {one.name: one.data_type for one in graph.initializer}
    return TypedGraph(graph, types, {name: node for node in graph.node for name in node.output})


def part_of(folder: Path) -> ScorerPart:
    part = read_manifest(folder).scorer
    assert part is not None
    return part


def round_to_bfloat16(array: NDArray[Any]) -> NDArray[np.float32]:
    rounded: NDArray[np.float32] = (
        torch.from_numpy(array.astype(np.float32)).bfloat16().float().numpy()
    )
    return rounded
