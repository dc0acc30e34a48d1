"""What an encoder's first nodes do to each colour: a normalisation that its graph brings along.

Exporters of some libraries put (x - mean) / std in front of the network. Whoever normalises such
images before gives the network others than it was trained on, and no shape tells of it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from murank_export.encoders.constants import Constants
from murank_export.sources.normalisations import CLIP, HALVES, IMAGENET, Triple

_PASSED = {"Cast", "Identity", "Transpose", "Dropout"}
_MOST_NODES = 24  # before the network itself begins
KNOWN: dict[str, tuple[Triple, Triple]] = {
    "ImageNet's": IMAGENET,
    "CLIP's": CLIP,
    "-1..1": HALVES,
}
_NEAR = 0.02  # of 0..1: 127 or 128 for 127.5, 0.224 for all three
_BYTES = 255.0
# Of photographs, in 0..1, by colour; what a network learns for itself may lie anywhere.
_MEANS, _STDS = (0.15, 0.75), (0.1, 0.6)


@dataclass(frozen=True)
class OwnNormalisation:
    """(x - mean) / std of a graph, by colour in the order in which it takes them."""

    mean: Triple
    std: Triple

    @property
    def takes_bytes(self) -> bool:
        """Whether its numbers are those of pixels in 0..255."""
        return min(self.std) > 1.5 or max(self.mean) > 1.5

    @property
    def _of_ones(self) -> tuple[NDArray[Any], NDArray[Any]]:
        scale = _BYTES if self.takes_bytes else 1.0
        return np.array(self.mean) / scale, np.array(self.std) / scale

    @property
    def name(self) -> str | None:
        """Whose it is, if somebody's."""
        mean, std = self._of_ones
        near = (
            name for name, (means, stds) in KNOWN.items()
            if np.abs(mean - means).max() < _NEAR and np.abs(std - stds).max() < _NEAR
        )  # fmt: skip
        return next(near, None)

    @property
    def is_reversed(self) -> bool:
        """Whether its means are somebody's in the order blue, green, red."""
        turned = self._of_ones[0][::-1]
        near = (np.abs(turned - means).max() < _NEAR for means, _ in KNOWN.values())
        return self.name is None and any(near)

    @property
    def is_sure(self) -> bool:
        """Whether it is one of images: nobody's network learns to take 100 away."""
        if self.takes_bytes or self.name is not None or self.is_reversed:
            return True
        mean, std = self._of_ones
        return bool(
            (mean > _MEANS[0]).all() and (mean < _MEANS[1]).all()
            and (std > _STDS[0]).all() and (std < _STDS[1]).all()
        )  # fmt: skip


def own_normalisation(
    model: onnx.ModelProto, images: str, *, channels_last: bool
) -> OwnNormalisation | None:
    """Return what the nodes behind the input do to each colour; None if that is nothing.

    They are followed as long as each is the only one that reads the one before, and does no more
    than scale and shift.
    """
    readers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in set(node.input):
            readers.setdefault(name, []).append(node)
    constants, name = Constants(model), images
    axis, rank = (3 if channels_last else 1), 4
    scale, shift = np.ones(3), np.zeros(3)
    for _ in range(_MOST_NODES):
        if len(readers.get(name, [])) != 1:
            break
        (node,) = readers[name]
        if node.op_type == "Transpose":
            order = _order(node, rank)
            axis = order.index(axis)
        elif node.op_type not in _PASSED:
            step = _step(node, name, constants, axis, rank)
            if step is None:
                break
            scale, shift = scale * step[0], shift * step[0] + step[1]
        name = node.output[0]
    if not np.isfinite([scale, shift]).all() or (scale <= 0).any():
        return None
    if (scale == 1).all() and (shift == 0).all():
        return None
    return OwnNormalisation(_triple(-shift / scale), _triple(1 / scale))


def _order(node: Any, rank: int) -> list[int]:
    given = next((list(one.ints) for one in node.attribute if one.name == "perm"), None)
    return given or list(range(rank))[::-1]


def _step(
    node: Any, name: str, constants: Constants, axis: int, rank: int
) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Scale and shift of one node, a number a colour; None: it does something else."""
    if node.op_type == "BatchNormalization":
        parts = [constants.value(one) for one in node.input[1:5]]
        if axis != 1 or any(part is None or part.size != 3 for part in parts):
            return None
        eps = next((one.f for one in node.attribute if one.name == "epsilon"), 1e-5)
        gain, bias, mean, var = (np.asarray(part, np.float64) for part in parts)
        slope = gain / np.sqrt(var + eps)
        return slope, bias - mean * slope
    if node.op_type == "Neg":
        return -np.ones(3), np.zeros(3)
    if node.op_type not in ("Sub", "Add", "Mul", "Div") or list(node.input).count(name) != 1:
        return None
    first = node.input[0] == name
    other = _by_colour(constants.value(node.input[1 if first else 0]), axis, rank)
    if other is None:
        return None
    one, zero = np.ones(3), np.zeros(3)
    if node.op_type == "Add":
        return one, other
    if node.op_type == "Mul":
        return other, zero
    if node.op_type == "Sub":
        return (one, -other) if first else (-one, other)
    return (one / other, zero) if first and (other != 0).all() else None


def _by_colour(value: NDArray[Any] | None, axis: int, rank: int) -> NDArray[Any] | None:
    """Return one number a colour of a constant that broadcasts over images, else None."""
    if value is None or value.ndim > rank:
        return None
    shape = (1,) * (rank - value.ndim) + value.shape
    if value.size == 1:
        return np.full(3, float(value.reshape(())))
    if value.size == 3 and shape[axis] == 3:
        return np.asarray(value, np.float64).reshape(3)
    return None


def _triple(values: NDArray[Any]) -> Triple:
    red, green, blue = (float(one) + 0.0 for one in values)  # no -0
    return red, green, blue
