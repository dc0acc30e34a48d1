"""Q/DQ layers, run by onnxruntime, against arithmetic in NumPy on steps that ml_dtypes makes."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from murank.backends.onnx.session import Session, SessionSettings
from murank.folder.precision import Precision
from murank_export.graphs.layers import Inputs, Linear, project, take_linear
from murank_export.graphs.onnx_file import _export
from murank_export.graphs.rounding import FP8, INT8
from murank_export.graphs.scales import as_float16, input_scale, int4_scale, int8_scale

Floats = NDArray[np.float32]
CPU = SessionSettings("cpu")
STATIC: tuple[Precision, ...] = ("int8-qdq", "fp8")
QDQ: tuple[Precision, ...] = (*STATIC, "int4")
STEPS = {"int8-qdq": np.int8, "fp8": ml_dtypes.float8_e4m3fn}
LARGEST = {"int8-qdq": 127, "fp8": 448}


def layer(inputs: int, outputs: int, *, bias: bool = True, seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    made = nn.Linear(inputs, outputs, bias=bias)
    nn.init.normal_(made.weight, std=0.2)
    return made


def rows(count: int, width: int, seed: int = 0) -> torch.Tensor:
    """Inputs of very different size by channel."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.linspace(-1, 1, width).exp()
    return (torch.randn(count, width, generator=generator) * size).bfloat16()


