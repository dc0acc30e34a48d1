"""The engine against the PyTorch model's whole two-image prompts: three families, two layouts."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from full_prompt import FullPrompt
from numpy.typing import NDArray

from murank import Engine
from murank.images import load_image, to_pixels
from murank.prompt import Layout

FAMILIES = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"]
Crops = list[NDArray[np.uint8]]
Case = tuple[Engine, FullPrompt]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=["paper", "prefix_first"])
def case(
    request: pytest.FixtureRequest,
    family: str,
    checkpoint: Callable[[str], Path],
    engine_folder: Callable[..., Path],
) -> Case:
    layout: Layout = request.param
    folder = engine_folder(family, layout)
    template = json.loads((folder / "manifest.json").read_text())["scorer"]["template"]
    engine = Engine.from_pretrained(folder, providers="cpu")
    return engine, FullPrompt(checkpoint(family), family, template, layout)


def pixels(engine: Engine, images: Crops) -> list[NDArray[np.uint8]]:
    part = engine.manifest.scorer
    assert part is not None
    return [to_pixels(load_image(image), part.preprocessing) for image in images]


def logits(engine: Engine, query: NDArray[np.uint8], candidates: Crops) -> NDArray[np.float32]:
    scorer = engine.scorer
    assert scorer is not None
    return scorer.logits(pixels(engine, [query])[0], pixels(engine, candidates))


@pytest.mark.parametrize("count", [1, 3, 32])
def test_batches(case: Case, crops: Crops, count: int) -> None:
    engine, oracle = case
    found = logits(engine, crops[0], crops[1 : 1 + count])
    checked = sorted({0, count // 2, count - 1})
    wanted = oracle.logits(crops[0], [crops[1 + place] for place in checked])
    assert found.shape == (count, 2)
    np.testing.assert_allclose(found[checked], wanted, atol=1e-4, rtol=0)
    assert np.ptp(wanted) > 0.01  # a prompt without images would give equal rows


def test_two_queries_at_once(case: Case, crops: Crops) -> None:
    engine, oracle = case
    scorer = engine.scorer
    assert scorer is not None
    queries, rows = pixels(engine, crops[:2]), [pixels(engine, crops[i : i + 3]) for i in (2, 9)]
    found = scorer.logits_of_many(queries, rows)
    for query, start in ((0, 2), (1, 9)):
        wanted = oracle.logits(crops[query], crops[start : start + 3])
        np.testing.assert_allclose(found[query], wanted, atol=1e-4, rtol=0)


def test_queries_that_were_prefilled_apart_and_are_scored_together(
    case: Case, crops: Crops
) -> None:
    engine, oracle = case
    scorer = engine.scorer
    assert scorer is not None
    batches = [
        (scorer.decoder.prefill(scorer.vision.of(pixels(engine, [crops[query]]))),
         scorer.vision.of(pixels(engine, crops[start : start + count])))
        for query, start, count in ((0, 2, 3), (1, 9, 2))
    ]  # fmt: skip
    found = scorer.logits_together(batches)
    for (query, start, count), logits in zip(((0, 2, 3), (1, 9, 2)), found, strict=True):
        wanted = oracle.logits(crops[query], crops[start : start + count])
        np.testing.assert_allclose(logits, wanted, atol=1e-4, rtol=0)


def test_swapped(case: Case, crops: Crops) -> None:
    engine, oracle = case
    scorer = engine.scorer
    assert scorer is not None
    query, *candidates = pixels(engine, crops[:3])
    found = scorer.swapped_logits(query, candidates)
    wanted = np.concatenate([oracle.logits(crops[place], crops[:1]) for place in (1, 2)])
    np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=0)


def test_mu_is_the_probability_of_no(case: Case, crops: Crops) -> None:
    engine, oracle = case
    wanted = oracle.logits(crops[0], crops[1:4]).astype(np.float64)
    swapped = np.concatenate([oracle.logits(crops[i], crops[:1]) for i in (1, 2, 3)])
    probabilities = [np.exp(x)[:, 0] / np.exp(x).sum(1) for x in (wanted, swapped)]
    for order, mu in (("given", probabilities[0]), ("both", np.mean(probabilities, axis=0))):
        found = engine.mu(crops[0], crops[1:4], order=order)  # type: ignore[arg-type]
        np.testing.assert_allclose(found, mu, atol=3e-5, rtol=0)
