"""What one run of a graph costs, and how a device runs a precision."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from murank.folder.precision import ARITHMETIC, INTEGER, Precision

ProductKind = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
_NARROW: Mapping[Precision, ProductKind] = {
    "int8": "int8", "w8a16": "int8", "int8-qdq": "int8", "fp8": "fp8"
}  # fmt: skip
_FLOATS: Mapping[str, ProductKind] = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


@dataclass(frozen=True)
class Step:
    """One product of a layer, or all of a layer that is no product."""

    name: str
    operations: int  # multiplications plus additions; 0: no product
    weight_bytes: int
    moved_bytes: int  # of activations, in and out
    kind: ProductKind = "fp32"

    @property
    def bytes(self) -> int:
        """All that moves."""
        return self.weight_bytes + self.moved_bytes


@dataclass(frozen=True)
class GraphRun:
    """One run of a graph with inputs of given shapes."""

    steps: tuple[Step, ...]
    nodes: int  # that are started
    weight_bytes: int  # of the whole graph, in memory
    input_bytes: int
    output_bytes: int
    live_bytes: int  # activations alive at once, at most; inputs and outputs among them
    uncounted: Mapping[str, int] = field(default_factory=dict)  # nodes by operator

    @property
    def operations(self) -> int:
        """Multiplications plus additions of all products."""
        return sum(step.operations for step in self.steps)

    @property
    def bytes(self) -> int:
        """All that the steps move."""
        return sum(step.bytes for step in self.steps)


@dataclass(frozen=True)
class Execution:
    """How a device runs a scorer of a precision.

    TensorRT takes QuantizeLinear and DequantizeLinear into its products, which then read narrow
    values and multiply them. onnxruntime's CPU kernels run each node of Q/DQ graphs in floats, and
    compute fp16 as fp32.
    """

    precision: Precision
    on_cpu: bool
    fused: bool = False  # rotations and attention are an operator each: see `graphs.attention`

    @property
    def half_bytes(self) -> int:
        """Bytes of a value of 16 bits."""
        return 4 if self.on_cpu else 2

    @property
    def item_bytes(self) -> int:
        """Bytes of an activation."""
        return 4 if self.floats == "fp32" else self.half_bytes

    @property
    def token_bytes(self) -> int:
        """Bytes of a value of vision tokens: the host has no bfloat16."""
        return self.half_bytes if self.floats == "fp16" else 4

    @property
    def floats(self) -> ProductKind:
        """Of products whose weights are floats, or int4."""
        return _FLOATS[ARITHMETIC[self.precision].floats]

    @property
    def terms(self) -> int:
        """Products that a linear layer of integers takes."""
        return 2 if self.precision == "w8a16" else 1

    @property
    def widens(self) -> bool:
        """Whether narrow weights are floats again before each product."""
        return self.on_cpu and self.precision not in INTEGER

    @property
    def narrow(self) -> ProductKind:
        """Of products whose weights are narrow."""
        return self.floats if self.widens else _NARROW.get(self.precision, self.floats)
