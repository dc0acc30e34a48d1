"""The miniature: its forward pass, what it was trained on, and whether it is what it says."""

import json
import re
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import torch
from longer import only_longer
from miniature.model import (
    BARE_PROMPT,
    GRID,
    HERE,
    PROMPT,
    Vision,
    ask_many,
    load_base,
    make_base,
    question,
)
from miniature.pool import SIZE
from miniature.recipe import evaluation_world, random_alike, training_world

from murank import Engine
from murank.folder.manifest import engine_sha256
from murank.pairs.labelled import Pair
from murank.prompt import Layout, default_template, load_template
from murank_export import EncoderSettings, ExportSettings, export_engine
from murank_export.mllm.adapter import read_adapter
from murank_export.mllm.checkpoint import load_checkpoint
from murank_export.mllm.merge import apply_adapter
from murank_export.mllm.reference import ask
from murank_export.mllm.tokens import answer_ids, prompt_tokens
from murank_export.world import TRAINING, UNSEEN
from murank_export.world.market import GALLERY, TRAIN, _people

ENGINE, BASE, ADAPTER = HERE / "engine", HERE / "base", HERE / "adapter"


@pytest.mark.parametrize(
    ("prompt", "layout"),
    [(PROMPT, "prefix_first"), (BARE_PROMPT, "prefix_first"), (PROMPT, "paper")],
)
def test_the_quick_forward_pass_is_the_models_own(
    prompt: Path, layout: Layout, tmp_path: Path
) -> None:
    make_base(tmp_path / "base", seed=3)
    checkpoint = load_base(tmp_path / "base")
    asked = question(checkpoint, load_template(prompt), layout)
    images = np.random.default_rng(0).integers(0, 256, (7, 3, *SIZE)).astype(np.uint8)
    with torch.no_grad():
        tokens = Vision(checkpoint)(torch.from_numpy(images))
        candidates = torch.stack([tokens[2:5], tokens[4:7]])
        logits = ask_many(checkpoint.model, asked, tokens[:2], candidates).logits.numpy()
    for row, (query, others) in enumerate([(0, (2, 3, 4)), (1, (4, 5, 6))]):
        wanted = ask(
            checkpoint, asked.tokens, GRID, asked.answers, images[query], list(images[list(others)])
        )
        assert wanted.logits.std() > 0.01  # not all alike
        np.testing.assert_allclose(logits[row], wanted.logits, atol=1e-5)


def test_no_person_is_trained_on_and_tested_with() -> None:
    for seed in range(3):
        world = training_world(seed)
        train = {astuple(one) for one in _people(world, TRAIN, world.train_people)}
        assert len(train) == world.train_people
        for domain in (TRAINING, *UNSEEN):
            tested = evaluation_world(domain, seed)
            assert train.isdisjoint(astuple(p) for p in _people(tested, GALLERY, tested.people))


def test_what_is_shipped_has_seen_no_unseen_domain() -> None:
    record = json.loads((HERE / "miniature.json").read_text())
    of_base = record["domains"].pop("base")
    assert re.fullmatch(r"broad-0 to broad-\d+", of_base)
    assert record["domains"] == {"encoder": [TRAINING], "adapter": [TRAINING]}
    assert record["engine_sha256"] == engine_sha256(ENGINE)
    assert TRAINING not in UNSEEN
    assert not any(name.startswith("broad") for name in UNSEEN)


def test_random_pairs_differ_from_the_mined_in_nothing_but_the_candidate() -> None:
    names = [f"{person:04}_c{camera}.jpg" for person in range(1, 6) for camera in range(1, 5)]
    mined = [Pair(q, c, q[:4] == c[:4]) for q in names for c in names if q != c]
    drawn = random_alike(mined, seed=1)
    assert [(p.query, p.match) for p in drawn] == [(p.query, p.match) for p in mined]
    assert all(p.candidate != p.query for p in drawn)
    assert all((p.query[:4] == p.candidate[:4]) == p.match for p in drawn)
    assert drawn == random_alike(mined, seed=1)
    assert drawn != mined


def test_shipped_size() -> None:
    files = [file for folder in (ENGINE, BASE, ADAPTER) for file in folder.rglob("*")]
    assert sum(file.stat().st_size for file in files) < 15e6


def test_the_shipped_engine_answers_as_base_and_adapter() -> None:
    """As PyTorch, the adapter beside the base's weights: nothing is merged, rounded or exported.

    What rounding the weights changes was measured at export, on other pairs: at most five times it.
    """
    rounded = json.loads((ENGINE / "parity.json").read_text())["scorer"]["max_abs_mu"]
    assert rounded < 2e-3
    engine, checkpoint = Engine.from_pretrained(ENGINE), load_checkpoint(BASE)
    part = engine.manifest.scorer
    assert part is not None
    apply_adapter(checkpoint.model, read_adapter(ADAPTER), lora_alpha=None, lora_rank=None)
    tokens = prompt_tokens(checkpoint, load_template(PROMPT), "prefix_first")
    grid, size = checkpoint.grid((part.preprocessing.height, part.preprocessing.width))
    crops = np.random.default_rng(1).integers(0, 256, (4, *size, 3)).astype(np.uint8)
    pixels = list(crops.transpose(0, 3, 1, 2))
    answers = answer_ids(checkpoint.tokenizer)
    logits = ask(checkpoint, tokens, grid, answers, pixels[0], pixels[1:]).logits
    difference = (logits[:, 1] - logits[:, 0]).astype(np.float64)
    mu = engine.mu(crops[0], list(crops[1:]))
    np.testing.assert_allclose(mu, 1 / (1 + np.exp(difference)), atol=5 * rounded, rtol=0)


@only_longer
def test_base_and_adapter_make_the_shipped_engine(tmp_path: Path) -> None:
    manifest = Engine.from_pretrained(ENGINE).manifest
    assert manifest.scorer is not None
    how = manifest.scorer.preprocessing
    settings = ExportSettings(
        tmp_path / "engine", BASE, adapter=ADAPTER, prompt=PROMPT, layout="prefix_first",
        image_size=(how.height, how.width), precision=manifest.precision,
        encoder_settings=EncoderSettings(), parity_pairs=2,
    )  # fmt: skip
    export_engine(settings)
    crops = np.random.default_rng(1).integers(0, 256, (4, 128, 64, 3)).astype(np.uint8)
    mu = [
        Engine.from_pretrained(e).mu(crops[0], list(crops[1:]))
        for e in (tmp_path / "engine", ENGINE)
    ]
    # Rounding looks at activations, whose last bits depend on the CPU: some weights then fall to
    # the next step. All of them together, rounded, make five times as much at least.
    rounded = json.loads((ENGINE / "parity.json").read_text())["scorer"]["max_abs_mu"]
    np.testing.assert_allclose(mu[0], mu[1], atol=rounded / 5, rtol=0)


def test_its_prompt_is_its_own() -> None:
    manifest = Engine.from_pretrained(ENGINE).manifest
    assert manifest.scorer is not None
    assert manifest.scorer.template_sha256 == load_template(PROMPT).sha256
    assert manifest.scorer.template_sha256 != default_template().sha256
    assert manifest.scorer.layout == "prefix_first"
