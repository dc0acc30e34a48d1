"""What the scripts of benchmarks/ must not do with what they are given."""

import sys

import end_to_end
import numpy as np
import onnx
import precision
import pytest
from numpy.typing import NDArray


def test_log_odds_are_finite_where_float32_is_full() -> None:
    mu = np.array([0.0, 1e-30, 0.25, 1 - 2**-24, 1.0], np.float32)
    found = precision._log_odds(mu)
    assert np.isfinite(found).all()
    exact = mu[1:4].astype(float)
    assert found[1:4] == pytest.approx(np.log(exact) - np.log1p(-exact))
    assert found[4] == found[3]
    assert found[0] < found[1]


def test_each_round_has_queries_that_nobody_asked_before() -> None:
    for model, count in end_to_end._ASKED.items():
        most = end_to_end.most_rounds(model)
        # The last query warms up.
        assert most * count <= end_to_end.QUERIES - 1 < (most + 1) * count


@pytest.mark.parametrize("rounds", ["0", "-1", "11"])
def test_rounds_beyond_the_queries_are_refused(
    rounds: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(end_to_end, "prepare", None)
    monkeypatch.setattr(sys, "argv", ["end_to_end.py", "--rounds", rounds])
    with pytest.raises(SystemExit, match="2"):
        end_to_end.main()
    assert f"--rounds must be in 1..9, got {rounds}" in capsys.readouterr().err


def bf16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to the nearest bfloat16, ties to even, by the bits."""
    bits = values.view(np.uint32).astype(np.int64)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16
    return rounded.astype(np.uint32).view(np.float32)


def test_products_that_round_as_bf16_ones_do() -> None:
    runtime = pytest.importorskip("onnxruntime")
    shapes = {"a": [3, 4], "b": [4, 5], "c": [3, 5]}
    ports = {
        name: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    }
    product = onnx.helper.make_node("MatMul", ["a", "b"], ["c"])
    graph = onnx.helper.make_graph(
        precision._rounding(product), "product", [ports["a"], ports["b"]], [ports["c"]]
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9
    )
    random = np.random.default_rng(0)
    a, b = (random.standard_normal(shapes[name]).astype(np.float32) for name in "ab")
    session = runtime.InferenceSession(model.SerializeToString())
    (found,) = session.run(None, {"a": a, "b": b})
    exact = bf16(a).astype(np.float64) @ bf16(b).astype(np.float64)
    np.testing.assert_array_equal(found, bf16(found))
    # Half a step of eight bits of mantissa, and the sums' own rounding.
    np.testing.assert_allclose(found, exact, rtol=2.0**-8, atol=1e-6)
    assert (found != a @ b).any()
    other = onnx.helper.make_node("Softmax", ["a"], ["c"])
    assert precision._rounding(other) == [other]


def test_a_precision_that_the_machine_lacks_has_a_row() -> None:
    table = precision.rank_table({"OpenVINO bf16": "this CPU has no bf16"})
    head, _, row = table.splitlines()
    assert row.startswith("| OpenVINO bf16 | not here: this CPU has no bf16 |")
    assert head.count("|") == row.count("|")
