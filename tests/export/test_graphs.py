"""The ONNX graphs against the modules they were traced from, at sizes they were not traced with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from murank.backends.onnx.session import Session, SessionSettings
from murank.engine.golden import golden_scorer
from murank.folder.contents import EngineFiles
from murank.folder.manifest import read_manifest
from murank.folder.precision import INTEGER, Precision
from murank.images import Preprocessing
from murank.prompt import default_template
from murank_export.graphs.decoder import Decoder
from murank_export.graphs.onnx_file import decoder_names
from murank_export.graphs.vision import VisionTower
from murank_export.mllm.activations import collect_activations
from murank_export.mllm.checkpoint import load_checkpoint
from murank_export.mllm.tokens import prompt_tokens

FAMILIES = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"]
CPU = SessionSettings("cpu")
# queries, candidates, tokens behind the image, tokens of the prefix
SHAPES = [(1, 1, 4, 9), (2, 5, 7, 3), (1, 4, 1, 30), (3, 1, 2, 1)]


@dataclass(frozen=True)
class Pair:
    """One precision of one family: graphs and modules."""

    vision: Session
    decoder: Session
    tower: VisionTower
    module: Decoder

    def tokens(self, count: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Vision tokens of random images, by graph and by module."""
        shape = (count, 3, *self.vision._session.get_inputs()[0].shape[2:])
        images = np.random.default_rng(count).integers(0, 256, shape, dtype=np.uint8)
        (found,) = self.vision.run({"images": images}, ["tokens"])
        with torch.inference_mode():
            return found.numpy(), self.tower(torch.from_numpy(images)).numpy()

    def logits(self, shape: Sequence[int]) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
        """All outputs of the decoder on random inputs, by graph and by module."""
        queries, candidates, behind, prefix = shape
        levels, tokens, hidden = self.decoder._session.get_inputs()[0].shape[2:]
        generator = torch.Generator().manual_seed(prefix)

        def noise(*size: int) -> torch.Tensor:
            return torch.randn(size, generator=generator)

        vision = noise(queries, candidates, levels, tokens, hidden)
        text = noise(behind, hidden)
        positions = torch.randint(0, 40, (3, tokens + behind), generator=generator)
        cache = (queries, self.module.kv_heads, prefix, self.module.head_dim)
        past = [noise(*cache) for _ in range(2 * self.module.num_layers)]
        names, outputs = decoder_names(self.module.num_layers)
        half = self.decoder._session.get_inputs()[0].type == "tensor(float16)"
        feeds: dict[str, NDArray[Any]] = {}
        for name, value in zip(names, [vision, text, positions, *past], strict=True):
            array = value.numpy()
            feeds[name] = array.astype(np.float16) if half and name != "position_ids" else array
        found = [value.numpy() for value in self.decoder.run(feeds, outputs)]
        with torch.inference_mode():
            return found, [v.numpy() for v in self.module(vision, text, positions, past)]


Pairs = Callable[[str, Precision], Pair]


@pytest.fixture(scope="module")
def pairs(checkpoint: Callable[[str], Path], engine_folder: Callable[..., Path]) -> Pairs:
    made: dict[tuple[str, Precision], Pair] = {}

    def of(family: str, precision: Precision) -> Pair:
        if (family, precision) not in made:
            folder = engine_folder(family, "prefix_first", precision) / "onnx"
            loaded = load_checkpoint(checkpoint(family))
            grid, size = loaded.grid(None)
            tokens = prompt_tokens(loaded, default_template(), "prefix_first")
            how = Preprocessing(*size, "bicubic")
            is_float = precision not in INTEGER
            inputs = None if is_float else collect_activations(loaded, tokens, grid, how)
            visual = loaded.model.model.visual
            # Half precision is judged by what float32 gives.
            as_traced: Precision = "fp32" if precision == "fp16" else precision
            tower = VisionTower(visual, grid, as_traced, inputs, mean=loaded.mean, std=loaded.std)
            scorer = read_manifest(folder.parent).scorer
            assert scorer is not None
            answers = (scorer.answer_ids.no, scorer.answer_ids.yes)
            module = Decoder(loaded.model, answers, as_traced, inputs)
            made[family, precision] = Pair(
                Session(folder / "vision.onnx", CPU), Session(folder / "decoder.onnx", CPU),
                tower.eval(), module.eval(),
            )  # fmt: skip
        return made[family, precision]

    return of


