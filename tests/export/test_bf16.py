"""bfloat16 engines: what their graphs are made of, and what they are measured by."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from longer import longer
from onnx import TensorProto
from random_checkpoint import SIZES
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch_file
from safetensors.torch import save_file as save_torch_file
from typed_graph import BF16, FLOAT, HALF, part_of, round_to_bfloat16, typed

from murank.cli import main
from murank.engine.golden import golden_log_odds
from murank.folder.integrity import check_engine
from murank_export.engine.parity import scorer_on_cpu

FAMILIES = ["qwen2_vl", *longer("qwen2_5_vl", "qwen3_vl")]  # an export takes long
# Operators that onnxruntime's CUDA provider has for bfloat16 at opset 18 (docs/OperatorKernels.md).
ON_CUDA = {
    "Add", "Cast", "Concat", "Div", "Erf", "Expand", "Gather", "LayerNormalization", "MatMul",
    "Mul", "Pow", "Reshape", "Sigmoid", "Slice", "Split", "Tanh", "Transpose", "Unsqueeze",
}  # fmt: skip
EngineFolder = Callable[..., Path]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(family: str, engine_folder: EngineFolder) -> Path:
    return engine_folder(family, "prefix_first", "bf16")


def test_the_host_sees_float32_and_keys_and_values_are_bfloat16(folder: Path) -> None:
    vision, decoder = (typed(folder / "onnx" / f"{name}.onnx") for name in ("vision", "decoder"))
    assert vision.types["images"] == TensorProto.UINT8
    assert {name: decoder.types[name] for name in ("vision", "text", "logits")} == {
        "vision": FLOAT, "text": FLOAT, "logits": FLOAT,
    }  # fmt: skip
    assert vision.types["tokens"] == FLOAT
    cached = [name for name in decoder.types if name.startswith(("past_", "present_"))]
    assert len(cached) == 4 * part_of(folder).shapes.layers
    assert decoder.kinds(cached) == {BF16}


def test_float32_products_are_those_of_scores_and_answer(folder: Path, family: str) -> None:
    """All others are bfloat16, with bfloat16 weights, and nothing at all is float16."""
    layers, depth = part_of(folder).shapes.layers, SIZES[family]["depth"]
    for name, scores, answers in (("vision", depth, 0), ("decoder", 2 * layers, 1)):
        graph = typed(folder / "onnx" / f"{name}.onnx")
        assert HALF not in graph.types.values()
        wide = [
            node for node in graph.graph.node
            if node.op_type == "MatMul" and graph.types[node.output[0]] == FLOAT
        ]  # fmt: skip
        weights = {one.name: one for one in graph.graph.initializer}
        heads = [node for node in wide if set(node.input) & set(weights)]
        assert [list(weights[node.input[1]].dims[1:]) for node in heads] == [[2]] * answers
        assert len(wide) == scores + answers
        for node in wide:
            if node not in heads:  # both sides were bfloat16
                for source in node.input:
                    cast = graph.comes_from(source, {"Transpose", "Reshape"})
                    assert cast is not None
                    assert cast.op_type == "Cast"
                    assert graph.kinds(cast.input) == {BF16}
        products = [node for node in graph.graph.node if node.op_type == "MatMul"]
        assert all(len(graph.kinds([*node.input, *node.output])) == 1 for node in products)
        multiplied = [
            weights[node.input[1]] for node in products
            if node.input[1] in weights and node not in heads
        ]  # fmt: skip
        assert len(multiplied) >= 6 * (depth if name == "vision" else layers)
        assert {one.data_type for one in multiplied} == {BF16}


def test_softmax_and_means_are_float32(folder: Path) -> None:
    for name in ("vision", "decoder"):
        graph = typed(folder / "onnx" / f"{name}.onnx")
        careful = [n for n in graph.graph.node if n.op_type in ("Softmax", "ReduceMean", "Sqrt")]
        assert careful
        assert {graph.types[node.output[0]] for node in careful} == {FLOAT}


def test_what_is_bfloat16_runs_on_cuda(folder: Path) -> None:
    for name in ("vision", "decoder"):
        graph = typed(folder / "onnx" / f"{name}.onnx")
        asked = {
            node.op_type for node in graph.graph.node
            if BF16 in graph.kinds([*node.input, *node.output])
        }  # fmt: skip
        assert {"MatMul", "Cast"} < asked
        assert asked - {"Shape"} <= ON_CUDA


def test_the_prompt_is_float32_of_exact_bfloat16(folder: Path) -> None:
    prompt = load_file(folder / "prompt.safetensors")
    floats = {name: array for name, array in prompt.items() if array.dtype != np.int64}
    assert set(prompt) - set(floats) == {"prefill_positions", "suffix_positions"}
    for array in floats.values():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, round_to_bfloat16(array))
        assert np.ptp(array) > 0


def test_golden_answers_and_parity_come_from_the_emulation(folder: Path) -> None:
    manifest = check_engine(folder)  # so that nothing of it is left in the folder
    assert manifest.precision == "bf16"
    assert set(manifest.files) == {
        "golden.safetensors", "onnx/decoder.onnx", "onnx/decoder.onnx.data", "onnx/vision.onnx",
        "onnx/vision.onnx.data", "parity.json", "prompt.safetensors",
    }  # fmt: skip
    golden = load_file(folder / "golden.safetensors")
    with scorer_on_cpu(folder, part_of(folder), "bf16") as scorer:
        again = golden_log_odds(scorer, golden["query"], golden["candidates"])
    np.testing.assert_allclose(again, golden["log_odds"], rtol=0, atol=1e-6)
    said = json.loads((folder / "parity.json").read_text())["scorer"]
    assert said["measured_on"] == (
        "CPUExecutionProvider, an emulation: float32, each result rounded to bfloat16"
    )
    assert 1e-4 < said["max_abs_mu"] < 0.1
    check_engine(folder)


def test_activations_beyond_float16(
    checkpoint: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What bfloat16 is for: refused in float16, exported with answers near float32's."""
    source = Path(shutil.copytree(checkpoint("qwen2_vl"), tmp_path / "mllm"))
    tensors = load_torch_file(source / "model.safetensors")
    tensors["model.layers.0.mlp.down_proj.weight"] *= 1e5
    save_torch_file(tensors, source / "model.safetensors", {"format": "pt"})
    arguments = ["--mllm", str(source), "--layout", "prefix_first", "--parity-pairs", "3"]
    output = tmp_path / "engine"
    assert main(["export", "-o", str(output), *arguments, "--dtype", "fp16"]) == 2
    assert "--dtype bf16" in capsys.readouterr().err
    assert not output.exists()
    assert main(["export", "-o", str(output), *arguments, "--dtype", "bf16", "--quiet"]) == 0
    said = json.loads((output / "parity.json").read_text())["scorer"]
    assert said["largest_activation"] > 1e5
    assert said["max_abs_mu"] < 0.05
