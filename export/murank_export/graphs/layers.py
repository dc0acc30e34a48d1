"""Building blocks of the exported graphs, made from the layers of a loaded checkpoint.

A block takes its weights over: the layer it was made from is emptied, so that a model is never in
memory twice. Weights are stored [in,out], as ONNX MatMul wants them: no Transpose stays behind.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from murank.engine.manifest import Precision

_INT8_LARGEST = 127.0
_UINT8_ZERO = 128


def float_dtype(precision: Precision) -> torch.dtype:
    """Type of activations, K/V and vision tokens."""
    return torch.float16 if precision == "fp16" else torch.float32


class Linear(nn.Module):
    """x @ weight + bias in the activations' own type."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.t().contiguous(), requires_grad=False)  # [in,out]
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """[...,in] -> [...,out]."""
        y = torch.matmul(x, self.weight)
        return y if self.bias is None else y + self.bias


class Int8Linear(nn.Module):
    """int8 weights with a scale per output, activations quantised per token.

    One scale per token (and not one for the whole batch, as ONNX's DynamicQuantizeLinear has it):
    what a pair scores must not depend on the pairs beside it, and outliers of one token do not
    coarsen the others.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        scale = weight.float().abs().amax(1).clamp(min=1e-12) / _INT8_LARGEST  # [out]
        steps = torch.round(weight.float() / scale[:, None]).to(torch.int8)
        self.weight = nn.Parameter(steps.t().contiguous(), requires_grad=False)  # [in,out]
        self.scale = nn.Parameter(scale, requires_grad=False)
        # Subtracted: onnxruntime fuses an added bias into the product, and scales it per token.
        minus = None if bias is None else -bias.float()
        self.minus_bias = None if minus is None else nn.Parameter(minus, requires_grad=False)

    def multiply(self, x: "QuantisedTokens") -> Tensor:
        """[...,in] -> [...,out] float32."""
        shape = (*x.steps.shape[:-1], self.weight.shape[1])
        zero = torch.tensor(_UINT8_ZERO, dtype=torch.uint8)
        # MatMulInteger has no PyTorch operator: the exporter is told its name, type and shape.
        product = torch.onnx.ops.symbolic(
            "MatMulInteger", (x.steps, self.weight, zero), dtype=torch.int32, shape=shape
        )
        y = product.to(torch.float32) * (x.scale * self.scale)
        return y if self.minus_bias is None else y - self.minus_bias

    def forward(self, x: Tensor) -> Tensor:
        """[...,in] -> [...,out] float32."""
        return self.multiply(QuantisedTokens(x))


class QuantisedTokens:
    """Activations as uint8 steps around 128, one scale per token."""

    def __init__(self, x: Tensor) -> None:
        self.scale = x.abs().amax(-1, keepdim=True).clamp(min=1e-12) / _INT8_LARGEST  # [...,1]
        self.steps = (torch.round(x / self.scale) + _UINT8_ZERO).to(torch.uint8)


def project(x: Tensor, layers: Sequence[nn.Module]) -> list[Tensor]:
    """Apply several linear layers to one input, which is quantised once where they are int8."""
    if not all(isinstance(layer, Int8Linear) for layer in layers):
        return [layer(x) for layer in layers]
    tokens = QuantisedTokens(x)
    return [cast(Int8Linear, layer).multiply(tokens) for layer in layers]


def take_linear(
    layer: nn.Module, precision: Precision, rows: slice = slice(None), *, last: bool = True
) -> nn.Module:
    """Make the block of a linear layer, or of some of its output rows; `last` empties the layer."""
    weight, bias = cast(Tensor, layer.weight).detach(), layer.bias
    part = weight[rows]
    part_bias = None if bias is None else cast(Tensor, bias).detach()[rows]
    kind = Int8Linear if precision == "int8" else Linear
    dtype = float_dtype(precision)
    if precision != "int8":
        part = part.to(dtype)
    block = kind(part, None if part_bias is None else part_bias.to(dtype).clone())
    if last:
        layer.register_parameter("weight", None)
    return block


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight, the mean in float32.

    Written as a division by a square root: the form that onnxruntime fuses into one kernel.
    """

    def __init__(self, weight: Tensor, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis."""
        wide = x.to(torch.float32)
        wide = wide / torch.sqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return wide.to(x.dtype) * self.weight


def take_norm(layer: nn.Module, precision: Precision) -> nn.Module:
    """Make the block of a LayerNorm or of any of the checkpoints' RMSNorm classes."""
    dtype = float_dtype(precision)
    if isinstance(layer, nn.LayerNorm):
        return layer.to(dtype)
    eps = getattr(layer, "variance_epsilon", None)
    eps = layer.eps if eps is None else eps
    return RMSNorm(cast(Tensor, layer.weight).detach().to(dtype), cast(float, eps))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of [...,D] with tables [...,D/2] that broadcast."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