class Shared(nn.Module):
    """Two layers that read the same activations."""

    def __init__(self, one: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.one, self.other = one, other

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(project(x, [self.one, self.other]))


def graph(module: nn.Module, inputs: int, file: Path, outputs: int = 1) -> onnx.ModelProto:
    example = torch.randn(2, 3, inputs).half()
    free = {axis: torch.export.Dim(name, min=1, max=64) for axis, name in enumerate("ab")}
    _export(module, (example,), file, ["x"], ["y", "z"][:outputs], (free,))
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    return model


def held(model: onnx.ModelProto, name: str) -> NDArray[Any]:
    (found,) = (w for w in model.graph.initializer if w.name == name)
    return np.asarray(onnx.numpy_helper.to_array(found))


def nodes(model: onnx.ModelProto, kind: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == kind]


def is_constant(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    return node.input[0] in {w.name for w in model.graph.initializer}


def weight_node(model: onnx.ModelProto) -> onnx.NodeProto:
    (found,) = (n for n in nodes(model, "DequantizeLinear") if is_constant(model, n))
    return found


def dequantised(x: Floats, step: float, precision: Precision) -> Floats:
    """Activations as the nearest steps; ties to even, and no larger than the largest."""
    steps = np.clip(
        x / np.float32(step), -128 if precision == "int8-qdq" else -448, LARGEST[precision]
    )
    if precision == "int8-qdq":
        steps = np.rint(steps)
    found: Floats = steps.astype(STEPS[precision]).astype(np.float32) * np.float32(step)
    return found


@pytest.mark.parametrize("precision", STATIC)
@pytest.mark.parametrize("bias", [True, False])
def test_static_layers_multiply_steps(tmp_path: Path, bias: bool, precision: Precision) -> None:
    made, given = layer(96, 40, bias=bias), rows(300, 96)
    shift = made.bias.detach().numpy().copy() if bias else 0
    exact = made.weight.detach().numpy().copy()
    model = graph(take_linear(made, precision, {made: given}), 96, tmp_path / "layer.onnx")
    node = weight_node(model)
    steps, scale = held(model, node.input[0]), held(model, node.input[1])
    assert [steps.dtype, scale.dtype] == [np.dtype(STEPS[precision]), np.dtype(np.float16)]
    assert scale.shape == ((40,) if precision == "int8-qdq" else ())
    weight = steps.astype(np.float32) * scale.astype(np.float32)
    coarsest = 1.0 if precision == "int8-qdq" else 32.0  # the largest of E4M3 lie 32 apart
    assert (np.abs(weight.T - exact) <= 2 * coarsest * scale.astype(np.float32).max()).all()
    (quantise,) = nodes(model, "QuantizeLinear")
    step = held(model, quantise.input[1])
    assert float(step) == np.float16(float(given.abs().max()) / LARGEST[precision])
    x = rows(35, 96, seed=1).float().numpy().reshape(5, 7, 96).astype(np.float16)
    x[0, 0, :3] = 1e3, -1e3, 0  # beyond what was seen
    (found,) = Session(tmp_path / "layer.onnx", CPU).run({"x": x}, ["y"])
    assert found.numpy().dtype == np.float16
    wanted = dequantised(x.astype(np.float32), float(step), precision) @ weight + shift
    # float16 keeps 11 bits, of x / step too: a tie may tip over.
    np.testing.assert_allclose(
        found.numpy(), wanted, atol=4e-3 * float(np.abs(wanted).max()), rtol=0
    )


@pytest.mark.parametrize(("precision", "largest"), [("int8-qdq", 0.03), ("fp8", 0.06)])
def test_static_layers_are_near_float_arithmetic(
    tmp_path: Path, precision: Precision, largest: float
) -> None:
    made, given = layer(256, 128), rows(2048, 256)
    weight, bias = made.weight.detach().numpy().copy(), made.bias.detach().numpy().copy()
    graph(take_linear(made, precision, {made: given}), 256, tmp_path / "layer.onnx")
    x = rows(40, 256, seed=3).float().numpy().reshape(2, 20, 256)
    (found,) = Session(tmp_path / "layer.onnx", CPU).run({"x": x.astype(np.float16)}, ["y"])
    wanted = x @ weight.T + bias
    assert np.abs(found.numpy() - wanted).max() < largest * np.abs(wanted).max()


@pytest.mark.parametrize("precision", STATIC)
def test_what_several_layers_read_is_quantised_once(tmp_path: Path, precision: Precision) -> None:
    one, other, given = layer(64, 24), layer(64, 16, seed=1), rows(200, 64)
    inputs: Inputs = {one: given, other: given}
    blocks = [take_linear(made, precision, inputs) for made in (one, other)]
    assert not inputs
    model = graph(Shared(*blocks), 64, tmp_path / "shared.onnx", outputs=2)
    (quantise,) = nodes(model, "QuantizeLinear")
    (activation,) = (n for n in nodes(model, "DequantizeLinear") if not is_constant(model, n))
    assert list(activation.input[1:]) == list(quantise.input[1:])  # one scale, one zero
    products = nodes(model, "MatMul")
    assert [n.input[0] for n in products] == [activation.output[0]] * 2
    x = rows(6, 64).half().reshape(2, 3, 64).numpy()
    found = Session(tmp_path / "shared.onnx", CPU).run({"x": x}, ["y", "z"])
    for block, result in zip(blocks, found, strict=True):
        graph(block, 64, tmp_path / "alone.onnx")
        (alone,) = Session(tmp_path / "alone.onnx", CPU).run({"x": x}, ["y"])
        np.testing.assert_array_equal(result.numpy(), alone.numpy())


@pytest.mark.parametrize(("width", "block"), [(256, 128), (192, 64), (64, 64), (384, 128)])
def test_int4_blocks(tmp_path: Path, width: int, block: int) -> None:
    made, given = layer(width, 48), rows(400, width)
    exact, bias = made.weight.detach().numpy().copy(), made.bias.detach().numpy().copy()
    file = tmp_path / "layer.onnx"
    model = graph(take_linear(made, "int4", {made: given}), width, file)
    node = weight_node(model)
    assert {a.name: a.i for a in node.attribute} == {"axis": 0, "block_size": block}
    steps, scale = held(model, node.input[0]), held(model, node.input[1])
    assert steps.dtype == ml_dtypes.int4
    assert scale.dtype == np.float16
    assert scale.shape == (width // block, 48)
    each = np.repeat(scale.astype(np.float32), block, 0)
    weight = steps.astype(np.float32) * each
    assert np.ptp(steps.astype(int)) == 15
    assert not nodes(model, "QuantizeLinear")  # activations stay as they are
    x = rows(6, width).half().reshape(2, 3, width)
    (found,) = Session(file, CPU).run({"x": x.numpy()}, ["y"])
    wanted = x.float().numpy() @ weight + bias
    np.testing.assert_allclose(found.numpy(), wanted, atol=2e-3 * np.abs(wanted).max(), rtol=0)
    true = x.float().numpy() @ exact.T + bias
    assert np.abs(wanted - true).max() < 0.15 * np.abs(true).max()


def test_int4_weights_fill_half_a_byte_each(tmp_path: Path) -> None:
    made = layer(512, 256, bias=False)
    graph(take_linear(made, "int4"), 512, tmp_path / "layer.onnx")
    size = sum(file.stat().st_size for file in tmp_path.glob("layer.onnx*"))
    weights, scales = 512 * 256 // 2, 2 * 4 * 256
    assert weights + scales <= size < weights + scales + 8192


@pytest.mark.parametrize("width", [48, 96])
def test_int4_leaves_what_no_block_divides(tmp_path: Path, width: int) -> None:
    """TensorRT's blocks are of 64 or 128."""
    made = layer(width, 8)
    weight = made.weight.detach().half().t().clone()
    inputs: Inputs = {made: rows(50, width)}
    block = take_linear(made, "int4", inputs)
    assert isinstance(block, Linear)
    assert torch.equal(block.weight, weight)
    assert not inputs
    model = graph(block, width, tmp_path / "layer.onnx")
    assert not nodes(model, "DequantizeLinear")
    assert model.opset_import[0].version == 18


@pytest.mark.parametrize("precision", QDQ)
def test_opset_and_rows_of_a_layer(tmp_path: Path, precision: Precision) -> None:
    made, given = layer(64, 30), rows(200, 64)
    inputs: Inputs = {made: given}
    first = take_linear(made, precision, inputs, slice(0, 10), last=False)
    assert made in inputs
    second = take_linear(made, precision, inputs, slice(10, 30))
    assert not inputs
    assert getattr(made, "weight", 0) is None
    model = graph(Shared(first, second), 64, tmp_path / "layer.onnx", outputs=2)
    assert model.opset_import[0].version == 21
    (x,) = (value for value in model.graph.input)
    assert x.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    assert [
        tuple(d.dim_value for d in y.type.tensor_type.shape.dim)[-1] for y in model.graph.output
    ] == [10, 20]


@pytest.mark.parametrize("precision", STATIC)
def test_static_sizes_need_inputs(precision: Precision) -> None:
    with pytest.raises(ValueError, match="needs inputs"):
        take_linear(layer(64, 8), precision)


def test_sizes_of_inputs_are_those_of_float16() -> None:
    given = torch.tensor([[1.0, -3.0], [0.5, 2.0]])
    assert float(input_scale(given, INT8)) == float(torch.tensor(3 / 127).half())
    assert float(input_scale(given, FP8)) == float(torch.tensor(3 / 448).half())
    assert float(input_scale(torch.zeros(2, 3), INT8)) == 2.0**-24  # dead: never divided by zero


def test_sizes_hold_the_largest_even_where_float16_is_coarse() -> None:
    """Smoothed rows may be small: the float16 number nearest to their step is too small by half."""
    torch.manual_seed(0)
    weight = torch.randn(600, 32) * 10 ** torch.linspace(-7, 3, 600)[:, None]
    exact, found = weight.abs().amax(1) / 127, int8_scale(weight)
    assert torch.equal(found, found.half().float())
    assert (found > exact * (1 - 2.0**-11)).all()
    assert (found < exact * (1 + 2.0**-11) + 2.0**-24).all()
    error = (found[:, None] * (weight / found[:, None]).round().clamp(-127, 127) - weight).abs()
    assert (error <= 0.57 * found[:, None]).all()  # half a step, and 127 times 2**-11 at the end
    assert float(as_float16(torch.tensor(0.0))) == 2.0**-24


def test_a_block_is_cut_off_where_that_costs_less() -> None:
    torch.manual_seed(0)
    weight = torch.randn(50, 64)
    found = int4_scale(weight, None, 64)
    whole = weight.abs().amax(1, keepdim=True) / 7

    def cost(scale: torch.Tensor) -> torch.Tensor:
        return ((weight / scale).round().clamp(-8, 7) * scale - weight).square().sum(1)

    assert (found <= whole * 1.001).all()
    assert cost(found).sum() < 0.9 * cost(whole).sum()
    # The largest weight of a block counts for more where its inputs are large.
    heavy = torch.ones(20, 64)
    heavy[:, 5] = 100
    weight[:, 5] = 4
    assert (int4_scale(weight, heavy, 64) >= int4_scale(weight, None, 64)).all()
    assert (int4_scale(weight, heavy, 64) > int4_scale(weight, None, 64)).any()
