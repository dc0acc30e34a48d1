"""The emulation of bfloat16 on CPUs, against ONNX's own operators and PyTorch's bfloat16."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from longer import longer
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from random_checkpoint import SIZES
from typed_graph import BF16, FLOAT, TypedGraph, part_of, round_to_bfloat16, typed

from murank.backends.onnx.session import Session
from murank.engine.golden import resized
from murank.folder.onnx_references import graph_facts
from murank.folder.precision import Precision
from murank.prompt import default_template
from murank_export.engine.golden_images import golden_images
from murank_export.engine.parity import rank_correlation, scorer_on_cpu
from murank_export.graphs.decoder import Decoder
from murank_export.graphs.emulated import EMULATION, emulate_bfloat16
from murank_export.graphs.vision import VisionTower
from murank_export.mllm.checkpoint import load_checkpoint
from murank_export.mllm.prefix import bake_prompt
from murank_export.mllm.tokens import answer_ids, prompt_tokens

FAMILIES = ["qwen2_vl", *longer("qwen2_5_vl", "qwen3_vl")]  # an export takes long
PAIRS = 40
EngineFolder = Callable[..., Path]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(family: str, engine_folder: EngineFolder) -> Path:
    return engine_folder(family, "prefix_first", "bf16")


def test_roundings_that_a_hand_can_follow(tmp_path: Path) -> None:
    """x + 1/256 lies between bfloat16 numbers from 1 on, and nothing above 256 is odd."""
    nodes = [
        helper.make_node("Add", ["x", "w"], ["sum"]),
        helper.make_node("Cast", ["n"], ["whole"], to=BF16),
        helper.make_node("Cast", ["x"], ["wide"], to=FLOAT),
        helper.make_node("Add", ["wide", "f"], ["exact"]),
        helper.make_node("Shape", ["n"], ["shape"]),
        helper.make_node(
            "ConstantOfShape", ["shape"], ["filled"],
            value=helper.make_tensor("value", BF16, [1], bits(0x3FC0), raw=True),  # 1.5
        ),
        helper.make_node("Mul", ["filled", "whole"], ["product"]),
        helper.make_node("Tanh", ["x"], ["tanh"]),  # of Qwen3's tower, as is the next
        helper.make_node("Pow", ["whole", "two"], ["square"]),
    ]  # fmt: skip
    names = {"sum": BF16, "exact": FLOAT, "whole": BF16, "product": BF16}
    names |= {"tanh": BF16, "square": BF16}
    graph = helper.make_graph(
        nodes,
        "graph",
        [
            helper.make_tensor_value_info("x", BF16, ["a"]),
            helper.make_tensor_value_info("n", TensorProto.INT64, ["a"]),
        ],
        [helper.make_tensor_value_info(name, kind, ["a"]) for name, kind in names.items()],
        [
            helper.make_tensor("w", BF16, [1], bits(0x3B80), raw=True),  # 2**-8
            helper.make_tensor("f", FLOAT, [1], [2.0**-8]),
            helper.make_tensor("two", BF16, [1], bits(0x4000), raw=True),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(tmp_path / "graph.onnx"))
    emulate_bfloat16(tmp_path / "graph.onnx", tmp_path / "emulated.onnx")
    x = np.array([1, 1 + 2**-7, 0.5, -1], np.float32)
    feeds = {"x": x, "n": np.array([257, 259, -513, 3], np.int64)}
    found = [
        value.numpy()
        for value in Session(tmp_path / "emulated.onnx", EMULATION).run(feeds, list(names))
    ]
    assert {array.dtype for array in found} == {np.dtype(np.float32)}
    # Halfway goes to the even neighbour; 0.5 and -1 have closer ones.
    assert found[0].tolist() == [1, 1 + 2**-6, 0.5 + 2**-8, -1 + 2**-8]
    assert found[1].tolist() == (x + 2.0**-8).tolist()
    assert found[2].tolist() == [256, 260, -512, 3]
    assert found[3].tolist() == [384, 390, -768, 4.5]
    assert found[4].tolist() == round_to_bfloat16(np.tanh(x)).tolist()
    assert found[5].tolist() == [2.0**16, 2.0**16 + 2.0**11, 2.0**18, 9]  # 260**2 is 65536 + 2064


def bits(pattern: int) -> bytes:
    return np.array([pattern], np.uint16).tobytes()


def test_every_operator_as_onnx_defines_it(family: str, folder: Path, tmp_path: Path) -> None:
    """Each node of the exported graph, alone, in ONNX's own NumPy, given what it is given there.

    Its result, rounded by PyTorch where it is bfloat16, is what comes out of the emulation: the
    same number, or now and then the next one, where a sum of another order lies near the middle.
    """
    shapes = part_of(folder).shapes
    random = np.random.default_rng(0)
    how = part_of(folder).preprocessing
    tokens = (2, 3, shapes.levels, shapes.vision_tokens, shapes.hidden)
    feeds: dict[str, NDArray[Any]] = {
        "images": random.integers(0, 256, (2, 3, how.height, how.width), dtype=np.uint8),
        "vision": random.standard_normal(tokens, np.float32),
        "text": random.standard_normal((4, shapes.hidden), np.float32),
        "position_ids": random.integers(0, 40, (3, shapes.vision_tokens + 4)),
    }
    for layer in range(shapes.layers):
        for kind in ("key", "value"):
            past = random.standard_normal((2, shapes.kv_heads, 6, shapes.head_dim), np.float32)
            feeds[f"past_{kind}_{layer}"] = round_to_bfloat16(past)
    for name, parts in (("vision", SIZES[family]["depth"]), ("decoder", shapes.layers)):
        graph, values = run_with_all_values(folder / "onnx", name, feeds, tmp_path)
        rounded = 0
        for node in graph.graph.node:
            alone = ReferenceEvaluator(node, opsets={"": 18})
            wanted = alone.run(None, {source: values[source] for source in node.input if source})
            for output, array in zip(node.output, wanted, strict=True):
                rounded += graph.types[output] == BF16
                assert_same(values[output], array, graph.types[output] == BF16, node.op_type)
        assert rounded > 30 * parts


def run_with_all_values(
    folder: Path, name: str, feeds: dict[str, NDArray[Any]], tmp_path: Path
) -> tuple[TypedGraph, dict[str, NDArray[Any]]]:
    """Return the exported graph, and what every value is in the emulation of it."""
    for file in folder.glob(f"{name}.onnx*"):
        shutil.copy(file, tmp_path)
    emulated = tmp_path / f"{name}.emulated"
    emulate_bfloat16(tmp_path / f"{name}.onnx", emulated)
    graph = typed(tmp_path / f"{name}.onnx")
    model = onnx.load(str(emulated), load_external_data=False)
    given = {value.name for value in model.graph.input}
    del model.graph.output[:]
    for output in graph.maker:
        kind = FLOAT if graph.types[output] == BF16 else graph.types[output]
        model.graph.output.append(helper.make_tensor_value_info(output, kind, None))
    emulated.write_bytes(model.SerializeToString())
    values = {key: array for key, array in feeds.items() if key in given}
    session = Session(emulated, EMULATION)
    found = session.run(values, list(graph.maker))
    values |= {key: value.numpy() for key, value in zip(graph.maker, found, strict=True)}
    onnx.external_data_helper.load_external_data_for_model(
        whole := onnx.load(str(tmp_path / f"{name}.onnx"), load_external_data=False), str(tmp_path)
    )
    for one in whole.graph.initializer:
        array = onnx.numpy_helper.to_array(one)
        values[one.name] = array.astype(np.float32) if one.data_type == BF16 else array
    return graph, values


def assert_same(
    found: NDArray[Any], wanted: NDArray[Any], is_bfloat16: bool, operator: str
) -> None:
    assert found.shape == wanted.shape, operator
    if not is_bfloat16:
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6, err_msg=operator)
        return
    np.testing.assert_array_equal(found, round_to_bfloat16(found))
    wanted = round_to_bfloat16(wanted)
    assert (found == wanted).mean() > 0.99, operator
    step = np.abs(wanted) * 2.0**-7  # at most, from a bfloat16 number to the next
    assert (np.abs(found - wanted) <= step + 1e-6).all(), operator


@dataclass(frozen=True)
class Answers:
    """Log-odds [K] of the same pairs."""

    emulated: NDArray[np.float64]
    bfloat16: NDArray[np.float64]  # modules in PyTorch
    float32: NDArray[np.float64]


@pytest.fixture(scope="module")
def answers(family: str, folder: Path, checkpoint: Callable[[str], Path]) -> Answers:
    part = part_of(folder)
    images = resized(golden_images(1 + PAIRS, seed=3), part.preprocessing)
    with scorer_on_cpu(folder, part, "bf16") as scorer:
        logits = scorer.logits(images[0], list(images[1:]))
    modules = [asked(checkpoint(family), precision, images) for precision in ("bf16", "fp32")]
    return Answers(*(x[:, 0].astype(np.float64) - x[:, 1] for x in (logits, *modules)))


def asked(source: Path, precision: Precision, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits [K,2], by the modules that are exported."""
    loaded = load_checkpoint(source)
    grid, _ = loaded.grid(None)
    tokens = prompt_tokens(loaded, default_template(), "prefix_first")
    prompt = bake_prompt(loaded.model, tokens, grid, precision)
    visual = loaded.model.model.visual
    tower = VisionTower(visual, grid, precision, mean=loaded.mean, std=loaded.std).eval()
    module = Decoder(loaded.model, answer_ids(loaded.tokenizer), precision).eval()
    with torch.inference_mode():
        vision = tower(torch.from_numpy(images))
        past = [prompt[name].to(module.dtype) for name in prompt if name.startswith("past_")]
        text, positions = prompt["prefill_text"], prompt["prefill_positions"]
        past = list(module(vision[:1, None], text, positions, past)[1:])
        text, positions = prompt["suffix_text"], prompt["suffix_positions"]
        logits: torch.Tensor = module(vision[None, 1:], text, positions, past)[0][0]
    return logits.numpy()


