"""How many bytes of activations a graph needs at once, when each is freed after its last use."""

from collections.abc import Callable, Collection, Sequence
from typing import Any


def largest_live(
    graph: Any,
    static: Collection[str],
    size: Callable[[str], int],
    views: Collection[str],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> int:
    """Return the largest sum of bytes alive while a node runs, its inputs and outputs among them.

    Parameters
    ----------
    graph
        The GraphProto.
    static
        Values that are weights: not counted.
    size
        Bytes of a value.
    views
        Operators whose first output is the first input's bytes.
    inputs, outputs
        Of the graph; alive from the beginning, and to the end.
    """
    root: dict[str, str] = {}  # of a view: whose bytes it is

    def owner(name: str) -> str:
        return root.get(name, name)

    for node in graph.node:
        if node.op_type in views and node.input and node.input[0]:
            root[node.output[0]] = owner(node.input[0])
    last = {owner(name): len(graph.node) for name in outputs}
    for place, node in enumerate(graph.node):
        for name in filter(None, (*node.input, *node.output)):
            last[owner(name)] = max(place, last.get(owner(name), 0))
    alive = {name: size(name) for name in inputs}
    largest = total = sum(alive.values())
    ending: dict[int, list[str]] = {}
    for name, place in last.items():
        ending.setdefault(place, []).append(name)
    for place, node in enumerate(graph.node):
        for name in node.output:
            if name and name not in root and name not in static:
                alive[name] = size(name)
                total += alive[name]
        largest = max(largest, total)
        for name in ending.get(place, ()):
            total -= alive.pop(name, 0)
    return largest
