"""Building blocks of the exported graphs, made from the layers of a loaded checkpoint.

A block takes its weights over: the layer it was made from is emptied, so that a model is never in
memory twice. Weights are stored [in,out], as ONNX MatMul wants them: no Transpose stays behind.
"""

from collections.abc import MutableMapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from murank.folder.precision import ARITHMETIC, INTEGER, Precision
from murank_export.graphs.qdq import StaticLinear, multiply_all, quantised_linear
from murank_export.graphs.rounding import LARGEST, Rounded, round_weight

Inputs = MutableMapping[nn.Module, Tensor]  # what linear layers are given, [n,in] each
_UINT8_ZERO = 128
_REST = 2 * LARGEST  # steps of the second term in one of the first: its half is the largest


def float_dtype(precision: Precision) -> torch.dtype:
    """Type of activations and K/V."""
    dtype: torch.dtype = getattr(torch, ARITHMETIC[precision].floats)
    return dtype


def host_dtype(precision: Precision) -> torch.dtype:
    """Type of what a graph exchanges with the host: NumPy, and with it the host, has no bfloat16.

    Images' tokens, embeddings of text and the baked K/V (which becomes bfloat16 on the device).
    """
    dtype = float_dtype(precision)
    return torch.float32 if dtype == torch.bfloat16 else dtype


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


class NarrowLinear(nn.Module):
    """int8 weights with a scale per output, widened to float32 when the graph is loaded.

    Weights are all that a Cast and a Mul depend on: onnxruntime computes both once and keeps what
    they give, so that a run costs what float32 costs.
    """

    def __init__(self, weight: Rounded, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.steps.t().contiguous(), requires_grad=False)  # [in,out]
        self.scale = nn.Parameter(weight.scale, requires_grad=False)  # [out]
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """[...,in] -> [...,out]."""
        y = torch.matmul(x, self.weight.to(x.dtype) * self.scale)
        return y if self.bias is None else y + self.bias


class Int8Linear(nn.Module):
    """int8 weights with a scale per output, activations in one or two int8 terms, by token.

    One scale per token (and not one for the whole batch, as ONNX's DynamicQuantizeLinear has it):
    what a pair scores must not depend on the pairs beside it, and outliers of one token do not
    coarsen the others. The second term holds what the first one rounded off: 16 bits in all, for
    twice the integer products with the same weights.
    """

    def __init__(self, weight: Rounded, bias: Tensor | None, terms: int = 1) -> None:
        super().__init__()
        self.terms = terms
        self.weight = nn.Parameter(weight.steps.t().contiguous(), requires_grad=False)  # [in,out]
        self.scale = nn.Parameter(weight.scale, requires_grad=False)  # [out]
        # Subtracted: onnxruntime fuses an added bias into the product, and scales it per token.
        minus = None if bias is None else -bias.float()
        self.minus_bias = None if minus is None else nn.Parameter(minus, requires_grad=False)

    def multiply(self, x: "QuantisedTokens") -> Tensor:
        """[...,in] -> [...,out] float32.

        One product for both terms: a weight of two products would lie in memory twice, and
        onnxruntime cannot make it uint8, as CPUs without VNNI need it.
        """
        shape = (*x.steps.shape[:-1], self.weight.shape[1])
        zero = torch.tensor(_UINT8_ZERO, dtype=torch.uint8)
        # MatMulInteger has no PyTorch operator: the exporter is told its name, type and shape.
        product = torch.onnx.ops.symbolic(
            "MatMulInteger", (x.steps, self.weight, zero), dtype=torch.int32, shape=shape
        )
        y = product.to(torch.float32) * (x.scale * self.scale)
        if self.terms == 2:
            y = y[0] + y[1]
        return y if self.minus_bias is None else y - self.minus_bias

    def forward(self, x: Tensor) -> Tensor:
        """[...,in] -> [...,out] float32."""
        return self.multiply(QuantisedTokens(x, self.terms))


class QuantisedTokens:
    """Activations as uint8 steps around 128, one scale per token; a second term of finer steps.

    QuantizeLinear along the tokens divides, rounds, shifts and casts in a single pass. Steps are
    [...,in] and scales [...,1]; of two terms [2,...,in] and [2,...,1].
    """

    def __init__(self, x: Tensor, terms: int) -> None:
        # Of the largest and the least: abs() would write all of x once more.
        largest = torch.maximum(x.amax(-1, keepdim=True), -x.amin(-1, keepdim=True))
        self.scale = largest.clamp(min=1e-12) / LARGEST
        rows, scale = x.reshape(-1, x.shape[-1]), self.scale.reshape(-1)
        zero = torch.full_like(scale, _UINT8_ZERO, dtype=torch.uint8)
        steps = _by_token("QuantizeLinear", rows, scale, zero, torch.uint8)
        self.steps = steps.reshape(x.shape)
        if terms == 2:
            rest = rows - _by_token("DequantizeLinear", steps, scale, zero, torch.float32)
            finer = _by_token("QuantizeLinear", rest, scale / _REST, zero, torch.uint8)
            self.steps = torch.stack([self.steps, finer.reshape(x.shape)])
            self.scale = torch.stack([self.scale, self.scale / _REST])


def _by_token(name: str, x: Tensor, scale: Tensor, zero: Tensor, dtype: torch.dtype) -> Tensor:
    """Apply an ONNX operator to [n,in] with one scale a row."""
    return torch.onnx.ops.symbolic(name, (x, scale, zero), {"axis": 0}, dtype=dtype, shape=x.shape)


def project(x: Tensor, layers: Sequence[nn.Module]) -> list[Tensor]:
    """Apply several linear layers to one input, which is quantised once."""
    static = [layer for layer in layers if isinstance(layer, StaticLinear)]
    if len(static) == len(layers):
        return multiply_all(x, static)
    quantised = [layer for layer in layers if isinstance(layer, Int8Linear)]
    if len(quantised) < len(layers):
        return [layer(x) for layer in layers]
    tokens = QuantisedTokens(x, quantised[0].terms)
    return [layer.multiply(tokens) for layer in quantised]


def take_linear(
    layer: nn.Module,
    precision: Precision,
    inputs: Inputs | None = None,
    rows: slice = slice(None),
    *,
    last: bool = True,
) -> nn.Module:
    """Make the block of a linear layer, or of some of its output rows.

    Weights of few bits are rounded for the layer's `inputs`, or to nearest without any. `last`
    empties the layer and drops its inputs.
    """
    weight, bias = cast(Tensor, layer.weight).detach(), layer.bias
    part = weight[rows]
    part_bias = None if bias is None else cast(Tensor, bias).detach()[rows]
    dtype = float_dtype(precision)
    own_bias = None if part_bias is None else part_bias.to(dtype).clone()
    given = None if inputs is None else inputs[layer]
    block: nn.Module | None = None
    if precision in INTEGER:
        rounded = round_weight(part, given)
        block = Int8Linear(rounded, own_bias, terms=2 if precision == "w8a16" else 1)
    elif precision == "w8":
        block = NarrowLinear(round_weight(part, given), own_bias)
    elif ARITHMETIC[precision].rounded:
        block = quantised_linear(part, own_bias, precision, given)
    if block is None:
        block = Linear(part.to(dtype), own_bias)
    if last:
        layer.register_parameter("weight", None)
        if inputs is not None:
            inputs.pop(layer, None)
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