def onnx_operator(
    name: str, inputs: Sequence[torch.Tensor], _attributes: object = None, **_type: object
) -> torch.Tensor:
    """What PyTorch has no operator for."""
    if name == "QuantizeLinear":
        rows, scale, zero = inputs
        return (torch.round(rows / scale[:, None]) + zero[:, None]).to(torch.uint8)
    assert name == "MatMulInteger"
    steps, weight, zero = inputs
    return torch.matmul(steps.int() - zero.int(), weight.int())


def assert_near(found: NDArray[Any], wanted: NDArray[Any], tolerance: float) -> None:
    assert found.shape == wanted.shape
    scale = max(1.0, float(np.abs(wanted).max()))
    np.testing.assert_allclose(found / scale, wanted / scale, atol=tolerance, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_float32(pairs: Pairs, family: str) -> None:
    pair = pairs(family, "fp32")
    for count in (1, 2, 9):
        assert_near(*pair.tokens(count), 1e-5)
    for shape in SHAPES:
        for found, wanted in zip(*pair.logits(shape), strict=True):
            assert found.dtype == np.float32
            assert_near(found, wanted, 1e-5)


def test_float16_is_near_float32(pairs: Pairs) -> None:
    pair = pairs("qwen2_vl", "fp16")
    for count in (1, 5):
        found, wanted = pair.tokens(count)
        assert found.dtype == np.float16
        assert_near(found, wanted, 5e-3)
    for shape in SHAPES:
        found_all, wanted_all = pair.logits(shape)
        assert [x.dtype for x in found_all[:2]] == [np.float32, np.float16]
        for found, wanted in zip(found_all, wanted_all, strict=True):
            assert_near(found, wanted, 1e-2)


def test_int8_is_the_quantised_module(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here and there a rounding tips over: one step of one activation."""
    pair = pairs("qwen2_vl", "int8")
    monkeypatch.setattr(torch.onnx.ops, "symbolic", onnx_operator)
    results = [pair.tokens(count) for count in (1, 5)]
    for shape in SHAPES:
        (logits, *found_cache), (wanted_logits, *wanted_cache) = pair.logits(shape)
        assert_near(logits, wanted_logits, 3e-2)
        results += zip(found_cache, wanted_cache, strict=True)
    for found, wanted in results:
        assert found.dtype == np.float32
        assert_near(found, wanted, 3e-2)
        assert np.median(np.abs(found - wanted)) < 1e-5


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_pair_does_not_depend_on_those_beside_it(
    engine_folder: Callable[..., Path], precision: Precision
) -> None:
    """Within what `Engine` promises."""
    folder = engine_folder("qwen2_vl", "prefix_first", precision)
    part = read_manifest(folder).scorer
    assert part is not None
    scorer = golden_scorer(EngineFiles(folder), part, CPU)
    shape = (12, 3, part.preprocessing.height, part.preprocessing.width)
    images = list(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    images += [np.zeros_like(images[0]), np.full_like(images[0], 255)]  # outliers beside the rest
    query, candidates = images[0], images[1:]
    alone = np.concatenate([scorer.logits(query, [image]) for image in candidates])
    together = [scorer.logits(query, candidates), scorer.logits(query, candidates[::-1])[::-1]]
    other = [*candidates[1:], candidates[0]]
    together.append(scorer.logits_of_many([query, images[5]], [candidates, other])[0])
    promised = 2e-3 if precision == "fp16" else 1e-5
    for logits in together:
        difference = np.abs(scorer.mu(logits) - scorer.mu(alone))
        assert difference.max() <= promised
    assert np.ptp(scorer.mu(alone)) > 100 * promised or precision == "fp16"


def test_the_prefix_is_never_copied_for_the_candidates(engine_folder: Callable[..., Path]) -> None:
    """K/V of the prefix go into products as they are; only what is returned is made of them.

    An Expand, Tile or Gather on the way, or a Concat with the candidates' own, would be copies.
    """
    graph = onnx.load(engine_folder() / "onnx" / "decoder.onnx", load_external_data=False).graph
    returned = {value.name for value in graph.output}
    past = [value.name for value in graph.input if value.name.startswith("past_")]
    assert past
    for name in past:
        users = [n for n in graph.node if name in n.input and n.op_type != "Shape"]
        turned = [node.output[0] for node in users if node.op_type == "Transpose"]
        users += [node for node in graph.node if set(turned) & set(node.input)]
        kinds = [node.op_type for node in users]
        assert set(kinds) <= {"Transpose", "MatMul", "Concat"}
        assert kinds.count("MatMul") == 1
        assert [n.output[0] for n in users if n.op_type == "Concat"] == [
            name.replace("past_", "present_")
        ]
        assert name.replace("past_", "present_") in returned
