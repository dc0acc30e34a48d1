"""Operations of matrix products and convolutions, by the shapes of what goes in and out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from murank_export.plan.shapes import Value, attribute

_Inputs = Sequence[Value]  # of a node; those left out stand at the end of these operators
_Rule = Callable[[Any, _Inputs, Value], int]


def operations(node: Any, inputs: _Inputs, output: Value) -> int | None:
    """Return multiplications plus additions; None if the node is no product."""
    rule = _RULES.get(node.op_type)
    return None if rule is None else rule(node, inputs, output)


def _matmul(node: Any, inputs: _Inputs, output: Value) -> int:
    left = inputs[0].shape
    inner = left[-2] if attribute(node, "transA", 0) and len(left) > 1 else left[-1]
    return 2 * output.count * inner


def _blocked(node: Any, inputs: _Inputs, output: Value) -> int:
    return 2 * output.count * int(attribute(node, "K", inputs[0].shape[-1]))


def _convolution(weight: int) -> _Rule:
    def rule(node: Any, inputs: _Inputs, output: Value) -> int:
        del node
        kernel = inputs[weight]  # [out, in / groups, *window]
        return 2 * output.count * (kernel.count // kernel.shape[0])

    return rule


def _transposed_convolution(node: Any, inputs: _Inputs, output: Value) -> int:
    del node, output
    image, kernel = inputs[0], inputs[1]  # kernel [in, out / groups, *window]
    return 2 * image.count * (kernel.count // kernel.shape[0])


def _einsum(node: Any, inputs: _Inputs, output: Value) -> int:
    """Operations of one product over all letters; several operands could take fewer in turn."""
    equation = attribute(node, "equation", b"").decode().replace(" ", "")
    terms = equation.split("->")[0].split(",")
    if len(terms) < 2:
        return 0
    length: dict[str, int] = {}
    for term, value in zip(terms, inputs, strict=True):
        head, dots, tail = term.partition("...")
        shape = value.shape
        length |= dict(zip(head, shape, strict=False))
        if dots:
            length |= dict(zip(reversed(tail), reversed(shape), strict=False))
    result = equation.partition("->")[2].replace("...", "")
    summed = [n for letter, n in length.items() if letter not in result]
    inner = 1
    for n in summed:
        inner *= n
    return 2 * output.count * inner


def _attention(node: Any, inputs: _Inputs, output: Value) -> int:
    """Query [B,S,H] to keys [B,L,H] and values [B,L,V]; masked ones count."""
    del node, output
    query, key, value = (one.shape for one in inputs[:3])
    return 2 * query[0] * query[1] * key[1] * (query[2] + value[2])


_RULES: Mapping[str, _Rule] = {
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "MatMulIntegerToFloat": _matmul,
    "DynamicQuantizeMatMul": _matmul,
    "QLinearMatMul": _matmul,
    "FusedMatMul": _matmul,
    "Gemm": _matmul,
    "MatMulNBits": _blocked,
    "Conv": _convolution(1),
    "FusedConv": _convolution(1),
    "ConvInteger": _convolution(1),
    "QLinearConv": _convolution(3),
    "ConvTranspose": _transposed_convolution,
    "Einsum": _einsum,
    "MultiHeadAttention": _attention,
}
