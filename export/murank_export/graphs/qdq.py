"""Linear layers as TensorRT's explicit quantisation wants them: QuantizeLinear, DequantizeLinear.

TensorRT makes its own int8, fp8 or int4 products of these patterns; onnxruntime's CPU computes
them in float. Activations are float16, and so are all scales: in strongly typed networks the
dequantised has the type of its scale.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from murank.folder.precision import Precision
from murank_export.graphs.rounding import FP8, INT4, INT8, Format, Rounded, round_weight
from murank_export.graphs.scales import block_size, fp8_scale, input_scale, int4_scale, int8_scale

OPSET = 21  # the first with blocks and int4
_KINDS: dict[Precision, Format] = {"int8-qdq": INT8, "fp8": FP8}


class StaticLinear(nn.Module):
    """Weights and activations in int8 or fp8, all sizes of steps fixed."""

    def __init__(self, weight: Rounded, step: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = _kept(weight.steps.t().contiguous())  # [in,out]
        per_output = len(weight.scale) > 1
        self.scale = _kept(weight.scale.half() if per_output else weight.scale[0].half())
        self.step = _kept(step.half())
        self.zero = _kept(torch.zeros(()).to(weight.steps.dtype))
        self.bias = None if bias is None else _kept(bias)

    def quantised(self, x: Tensor) -> Tensor:
        """Round [...,in] to steps of its size, float16 before and after."""
        pair = (self.step, self.zero)
        steps = torch.onnx.ops.symbolic(
            "QuantizeLinear", (x, *pair), dtype=self.zero.dtype, shape=x.shape
        )
        return torch.onnx.ops.symbolic(
            "DequantizeLinear", (steps, *pair), dtype=x.dtype, shape=x.shape
        )

    def multiply(self, x: Tensor) -> Tensor:
        """Quantised [...,in] -> [...,out] float16."""
        attributes: dict[str, Any] = {"axis": 1} if self.scale.ndim else {}
        weight = torch.onnx.ops.symbolic(
            "DequantizeLinear", (self.weight, self.scale), attributes,
            dtype=x.dtype, shape=self.weight.shape,
        )  # fmt: skip
        y = torch.matmul(x, weight)
        return y if self.bias is None else y + self.bias

    def forward(self, x: Tensor) -> Tensor:
        """[...,in] -> [...,out] float16."""
        return self.multiply(self.quantised(x))


class Int4Linear(nn.Module):
    """Weights in 4 bits, a scale for each block of inputs and output; float16 products.

    PyTorch has no int4: steps are int8 here, and 4 bits in the file (`pack_int4`).
    """

    def __init__(self, weight: Rounded, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = _kept(weight.steps.t().contiguous())  # [in,out]
        self.scale = _kept(weight.scale.half().t().contiguous())  # [blocks,out]
        self.bias = None if bias is None else _kept(bias)

    def forward(self, x: Tensor) -> Tensor:
        """[...,in] -> [...,out] float16."""
        weight = torch.onnx.ops.symbolic(
            "DequantizeLinear", (self.weight, self.scale),
            {"axis": 0, "block_size": len(self.weight) // len(self.scale)},
            dtype=x.dtype, shape=self.weight.shape,
        )  # fmt: skip
        y = torch.matmul(x, weight)
        return y if self.bias is None else y + self.bias


def _kept(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=False)


def quantised_linear(
    weight: Tensor, bias: Tensor | None, precision: Precision, inputs: Tensor | None
) -> nn.Module | None:
    """Make the block of a layer's weights [out,in]; None where float16 has to stay.

    `inputs` [n,in] are what the layer is given; int4 does without, and is rounded to nearest.
    """
    if precision == "int4":
        block = block_size(weight.shape[1])
        if block is None:
            return None
        scale = int4_scale(weight, inputs, block)
        return Int4Linear(round_weight(weight, inputs, scale, INT4), bias)
    if inputs is None:
        raise ValueError(f"{precision} needs inputs to choose the size of its steps")
    kind = _KINDS[precision]
    scale = int8_scale(weight) if kind is INT8 else fp8_scale(weight)
    rounded = round_weight(weight, inputs, scale, kind)
    return StaticLinear(rounded, input_scale(inputs, kind), bias)


def multiply_all(x: Tensor, layers: Sequence[StaticLinear]) -> list[Tensor]:
    """Apply layers that are given the same, and so have the same size of steps, to it."""
    quantised = layers[0].quantised(x)
    return [layer.multiply(quantised) for layer in layers]


def has_qdq(module: nn.Module) -> bool:
    """Whether a graph of this module needs `OPSET`."""
    return any(isinstance(part, StaticLinear | Int4Linear) for part in module.modules())


def pack_int4(model: Any) -> None:
    """Turn the int8 steps of a traced model's blocks (an `onnx_ir.Model`) into int4, two a byte."""
    import onnx_ir

    for node in model.graph.all_nodes():
        if node.op_type == "DequantizeLinear" and "block_size" in node.attributes:
            steps = node.inputs[0]
            steps.const_value = onnx_ir.Tensor(
                steps.const_value.numpy(), dtype=onnx_ir.DataType.INT4, name=steps.name
            )
            steps.dtype = onnx_ir.DataType.INT4
