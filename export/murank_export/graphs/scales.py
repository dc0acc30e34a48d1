"""Sizes of steps, fixed at export: of weights, and of what goes into a layer.

All are values of float16, as the graphs hold them: weights are rounded for the size they will have.
"""

import torch
from torch import Tensor

from murank_export.graphs.rounding import FP8, INT4, Format, output_scale

# Weights of one scale, along the input axis: the first that divides it. TensorRT's documentation
# names no other sizes.
BLOCKS = (128, 64)
_SHRUNKEN = tuple(1 - i / 20 for i in range(9))  # shares of a block's largest weight
_LEAST, _COARSE = 2.0**-24, 2.0**-14  # above zero in float16; below it, sizes lie _LEAST apart


def as_float16(scale: Tensor) -> Tensor:
    """Round float32 sizes to those of float16, above zero.

    Where these are coarse, upwards: the nearest could be far too small for the largest value.
    """
    wide = scale.float().clamp(min=_LEAST)
    return torch.where(wide < _COARSE, (wide / _LEAST).ceil() * _LEAST, wide.half().float())


def block_size(width: int) -> int | None:
    """Return how many weights of `width` inputs share a scale; None: nothing divides them."""
    return next((size for size in BLOCKS if width % size == 0), None)


def int8_scale(weight: Tensor) -> Tensor:
    """Weights [out,in] -> [out]: 127 steps are the largest of an output."""
    return as_float16(output_scale(weight))


def fp8_scale(weight: Tensor) -> Tensor:
    """Weights [out,in] -> [1]: TensorRT wants one for all."""
    return as_float16(weight.abs().amax().reshape(1) / FP8.largest)


def int4_scale(weight: Tensor, inputs: Tensor | None, block: int) -> Tensor:
    """Weights [out,in] -> [out,blocks]: of a few sizes the one that costs least.

    Steps are few: to cut off the largest weight of a block may help the others more than it hurts.
    Errors weigh as much as the inputs [n,in] that they are multiplied with (None: all alike).
    """
    blocks = weight.float().reshape(len(weight), -1, block)
    wide = torch.ones(1, weight.shape[1]) if inputs is None else inputs.float()
    energy = wide.square().mean(0).reshape(-1, block)
    largest = blocks.abs().amax(2) / INT4.largest
    best = as_float16(largest)
    least = torch.full_like(best, torch.inf)
    for share in _SHRUNKEN:
        scale = as_float16(share * largest)
        steps = INT4.nearest(blocks / scale[..., None])
        cost = ((blocks - steps * scale[..., None]).square() * energy).sum(2)
        best = torch.where(cost < least, scale, best)
        least = torch.minimum(cost, least)
    return best


def input_scale(inputs: Tensor, kind: Format) -> Tensor:
    """What a layer is given, [n,in] -> the one size of its steps, a scalar.

    The largest value is the last step. Cutting off what is rare (the least squared error of the
    inputs) made answers of the trained miniature 6 percent worse: large values carry the meaning.
    """
    return as_float16(inputs.abs().amax().float() / kind.largest)
