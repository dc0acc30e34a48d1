"""Values in few bits that a graph holds widened again: what TensorRT's products read instead."""

from collections.abc import Mapping, Sequence
from typing import Any

# Between a weight and its product; they change the order, and no value.
_KEEP = {"Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}


def narrow_values(graph: Any) -> Mapping[str, Sequence[str]]:
    """Return, by name of a value that DequantizeLinear gives, what it is made of: steps, scale.

    Also by that of another arrangement of it, when it is of weights alone.
    """
    weights = {tensor.name for tensor in graph.initializer}
    found: dict[str, Sequence[str]] = {}
    for node in graph.node:
        if node.op_type == "DequantizeLinear":
            steps, scale = node.input[:2]
            found[node.output[0]] = (steps, scale) if steps in weights else (steps,)
        elif node.op_type in _KEEP and len(found.get(node.input[0], ())) > 1:
            found[node.output[0]] = found[node.input[0]]
    return found
