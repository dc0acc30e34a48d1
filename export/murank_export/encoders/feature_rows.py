"""From what an encoder's graph gives to one row an image: which output, and what becomes of maps.

Features are [B,D], or [B,D,1,1] as pooling leaves them. Tokens [B,T,D] and maps [B,D,H,W] hold a
vector for each place of the image; flattened they would be a feature as long as the map, in which a
person who stands a few pixels aside is another one.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from murank import InputError
from murank_export.encoders.constants import add_constant

Shape = Sequence[int]
_GEM_POWER, _GEM_LEAST = 3.0, 1e-6  # customary of person Re-ID
_NAMES = ("image_embeds", "embedding", "embeddings", "feature", "features", "feat", "feats")
_TOKENS, _MAP = 3, 4  # axes


def choose_output(graph: Any, name: str | None, source: object, note: Callable[[str], None]) -> Any:
    """Return the output that holds the features.

    Raises
    ------
    InputError
        There are several, and none was named, by the user or as features are.
    """
    outputs = {one.name: one for one in graph.output}
    if name is None and len(outputs) == 1:
        return graph.output[0]
    if name is None:
        named = [one for one in outputs if one.lower() in _NAMES]
        if len(named) == 1:
            others = ", ".join(one for one in outputs if one != named[0])
            note(
                f"{source} has {len(outputs)} outputs: {named[0]!r} is taken as the feature (not "
                f"{others}); --encoder-output names another"
            )
            return outputs[named[0]]
    if name not in outputs:
        described = ", ".join(f"{one} {_described(value)}" for one, value in outputs.items())
        raise InputError(
            f"{source}: name the output that holds the features with --encoder-output, one of "
            f"{described}"
        )
    return outputs[name]


def pooling_of(
    shape: Shape, pool: str | None, source: object, note: Callable[[str], None]
) -> str | None:
    """Return how values of this shape [B,...] become rows; None: they are rows.

    Raises
    ------
    InputError
        It is a map and nothing was said, or `pool` does not go with the shape.
    """
    inner = [length for length in shape[1:] if length != 1]
    text = f"[B,{','.join(map(str, shape[1:]))}]"
    if len(inner) <= 1:
        if pool is not None:
            note(f"{source} gives one row an image, {text}: --encoder-pool changes nothing")
        return None
    if len(shape) not in (_TOKENS, _MAP):
        raise InputError(f"{source} gives features of shape {text}; expected one row an image")
    if len(shape) == _TOKENS:
        if pool is None:
            note(
                f"{source} gives tokens, {text}: the first is taken as the feature (a class "
                f"token); --encoder-pool avg takes the mean of all {shape[1]}"
            )
        return pool or "cls"
    if pool is None or pool == "cls":
        raise InputError(
            f"{source} gives a feature map {text} instead of a row an image: pass --encoder-pool "
            "avg, max or gem, whichever the model was trained with (usually avg; gem has power 3), "
            "or --encoder-output for another output"
        )
    return pool


def pooled(
    graph: Any, name: str, rank: int, pool: str, *, channels_last: bool
) -> tuple[list[Any], str]:
    """Return nodes that pool float32 values of this name, and what theirs is called."""
    if pool == "cls":
        add_constant(graph, "murank_first", np.array(0, np.int64))
        return [helper.make_node("Gather", [name, "murank_first"], ["murank_class"], axis=1)], (
            "murank_class"
        )
    nodes = []
    if rank == _TOKENS or channels_last:  # places behind the channels
        order = [0, 2, 1] if rank == _TOKENS else [0, 3, 1, 2]
        nodes.append(helper.make_node("Transpose", [name], ["murank_places"], perm=order))
        name = "murank_places"
    if pool == "gem":
        add_constant(graph, "murank_least", np.array(_GEM_LEAST, np.float32))
        add_constant(graph, "murank_power", np.array(_GEM_POWER, np.float32))
        add_constant(graph, "murank_root", np.array(1 / _GEM_POWER, np.float32))
        nodes += [
            helper.make_node("Max", [name, "murank_least"], ["murank_positive"]),
            helper.make_node("Pow", ["murank_positive", "murank_power"], ["murank_raised"]),
        ]
        name = "murank_raised"
    kind = "GlobalMaxPool" if pool == "max" else "GlobalAveragePool"
    nodes.append(helper.make_node(kind, [name], ["murank_pooled"]))
    if pool != "gem":
        return nodes, "murank_pooled"
    nodes.append(helper.make_node("Pow", ["murank_pooled", "murank_root"], ["murank_gem"]))
    return nodes, "murank_gem"


def _described(value: Any) -> str:
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return f"({TensorProto.DataType.Name(kind.elem_type).lower()})"
    lengths = (dim.dim_param or str(dim.dim_value or "?") for dim in kind.shape.dim)
    return f"[{','.join(lengths)}]"
