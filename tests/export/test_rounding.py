"""Rounding with error feedback, against exact least squares and against every choice there is."""

from itertools import product
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from murank.folder.precision import INTEGER, Precision
from murank_export.graphs.layers import Inputs, take_linear
from murank_export.graphs.onnx_file import _export
from murank_export.graphs.rounding import FP8, INT4, INT8, Format, Rounded, round_weight
from murank_export.graphs.scales import fp8_scale, int4_scale, int8_scale

Floats = NDArray[np.float64]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def correlated(rows: int, width: int, *, seed: int = 0) -> Tensor:
    """Inputs that lie near a quarter of the directions, of very different size by channel."""
    few = random(rows, width // 4, seed=seed) @ random(width // 4, width, seed=1000)
    return (few + 0.05 * random(rows, width, seed=seed + 1)) * random(width, seed=1001).exp()


def costs(weight: Tensor, rounded: Rounded, inputs: Tensor) -> Floats:
    """Squared error of each output, in float64."""
    kept = rounded.steps.double() * rounded.scale.double()[:, None]
    error = inputs.double() @ (weight.double() - kept).T
    return np.asarray((error**2).sum(0))


def exact(weight: Tensor) -> Floats:
    """Weights in steps."""
    w = weight.double().numpy()
    found: Floats = w / (np.abs(w).max(1, keepdims=True) / 127)
    return found


def damped_products(inputs: Tensor) -> Floats:
    """Products of the inputs' channels [n,n], with a hundredth of their mean on the diagonal."""
    x = inputs.double().numpy()
    products: Floats = x.T @ x
    products[np.diag_indices_from(products)] += 0.01 * np.trace(products) / len(products)
    return products


def wished(products: Floats, left: list[int], error: Floats) -> Floats:
    """Errors [rows] of the next weight if all that are left were free reals: least squares."""
    found: Floats = np.linalg.solve(products[np.ix_(left, left)], -products[left] @ error.T)[0]
    return found


def oracle(weight: Tensor, inputs: Tensor) -> Floats:
    """Round one weight after the other to where it is best if all later ones were free reals.

    The later weights' best values are solved for each time, as least squares.
    """
    wanted, products = exact(weight), damped_products(inputs)
    left = [int(i) for i in np.argsort(-np.diag(products))]
    error = np.zeros_like(wanted)
    while left:
        wish = wished(products, left, error)
        now = left.pop(0)
        steps = np.clip(np.rint(wanted[:, now] - wish), -127, 127)
        error[:, now] = wanted[:, now] - steps
    return np.rint(wanted - error)  # whole numbers, but for the rounding of this difference


@pytest.mark.parametrize(("width", "rows"), [(12, 64), (150, 400), (150, 80), (260, 320)])
def test_each_weight_is_rounded_to_where_least_squares_wants_it(width: int, rows: int) -> None:
    weight, inputs = random(3, width), correlated(rows, width)
    found = round_weight(weight, inputs)
    wanted = oracle(weight, inputs[: rows - rows // 8])
    np.testing.assert_array_equal(found.steps.numpy(), wanted)
    assert (np.rint(exact(weight)) != wanted).mean() > 0.2  # else it would show nothing


def test_between_the_nearest_and_the_best_of_all_choices() -> None:
    total = np.zeros(3)
    for seed in range(12):
        weight, inputs = random(4, 5, seed=seed), correlated(64, 5, seed=seed)
        found = costs(weight, round_weight(weight, inputs), inputs)
        nearest = round_weight(weight)
        best = np.full(4, np.inf)
        for change in product((-1, 0, 1), repeat=5):
            steps = nearest.steps + torch.tensor(change, dtype=torch.int8)
            best = np.minimum(best, costs(weight, Rounded(steps, nearest.scale), inputs))
        plain = costs(weight, nearest, inputs)
        assert (found <= plain * (1 + 1e-6)).all()
        total += [best.sum(), found.sum(), plain.sum()]
    assert total[1] - total[0] < 0.4 * (total[2] - total[0])


@pytest.mark.parametrize("rows", [2048, 96])
def test_correlated_inputs_cost_far_less_and_so_do_others_of_their_kind(rows: int) -> None:
    weight, inputs = 0.02 * random(40, 192), correlated(rows, 192)
    found, nearest = round_weight(weight, inputs), round_weight(weight)
    assert (costs(weight, found, inputs) <= costs(weight, nearest, inputs)).all()
    for seen in (inputs, correlated(500, 192, seed=9)):
        assert costs(weight, found, seen).sum() < 0.3 * costs(weight, nearest, seen).sum()


def test_few_inputs_without_any_likeness_do_no_harm() -> None:
    """What is gained on them is lost on others: the inputs that judge notice it."""
    weight = random(64, 256)
    found = round_weight(weight, random(256, 256, seed=1))
    others = random(2000, 256, seed=2)
    assert (
        costs(weight, found, others).sum() < 1.1 * costs(weight, round_weight(weight), others).sum()
    )


@pytest.mark.parametrize("inputs", [None, correlated(300, 64)])
def test_steps_and_their_size(inputs: Tensor | None) -> None:
    weight = random(20, 64) * 10 ** torch.linspace(-6, 4, 20)[:, None]
    weight[3] = 0
    weight[4, 1:] = 0
    found = round_weight(weight, inputs)
    assert (found.steps.dtype, found.scale.dtype) == (torch.int8, torch.float32)
    assert (found.steps.shape, found.scale.shape) == ((20, 64), (20,))
    np.testing.assert_allclose(found.scale[:3], weight[:3].abs().amax(1) / 127, rtol=1e-6)
    assert found.steps.int().abs().max() == 127
    assert not found.steps[3].any()
    assert found.steps[4].tolist() == round_weight(weight).steps[4].tolist()


def test_nearest_without_inputs() -> None:
    weight = random(9, 33)
    np.testing.assert_array_equal(round_weight(weight).steps, np.rint(exact(weight)))


def test_dead_channels_are_rounded_to_nearest_and_disturb_no_other() -> None:
    weight, inputs = random(10, 40), correlated(200, 40)
    dead = torch.zeros(40, dtype=torch.bool)
    dead[[0, 7, 39]] = True
    inputs[:, dead] = 0
    found = round_weight(weight, inputs)
    np.testing.assert_array_equal(found.steps[:, dead], np.rint(exact(weight))[:, dead])
    assert (costs(weight, found, inputs) < costs(weight, round_weight(weight), inputs)).all()


@pytest.mark.parametrize(
    "inputs",
    [
        torch.zeros(50, 24),
        torch.empty(0, 24),
        torch.full((50, 24), 1e30),
        torch.full((9, 24), torch.nan),
    ],
    ids=["zeros", "none", "too large to square", "NaN"],
)
def test_inputs_that_say_nothing(inputs: Tensor) -> None:
    weight = random(6, 24)
    np.testing.assert_array_equal(round_weight(weight, inputs).steps, np.rint(exact(weight)))


@pytest.mark.parametrize("rows", [1, 5, 30])
def test_fewer_inputs_than_channels(rows: int) -> None:
    weight, inputs = random(16, 64), correlated(rows, 64)
    found, nearest = round_weight(weight, inputs), round_weight(weight)
    assert (costs(weight, found, inputs) <= costs(weight, nearest, inputs) * (1 + 1e-6)).all()
    assert costs(weight, found, inputs).sum() < 0.2 * costs(weight, nearest, inputs).sum()


def test_the_same_again_and_nothing_is_changed() -> None:
    weight, inputs = random(16, 200), correlated(300, 200)
    before = weight.clone(), inputs.clone()
    one, other = round_weight(weight, inputs), round_weight(weight, inputs)
    assert torch.equal(one.steps, other.steps)
    assert torch.equal(weight, before[0])
    assert torch.equal(inputs, before[1])


@pytest.mark.parametrize("precision", INTEGER)
def test_a_layer_holds_the_steps_for_its_inputs_and_rows_are_rounded_on_their_own(
    tmp_path: Path, precision: Precision
) -> None:
    layer = nn.Linear(48, 30)
    weight, rows = layer.weight.detach().clone(), correlated(400, 48).bfloat16()
    inputs: Inputs = {layer: rows}
    parts = [slice(0, 10), slice(10, 30)]
    blocks = [take_linear(layer, precision, inputs, p, last=p is parts[1]) for p in parts]
    assert not inputs  # dropped with the weights
    assert getattr(layer, "weight", 0) is None
    whole = round_weight(weight, rows.float()).steps.numpy().T
    assert (whole != round_weight(weight).steps.numpy().T).mean() > 0.2
    for part, block in zip(parts, blocks, strict=True):
        file = tmp_path / "layer.onnx"
        batch = torch.export.Dim("batch", min=1, max=64)
        _export(block, (torch.randn(3, 48),), file, ["x"], ["y"], ({0: batch},))
        arrays = [onnx.numpy_helper.to_array(a) for a in onnx.load(file).graph.initializer]
        (held,) = (a for a in arrays if a.dtype == np.int8 and a.ndim == 2)
        np.testing.assert_array_equal(held, whole[:, part])


def test_a_layer_whose_inputs_were_never_seen() -> None:
    with pytest.raises(KeyError):
        take_linear(nn.Linear(4, 4), "int8", {})


def by_format(kind: Format, weight: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Sizes of steps as engines have them, and one for each weight."""
    if kind is INT4:
        scale = int4_scale(weight, inputs, 32)
        return scale, scale.repeat_interleave(32, 1)
    scale = int8_scale(weight) if kind is INT8 else fp8_scale(weight)
    return scale, scale[:, None].expand_as(weight)


def nearest_of(kind: Format, x: Floats) -> Floats:
    """Of all that the format has, the nearest."""
    if kind is FP8:
        codes = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float64)
        values = np.unique(codes[np.isfinite(codes)])
    else:
        values = np.arange(kind.least, kind.largest + 1)
    found: Floats = values[np.abs(x[..., None] - values).argmin(-1)]
    return found


@pytest.mark.parametrize("kind", [INT8, INT4, FP8], ids=["int8", "int4", "fp8"])
def test_formats_are_rounded_to_where_least_squares_wants_them(kind: Format) -> None:
    weight, inputs = random(4, 96, seed=5), correlated(400, 96)
    scale, each = by_format(kind, weight, inputs)
    found = round_weight(weight, inputs, scale, kind)
    assert found.steps.dtype == kind.dtype
    sizes, products = each.double().numpy(), damped_products(inputs[:350])
    error, left = np.zeros((4, 96)), [int(i) for i in np.argsort(-np.diag(products))]
    steps = np.zeros((4, 96))
    while left:
        wish = wished(products, left, error)
        now = left.pop(0)
        wanted = weight.double().numpy()[:, now]
        # Errors of the rounded are made up for where the step counts, in the weight's own unit.
        steps[:, now] = nearest_of(kind, (wanted - wish) / sizes[:, now])
        error[:, now] = wanted - steps[:, now] * sizes[:, now]
    np.testing.assert_array_equal(found.steps.double().numpy(), steps)
    plain = round_weight(weight, None, scale, kind)
    other = nearest_of(kind, weight.double().numpy() / sizes)
    np.testing.assert_array_equal(plain.steps.double().numpy(), other)
    assert (other != steps).mean() > 0.1


@pytest.mark.parametrize(("kind", "gain"), [(INT4, 0.5), (FP8, 0.5)], ids=["int4", "fp8"])
def test_formats_gain_by_it(kind: Format, gain: float) -> None:
    weight, inputs = 0.02 * random(40, 192), correlated(2048, 192)
    scale, each = by_format(kind, weight, inputs)
    kept = [round_weight(weight, x, scale, kind).steps.float() * each for x in (inputs, None)]
    for seen in (inputs, correlated(500, 192, seed=9)):
        new, old = (((seen @ (weight - one).t()) ** 2).sum() for one in kept)
        assert new < gain * old
