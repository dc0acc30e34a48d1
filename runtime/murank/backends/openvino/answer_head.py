"""The last product of a decoder, which gives the logits, kept in float32 where others are rounded.

Two rows of weights cost nothing, and rounding the two logits themselves to bf16 would be more than
half of what bf16 moves log-odds by (docs/openvino.md). OpenVINO rounds a graph up to its last
product: written as a sum of single ones, the head comes after that, and the last norm with it.
"""

from typing import Any

_LOGITS = "logits"


def keep_head_exact(module: Any, model: Any) -> None:
    """Write the product that `logits` come from, if there is one, as multiplications and a sum."""
    named = [port for port in model.outputs if _LOGITS in port.get_names()]
    for port in named:
        product = port.get_node().input_value(0).get_node()
        if product.get_type_name() == "MatMul" and not _turned(product):
            logits = _product(module.opset13, product.input_value(0), product.input_value(1))
            logits.output(0).set_names(product.output(0).get_names())
            product.output(0).replace(logits.output(0))


def _product(ops: Any, values: Any, weights: Any) -> Any:
    """[..., H] x [H, 2] -> [..., 2]."""
    rows = ops.transpose(weights, [1, 0])
    return ops.reduce_sum(ops.multiply(ops.unsqueeze(values, [-2]), rows), [-1])


def _turned(product: Any) -> bool:
    how = product.get_attributes()
    return bool(how["transpose_a"] or how["transpose_b"])
