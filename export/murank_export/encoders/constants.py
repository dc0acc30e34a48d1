"""Values of a graph that do not depend on what goes in: weights, constants, arithmetic of both."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

SMALL = 4096  # elements; larger ones are weights, not shapes or means


def add_constant(graph: Any, name: str, value: Any) -> str:
    """Add an array to a graph's initializers; return its name."""
    graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    return name


class Constants:
    """What is known before a graph runs, by name."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._weights = {one.name: one for one in model.graph.initializer}
        self._makers = {name: node for node in model.graph.node for name in node.output}
        self._known: dict[str, NDArray[Any] | None] = {}

    def value(self, name: str) -> NDArray[Any] | None:
        """Return a small constant; None for what depends on the input, or is large."""
        if name not in self._known:
            self._known[name] = None  # should a damaged graph run in a circle
            self._known[name] = self._found(name)
        return self._known[name]

    def _found(self, name: str) -> NDArray[Any] | None:
        if name in self._weights:
            weight = self._weights[name]
            if int(np.prod(weight.dims)) > SMALL:
                return None
            return np.asarray(onnx.numpy_helper.to_array(weight))
        node = self._makers.get(name)
        if node is None or len(node.output) != 1 or not (node.input or node.op_type == "Constant"):
            return None
        names = dict.fromkeys(one for one in node.input if one)
        values = {one: self.value(one) for one in names}
        if any(value is None for value in values.values()):
            return None
        return self._evaluated(node, values)

    def _evaluated(self, node: onnx.NodeProto, values: dict[str, Any]) -> NDArray[Any] | None:
        undefined = [
            onnx.helper.make_tensor_value_info(one, 0, None) for one in (*values, node.output[0])
        ]
        graph = onnx.helper.make_graph([node], "node", undefined[:-1], undefined[-1:])
        alone = onnx.helper.make_model(graph, opset_imports=self._model.opset_import)
        try:
            made = np.asarray(_first(ReferenceEvaluator(alone).run(None, values)))
        except Exception:  # noqa: BLE001
            # The evaluator lacks operators; what they give is then not known.
            return None
        return made if made.size <= SMALL else None


def _first(results: Any) -> Any:
    return results[0]