def test_answers_are_as_far_off_as_those_of_pytorch_in_bfloat16(answers: Answers) -> None:
    """Two ways of rounding on the way (PyTorch rounds an activation function once, a graph at each
    of its operators) are two draws of the same error: neither much smaller nor much larger, and
    their difference not larger than both together.
    """
    wanted = rms(answers.bfloat16 - answers.float32)
    assert 0.4 < rms(answers.emulated - answers.float32) / wanted < 2.5
    assert rms(answers.emulated - answers.bfloat16) < 2.5 * wanted
    assert 1e-3 < wanted < 0.2


def rms(x: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.square(x).mean()))


def test_ranks_are_nearly_those_of_float32(answers: Answers) -> None:
    found = rank_correlation(answers.emulated, answers.float32)
    assert found is not None
    assert 0.97 < found < 1  # exactly 1: nothing was rounded


def test_an_emulation_shares_the_weights_and_goes_whatever_happens(folder: Path) -> None:
    before = {path.name for path in (folder / "onnx").iterdir()}

    def measure() -> None:
        with scorer_on_cpu(folder, part_of(folder), "bf16"):
            added = {path for path in (folder / "onnx").iterdir() if path.name not in before}
            assert len(added) == 2
            shared = [graph_facts(path).locations for path in added]
            assert sorted(map(sorted, shared)) == [["decoder.onnx.data"], ["vision.onnx.data"]]
            assert all(path.stat().st_size < 1 << 20 for path in added)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        measure()
    assert {path.name for path in (folder / "onnx").iterdir()} == before
