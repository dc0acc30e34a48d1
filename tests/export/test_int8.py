"""int8 layers, run by onnxruntime with all its fusions, against integer arithmetic in NumPy."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from murank.backends.onnx import session as _session
from murank.backends.onnx.session import Session, SessionSettings
from murank.folder.precision import INTEGER, Precision
from murank_export.graphs.layers import project, take_linear
from murank_export.graphs.onnx_file import _export

Floats = NDArray[np.float32]
CPU = SessionSettings("cpu")


def steps_of(x: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Whole steps of -127..127 and their size, one for each row."""
    size = np.maximum(np.abs(x).max(-1, keepdims=True), np.float32(1e-12)) / np.float32(127)
    return np.rint(x / size).astype(np.int64), size


def oracle(x: Floats, weight: Floats, bias: Floats | None, precision: Precision) -> Floats:
    """x @ weight.T + bias with one step size for each token and each output."""
    x_steps, x_size = steps_of(x)
    w_steps, w_size = steps_of(weight)
    y: Floats = (x_steps @ w_steps.T).astype(np.float32) * (x_size * w_size[:, 0])
    if precision == "w8a16":
        rest = (x - x_steps.astype(np.float32) * x_size) / (x_size / np.float32(254))
        finer = np.rint(rest).astype(np.int64)
        y = y + (finer @ w_steps.T).astype(np.float32) * (x_size / np.float32(254) * w_size[:, 0])
    return y if bias is None else y + bias


