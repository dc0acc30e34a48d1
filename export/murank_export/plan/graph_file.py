"""The weights of an ONNX file by name: shapes and types alone; the values are never read."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from murank._exceptions import InputError
from murank.files.stand_in import misread
from murank.folder.precision import ARITHMETIC, Precision
from murank_export.plan.onnx import onnx

# Another name for the same bytes, or nothing at all.
VIEWS = {"Constant", "Flatten", "Identity", "Reshape", "Shape", "Size", "Squeeze", "Unsqueeze"}
_ELEM = {"float32": "FLOAT", "float16": "FLOAT16", "bfloat16": "BFLOAT16"}
_STEPS = {8: "INT8", 4: "INT4"}  # by bits of a weight
_HALVES, _FLOATS = ("FLOAT16", "BFLOAT16"), ("FLOAT", "FLOAT16", "BFLOAT16")


@dataclass(frozen=True)
class Tensor:
    """What is known of a value."""

    shape: tuple[int, ...]
    elem: str  # name of its onnx.TensorProto.DataType

    @property
    def count(self) -> int:
        """Its elements."""
        return prod(self.shape)

    @property
    def is_float(self) -> bool:
        """Whether int8 would be smaller."""
        return self.elem in _FLOATS

    def bytes(self, half_bytes: int) -> int:
        """Bytes, where a value of 16 bits takes that many."""
        if self.elem in _HALVES:
            return self.count * half_bytes
        if self.elem in ("INT4", "UINT4"):
            return -(-self.count // 2)
        library = onnx()
        elem = library.TensorProto.DataType.Value(self.elem)
        return self.count * int(library.helper.tensor_dtype_to_np_dtype(elem).itemsize)


@dataclass(frozen=True)
class LinearLayer:
    """A linear layer: its matrix [inner, outer], and bytes with its scales and bias."""

    inner: int
    outer: int
    is_float: bool
    biased: bool
    bytes: int


@dataclass(frozen=True)
class GraphFile:
    """Weights by name, and the nodes that run."""

    path: Path
    weights: Mapping[str, Tensor]
    operators: Mapping[str, int]

    @classmethod
    def read(cls, path: Path) -> "GraphFile":
        """Read it. Raises what `read_model` does."""
        graph = read_model(path).graph
        return cls(path, weights_of(graph.initializer), Counter(one.op_type for one in graph.node))

    def nodes(self, *, widened: bool) -> int:
        """Nodes that run; `widened`: narrow values become floats in nodes of their own."""
        idle = VIEWS if widened else VIEWS | {"DequantizeLinear"}
        return sum(count for name, count in self.operators.items() if name not in idle)

    def __getitem__(self, name: str) -> Tensor:
        """Return a weight; InputError if the graph has no such."""
        if name not in self.weights:
            raise InputError(
                f"{self.path} has no weights {name}, so that plan cannot count it: export the "
                "engine again"
            )
        return self.weights[name]

    def linear(self, name: str, half_bytes: int) -> LinearLayer:
        """Return the layer of that name."""
        matrix = self[f"{name}.weight"]
        if len(matrix.shape) != 2:
            raise InputError(f"{self.path}: {name}.weight is no matrix; export the engine again")
        parts = {key: one for key, one in self.weights.items() if key.startswith(f"{name}.")}
        biased = any(key.endswith("bias") for key in parts)
        kept = sum(part.bytes(half_bytes) for part in parts.values())
        return LinearLayer(*matrix.shape, matrix.is_float, biased, kept)

    def count(self, pattern: str) -> int:
        """How many weights there are of `pattern` with 0, 1, ... in its place."""
        number = 0
        while pattern.format(number) in self.weights:
            number += 1
        return number

    def bytes(self, half_bytes: int) -> int:
        """Bytes of all weights."""
        return sum(tensor.bytes(half_bytes) for tensor in self.weights.values())

    def widened(self) -> "GraphFile":
        """As it lies in memory where narrow weights become floats when it is loaded."""
        narrow = {name for name, one in self.weights.items() if one.elem == "INT8"}
        scales = {f"{name.removesuffix('.weight')}.scale" for name in narrow}
        weights = {
            name: replace(one, elem="FLOAT") if name in narrow else one
            for name, one in self.weights.items()
            if name not in scales
        }
        operators = Counter(self.operators)
        operators.subtract({"Cast": len(narrow), "Mul": len(narrow)})
        return replace(self, weights=weights, operators=operators)

    def rounded(self, precision: Precision) -> "GraphFile":
        """Foretell the file of another precision from one in floats, scales left out."""
        how = ARITHMETIC[precision]
        floats = _ELEM[how.floats]
        steps = _STEPS.get(how.weight_bits, floats)

        def elem(name: str, one: Tensor) -> str:
            linear = name.endswith(".weight") and len(one.shape) == 2 and name != "embed.weight"
            return steps if linear else floats

        weights = {
            name: replace(one, elem=elem(name, one)) if one.is_float else one
            for name, one in self.weights.items()
        }
        return replace(self, weights=weights)


def weights_of(initializers: Iterable[Any]) -> dict[str, Tensor]:
    """Return a graph's initializers by name."""
    name = onnx().TensorProto.DataType.Name
    return {one.name: Tensor(tuple(one.dims), name(one.data_type)) for one in initializers}


def read_model(path: Path) -> Any:
    """Return the model in an ONNX file, local functions inlined, without its external weights.

    Raises
    ------
    InputError
        It is no ONNX file that this onnx reads.
    MachineError
        onnx is not installed.
    """
    library = onnx()
    try:
        model = library.load(str(path), load_external_data=False)
        return library.inliner.inline_local_functions(model) if model.functions else model
    except Exception as error:
        # onnx raises protobuf's own kinds, and its checker's.
        raise misread(path, f" cannot be read by onnx: {error}") from error
