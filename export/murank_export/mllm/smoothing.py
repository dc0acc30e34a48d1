"""Outliers of activations, moved into weights: SmoothQuant (Xiao et al., ICML 2023).

One step size for all that goes into a layer is as coarse as the largest of its channels wants it.
Weights, which have a step size for each output, bear outliers better.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from murank.folder.precision import Precision
from murank_export.graphs.layers import Inputs
from murank_export.graphs.rounding import INT8
from murank_export.graphs.scales import as_float16, int8_scale
from murank_export.mllm.channels import Channels, all_channels

# Steps of fp8 grow with what they hold, and int4 engines leave activations alone.
SMOOTHED: tuple[Precision, ...] = ("int8-qdq",)
_STRENGTHS = (0.3, 0.5, 0.7, 0.85)  # SmoothQuant's alpha
_MOST = 8  # factors are at most 2^8: float16 has to hold what is divided
_JUDGES = 256  # rows of what a layer is given


def smooth(model: Any, inputs: Inputs) -> None:
    """Smooth a loaded checkpoint for int8 activations, and the `inputs` of its linear layers.

    Each group of channels is smoothed as strongly as its readers gain most by, or not at all. In
    the trained miniature, which has no outliers, that takes a tenth off the error of the log-odds:
    as much as the best single strength (0.5), which of another model nobody knows beforehand.
    """
    with torch.inference_mode():
        for channels in all_channels(model):
            given = inputs[channels.read_by[0]]
            factor = _best_factor(channels, given)
            if factor is not None:
                channels.divide(factor)
                given.div_(factor[channels.channel])  # one tensor for all that read it


def _best_factor(channels: Channels, given: Tensor) -> Tensor | None:
    """Return factors [count] for readers of [n,in]; None: as they are, they are best."""
    largest = given.abs().amax(0).float()
    rows = given[:: -(-len(given) // _JUDGES)].float()
    exact = [torch.matmul(rows, layer.weight.t()) for layer in channels.read_by]
    best, least = None, _cost(channels, rows, largest, exact, torch.ones(channels.count))
    for strength in _STRENGTHS:
        factor = _factors(channels, largest, strength)
        cost = _cost(channels, rows, largest, exact, factor)
        if cost < least:
            best, least = factor, cost
    return best


def _factors(channels: Channels, largest: Tensor, strength: float) -> Tensor:
    """Powers of two from 1 on, [count]: no float is rounded by them."""
    weight = torch.stack([layer.weight.abs().amax(0) for layer in channels.read_by]).amax(0)
    wanted = strength * channels.largest(largest).log2()
    wanted -= (1 - strength) * channels.largest(weight).log2()
    known = wanted.isfinite()
    if not known.any():
        return torch.ones(channels.count)
    power = wanted.where(known, wanted[known].amin()).round()  # unused channels: left alone
    power = (power - power.amax()).clamp(min=-_MOST)
    return torch.exp2(power - power.amin())


def _cost(
    channels: Channels, rows: Tensor, largest: Tensor, exact: Sequence[Tensor], factor: Tensor
) -> float:
    """Squared error of what the readers give, in int8 and rounded to nearest."""
    each = factor[channels.channel]
    step = as_float16((largest / each).amax() / INT8.largest)
    given = INT8.nearest(rows / each / step) * step
    cost = 0.0
    for layer, wanted in zip(channels.read_by, exact, strict=True):
        weight = layer.weight * each
        scale = int8_scale(weight)[:, None]
        steps = INT8.nearest(weight / scale)
        cost += float((torch.matmul(given, (steps * scale).t()) - wanted).square().sum())
    return cost