def layer(inputs: int, outputs: int, *, bias: bool = True, seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    made = nn.Linear(inputs, outputs, bias=bias)
    nn.init.normal_(made.weight, std=0.2)
    if bias:
        nn.init.normal_(made.bias)  # as large as the product
    return made


def values(made: nn.Linear) -> tuple[Floats, Floats | None]:
    bias = None if made.bias is None else made.bias.detach().numpy().copy()
    return made.weight.detach().numpy().copy(), bias


def tokens(*shape: int) -> Floats:
    """Activations of very different size from token to token, some of them with an outlier."""
    random = np.random.default_rng(shape[0])
    x = random.standard_normal(shape) * 10.0 ** random.uniform(-3, 3, (*shape[:-1], 1))
    x[0, ..., 3] *= 100
    return x.astype(np.float32)


class Shared(nn.Module):
    """Two layers that read the same activations."""

    def __init__(self, one: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.one, self.other = one, other

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(project(x, [self.one, self.other]))


def graph(module: nn.Module, inputs: int, axes: int, file: Path, outputs: int = 1) -> Session:
    names = ("a", "b", "c")[:axes]
    free = {axis: torch.export.Dim(name, min=1, max=64) for axis, name in enumerate(names)}
    example = torch.randn(*range(2, 2 + axes), inputs)
    results = ["y", "z"][:outputs]
    _export(module, (example,), file, ["x"], results, (free,))
    return Session(file, CPU)


@pytest.mark.parametrize("precision", INTEGER)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", [(64, 40), (33, 7)])
def test_a_layer_is_exact(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sizes: tuple[int, int],
    bias: bool,
    precision: Precision,
) -> None:
    made = layer(*sizes, bias=bias)
    weight, shift = values(made)
    file = tmp_path / "layer.onnx"
    session = graph(take_linear(made, precision), sizes[0], 1, file)
    monkeypatch.setattr(_session, "multiplies_exactly", lambda: False)
    without_vnni = Session(file, CPU)  # weights of uint8, as on older CPUs
    for count in (1, 6, 50):
        x = tokens(count, sizes[0])
        wanted = oracle(x, weight, shift, precision)
        for one in (session, without_vnni):
            (found,) = one.run({"x": x}, ["y"])
            np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_w8_is_its_rounded_weights_in_floats(tmp_path: Path, bias: bool) -> None:
    made = layer(128, 96, bias=bias)  # the exporter itself widens the smallest ones
    weight, shift = values(made)
    file = tmp_path / "layer.onnx"
    session = graph(take_linear(made, "w8"), 128, 1, file)
    stored = {one.name: one for one in onnx.load(str(file)).graph.initializer}
    assert stored["weight"].data_type == onnx.TensorProto.INT8
    steps, size = steps_of(weight)
    wide = (steps * size).astype(np.float32)
    for count in (1, 6):
        x = np.random.default_rng(count).standard_normal((count, 128)).astype(np.float32)
        (found,) = session.run({"x": x}, ["y"])
        wanted = x @ wide.T if shift is None else x @ wide.T + shift
        # 128 products of numbers of about 1 and 0.2 are summed in another order.
        np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=128 * 2.0**-22)


def test_w8_weights_are_widened_once_at_load(tmp_path: Path) -> None:
    file, kept = tmp_path / "layer.onnx", tmp_path / "as_loaded.onnx"
    graph(take_linear(layer(128, 96), "w8"), 128, 1, file)
    assert {"Cast", "Mul"} <= {node.op_type for node in onnx.load(str(file)).graph.node}
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(kept)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    loaded = onnx.load(str(kept)).graph
    assert not {"Cast", "Mul"} & {node.op_type for node in loaded.node}
    assert all(one.data_type == onnx.TensorProto.FLOAT for one in loaded.initializer)


@pytest.mark.parametrize("precision", INTEGER)
def test_layers_that_share_their_input_and_have_many_axes(
    tmp_path: Path, precision: Precision
) -> None:
    one, other = layer(48, 32), layer(48, 16, seed=1)
    expected = [values(one), values(other)]
    module = Shared(take_linear(one, precision), take_linear(other, precision))
    session = graph(module, 48, 3, tmp_path / "shared.onnx", outputs=2)
    for shape in ((1, 1, 1), (4, 2, 7)):
        x = tokens(*shape, 48)
        for found, (weight, bias) in zip(session.run({"x": x}, ["y", "z"]), expected, strict=True):
            wanted = oracle(x, weight, bias, precision)
            np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", INTEGER)
def test_a_token_of_zeros_gives_the_bias(tmp_path: Path, precision: Precision) -> None:
    made = layer(16, 8)
    _, bias = values(made)
    session = graph(take_linear(made, precision), 16, 1, tmp_path / "layer.onnx")
    (found,) = session.run({"x": np.zeros((2, 16), np.float32)}, ["y"])
    np.testing.assert_allclose(found.numpy(), np.stack([bias, bias]))  # type: ignore[list-item]


@pytest.mark.parametrize(("precision", "largest"), [("int8", 0.02), ("w8a16", 0.008)])
def test_near_float_arithmetic_and_a_quarter_of_its_size(
    tmp_path: Path, precision: Precision, largest: float
) -> None:
    made = layer(256, 128)
    weight, bias = values(made)
    assert bias is not None
    session = graph(take_linear(made, precision), 256, 1, tmp_path / "layer.onnx")
    x = np.random.default_rng(0).standard_normal((20, 256)).astype(np.float32)
    (found,) = session.run({"x": x}, ["y"])
    wanted = x @ weight.T + bias
    assert np.abs(found.numpy() - wanted).max() < largest * np.abs(wanted).max()
    model = onnx.load(tmp_path / "layer.onnx")
    held = sum(len(onnx.numpy_helper.to_array(w).tobytes()) for w in model.graph.initializer)
    assert held < weight.nbytes / 4 + 4 * 1024  # scales and bias


@pytest.mark.parametrize("precision", INTEGER)
def test_an_outlier_coarsens_its_own_token_only(tmp_path: Path, precision: Precision) -> None:
    made = layer(64, 32)
    session = graph(take_linear(made, precision), 64, 1, tmp_path / "layer.onnx")
    x = np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32)
    (before,) = session.run({"x": x}, ["y"])
    x[2, 7] = 1e4
    (behind,) = session.run({"x": x}, ["y"])
    others = [0, 1, 3, 4]
    np.testing.assert_array_equal(before.numpy()[others], behind.numpy()[others])


def test_the_second_term_leaves_nothing_but_the_rounding_of_the_weights(tmp_path: Path) -> None:
    made = layer(256, 64)
    weight, bias = values(made)
    assert bias is not None
    steps, size = steps_of(weight)
    session = graph(take_linear(made, "w8a16"), 256, 1, tmp_path / "layer.onnx")
    x = tokens(20, 256)
    (found,) = session.run({"x": x}, ["y"])
    wanted = x @ (steps * size).astype(np.float32).T + bias
    largest = np.abs(x).max(-1, keepdims=True)  # a token's rounding is a share of it
    assert (np.abs(found.numpy() - wanted) < 1e-4 * largest + 1e-5).all()
