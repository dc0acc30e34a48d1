"""Weights to int8, int4 or fp8: to the nearest, or so that errors cancel in what the layer gives.

With inputs X of the layer and H = X'X, the rounding errors e of one output's weights cost |Xe|^2 =
e'He = |L'e|^2, where LL' = H. Term j of that sum holds L_jj e_j and what the weights after j add:
from the last weight to the first, each is rounded to where its own term is smallest. That is GPTQ
(Frantar et al., ICLR 2023) without the inverse of H, as Babai's nearest plane.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST = 127.0  # steps
_DAMPING = 0.01  # of the mean of H's diagonal, added to all of it
_BLOCK = 128  # weights between two large matrix products
_HELD_OUT = 8  # one in so many inputs judges what the others chose: few inputs can be overfitted


@dataclass(frozen=True)
class Format:
    """What is kept of a number in steps of its scale."""

    dtype: torch.dtype  # that holds it
    least: float
    largest: float

    def nearest(self, x: Tensor) -> Tensor:
        """Round in place, as float32; what is too large becomes the largest."""
        x.clamp_(self.least, self.largest)
        if self.dtype.is_floating_point:
            return x.copy_(x.to(self.dtype))
        return x.round_()


INT8 = Format(torch.int8, -LARGEST, LARGEST)
INT4 = Format(torch.int8, -8.0, 7.0)
FP8 = Format(torch.float8_e4m3fn, -448.0, 448.0)


@dataclass(frozen=True)
class Rounded:
    """A weight matrix as steps and their size."""

    steps: Tensor  # [out,in] of the format's dtype
    scale: Tensor  # float32: [out], [1] or [out,blocks]


def output_scale(weight: Tensor) -> Tensor:
    """Weights [out,in] -> [out]: the largest weight of an output is 127 steps."""
    return weight.float().abs().amax(1).clamp(min=1e-12) / LARGEST


def round_weight(
    weight: Tensor,
    inputs: Tensor | None = None,
    scale: Tensor | None = None,
    kind: Format = INT8,
) -> Rounded:
    """Round a weight matrix [out,in] of any float type.

    Parameters
    ----------
    weight
        Of a layer that gives x @ weight.T.
    inputs
        What the layer is given, [n,in] of any float type; n may be below `in`. None: to nearest.
        The last eighth only judges: it should be of other images than the rest.
    scale
        Size of a step, float32: [out], [1] for all, or [out,blocks] for blocks along `in`. None:
        `output_scale`.

    Returns
    -------
    Rounded
        An output whose squared error would be above that of rounding to nearest, on the inputs
        that choose or on those that judge, is rounded to nearest. Same arguments, same steps.
    """
    wide = weight.float()
    scale = output_scale(wide) if scale is None else scale
    # In steps of one size an output's weights need no size each.
    sizes = scale.repeat_interleave(wide.shape[1] // scale.shape[1], 1) if scale.ndim == 2 else None
    exact = wide / scale[:, None] if sizes is None else wide
    steps = kind.nearest(exact.clone() if sizes is None else exact / sizes)
    if inputs is not None:
        chosen_by = len(inputs) - len(inputs) // _HELD_OUT
        choosing, judging = inputs[:chosen_by].float(), inputs[chosen_by:].float()
        fed_back = _feed_back(exact, choosing, sizes, kind)
        new, old = (_error(exact, made, sizes) for made in (fed_back, steps))
        better = _cost(new, choosing) < _cost(old, choosing)
        better &= _cost(new, judging) <= _cost(old, judging)
        steps = torch.where(better[:, None], fed_back, steps)
    return Rounded(steps.to(kind.dtype), scale)


def _error(exact: Tensor, steps: Tensor, sizes: Tensor | None) -> Tensor:
    return exact - (steps if sizes is None else steps * sizes)


def _cost(error: Tensor, inputs: Tensor) -> Tensor:
    """Squared error [out] that [out,in] makes on [n,in]."""
    return torch.matmul(inputs, error.t()).square().sum(0)


def _feed_back(exact: Tensor, inputs: Tensor, sizes: Tensor | None, kind: Format) -> Tensor:
    """Weights [out,in] and inputs [n,in] -> rounded steps [out,in], as float.

    Weights are in steps, or with `sizes` (of the steps, [out,in]) as they are. Weights that are
    multiplied with more come first: they have the most others left to make up for them.
    """
    energy = inputs.square().sum(0)
    order = torch.argsort(energy, stable=True)  # the last is the first to be rounded
    pull = _pull(inputs[:, order], _DAMPING * float(energy.mean()))
    wanted = exact.t()[order]  # [in,out]: a row holds one weight of each output
    size = None if sizes is None else sizes.t()[order]
    steps, error = torch.empty_like(wanted), torch.empty_like(wanted)
    for end in range(len(order), 0, -_BLOCK):
        start = max(0, end - _BLOCK)
        own = pull[start:end, start:end].t().contiguous()
        target = wanted[start:end] + torch.matmul(pull[end:, start:end].t(), error[end:])
        for i in range(end - start - 1, -1, -1):
            here = start + i
            point = target[i] + torch.mv(error[here + 1 : end].t(), own[i, i + 1 :])
            steps[here] = kind.nearest(point if size is None else point / size[here])
            error[here] = _error(wanted[here], steps[here], None if size is None else size[here])
    result = torch.empty_like(steps)
    result[order] = steps
    return result.t()


def _pull(inputs: Tensor, damping: float) -> Tensor:
    """L / its diagonal: [i,j], i > j, is how far an error of weight i moves weight j's target.

    Inputs that are all zero or not finite give NaN: steps that no comparison finds better.
    """
    products = torch.matmul(inputs.t(), inputs)
    products.diagonal().add_(damping)
    # The damping keeps H's condition below 100 x in: float32 will do.
    factor: Tensor = torch.linalg.cholesky_ex(products).L
    return factor.div_(factor.diagonal().clone())
