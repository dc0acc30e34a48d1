"""Training as a whole: it learns, and it is what is served."""

import copy
import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import other_seeds
import pytest
import torch
from made_pairs import MadePairs
from torch_processes import in_processes
from training_parts import latest, log
from training_parts import made as made

from murank import Engine, InputError, OutputError
from murank.cli import main
from murank.images import Preprocessing, prepare
from murank.pairs.labelled import Pair
from murank.prompt import LAYOUTS, Layout, default_template, load_template
from murank_export import ExportSettings, export_engine
from murank_export.adapt.lora import add_adapter
from murank_export.adapt.question import make_question
from murank_export.adapt.train import train_adapter
from murank_export.adapt.train_settings import TrainSettings
from murank_export.mllm import reference
from murank_export.mllm.adapter import check_image_size, read_adapter
from murank_export.mllm.checkpoint import load_checkpoint
from murank_export.mllm.merge import merge_adapter
from murank_export.mllm.tokens import answer_ids

CPU = torch.device("cpu")


STILL = 1e-6  # a learning rate, of weights that hardly move


def assert_same_gradients(one: TrainSettings, other: TrainSettings) -> None:
    """Of all steps, up to float32's rounding of sums in another order.

    AdamW's first moment is a sum of gradients. The weights are none: where a gradient is nothing
    but rounding, AdamW divides it by its own size, and a step of lr goes either way.
    """
    found, wanted = (latest(settings)["optimizer"]["state"] for settings in (one, other))
    assert found.keys() == wanted.keys()
    largest = max(float(state["exp_avg"].abs().max()) for state in wanted.values())
    assert largest > 1e-3
    for key, state in wanted.items():
        moved = (found[key]["exp_avg"] - state["exp_avg"]).abs().max()
        # Thousands of products a sum, 2^-24 each: 1e-5 of the largest is seldom reached.
        assert moved < 1e-4 * largest


@pytest.mark.parametrize("pack", [1, 4])
def test_it_learns_pairs_by_heart(
    checkpoint: Callable[..., Path], tmp_path: Path, pack: int
) -> None:
    """Whatever the seed, matches come before others, and the loss falls more than by a guess."""
    made = MadePairs(tmp_path, checkpoint("qwen2_vl", "tiny"))  # which a third layer helps
    pairs = made.of(range(2))
    assert len(pairs) == 8
    made.write("train", pairs)
    made.write("val", pairs)
    settings = made.but(pack=pack, batch_size=8, steps=30, eval_every=30, dropout=0.0, lr=5e-3)
    trained = train_adapter(settings)
    assert trained.last.loss < trained.before.loss / 4
    assert trained.best.auc == 1
    assert (trained.before.step, trained.last.step, trained.steps) == (0, 30, 30)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_the_trained_model_is_the_served_model(
    checkpoint: Callable[[str], Path], tmp_path: Path, family: str, layout: Layout,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Same ids and pixels as the reference feeds; same log-odds: applied, merged, packed."""
    size = (64, 32) if family == "qwen3_vl" else (56, 28)
    made = MadePairs(tmp_path, checkpoint(family))
    settings = made.but(layout=layout, image_size=size, steps=3)
    trained = train_adapter(settings)
    assert settings.prompt is not None
    template = load_template(settings.prompt)
    loaded = load_checkpoint(settings.mllm)
    question = make_question(loaded, template, layout, size, CPU)
    group = tuple(
        replace(pair, query=str(made.images / pair.query),
                candidate=str(made.images / pair.candidate))
        for pair in made.of(range(2))[:3]
    )  # fmt: skip
    how = Preprocessing(*size, "bicubic")
    query, *candidates = (
        prepare(path, how).pixels for path in (group[0].query, *(p.candidate for p in group))
    )
    asked = (question.tokens, question.grid, answer_ids(loaded.tokenizer), query, candidates)
    fed: list[dict[str, Any]] = []
    with monkeypatch.context() as patch:
        forward = type(loaded.model).forward

        @functools.wraps(forward)
        def noted(self: Any, *arguments: Any, **named: Any) -> Any:
            fed.append(named)
            return forward(self, *arguments, **named)

        patch.setattr(type(loaded.model), "forward", noted)
        plain = reference.ask(loaded, *asked).logits
    batch = question.batch([group])
    layout_of_one = question._layout(1)
    first = int(layout_of_one.answer_inputs[0, 0])
    assert fed[0]["input_ids"][0].tolist() == layout_of_one.ids[:first].tolist()
    patches = question.grid.num_patches
    for place, inputs in enumerate(fed):
        images = [batch.queries[0], batch.candidates[0, place]]
        rows = [batch.pixels[int(i) * patches : (int(i) + 1) * patches] for i in images]
        assert torch.equal(inputs["pixel_values"], torch.cat(rows))

    adapter = read_adapter(trained.adapter)
    merged = merge_adapter(copy.deepcopy(loaded.model), adapter, lora_alpha=None, lora_rank=None)
    init = replace(settings, init_adapter=trained.adapter, rank=None)
    adapted = add_adapter(loaded, init, adapter).eval()
    with torch.no_grad():
        together = question.log_odds(question.logits(batch))[0].numpy()
        alone = [
            question.log_odds(question.logits(question.batch([(pair,)])))[0, 0].item()
            for pair in group
        ]
    applied = reference.ask(loaded, *asked).logits
    odds = applied[:, 1] - applied[:, 0]
    assert np.abs(odds - (plain[:, 1] - plain[:, 0])).min() > 0.01
    np.testing.assert_allclose(together, odds, atol=1e-4, rtol=0)
    np.testing.assert_allclose(alone, odds, atol=1e-4, rtol=0)
    assert adapted.get_base_model() is loaded.model
    served = reference.ask(replace(loaded, model=merged), *asked).logits
    np.testing.assert_allclose(served[:, 1] - served[:, 0], odds, atol=1e-4, rtol=0)


def test_export_takes_the_adapter(made: MadePairs, tmp_path: Path) -> None:
    """It says its layout and template: no --force is needed, and another layout is refused."""
    # Images as large as those of the other engines: their graphs are there already.
    size = (280, 140)
    settings = made.but(steps=2, eval_every=2, layout="prefix_first", image_size=size)
    trained = train_adapter(settings)
    notes: list[str] = []
    how = ExportSettings(
        tmp_path / "engine", settings.mllm, adapter=trained.adapter, prompt=settings.prompt,
        layout="prefix_first", image_size=settings.image_size, parity_pairs=1,
    )  # fmt: skip
    with pytest.raises(InputError, match="trained with layout prefix_first, not paper"):
        export_engine(replace(how, layout="paper"))
    with pytest.raises(InputError, match="trained with another prompt template"):
        export_engine(replace(how, prompt=None))
    export_engine(how, notes.append)
    told = [note for note in notes if note.startswith("note:")]
    assert all('"Yes" and "No" are' in note for note in told)  # of random weights
    engine = Engine.from_pretrained(tmp_path / "engine", providers="cpu")
    mu = engine.mu(made.images / "0_0.png", [made.images / "0_1.png"])
    assert 0 < mu[0] < 1
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert str(tmp_path).encode() not in (trained.adapter / name).read_bytes()


def test_what_is_written(made: MadePairs) -> None:
    told: list[str] = []
    shown: list[tuple[str, int, int]] = []
    before = torch.random.get_rng_state()
    trained = train_adapter(made.settings, told.append, lambda *one: shown.append(one))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert [line.split(":")[0] for line in told if not line.startswith("note")] == [
        "load checkpoint ...", "hash model and pairs ...",
        "each validation asks about 8 of 8 pairs (--val-pairs N, or all)",
        "step 0", "step 3", "step 6",
    ]  # fmt: skip
    validated = [one[1:] for one in shown if one[0] == "validation pairs"]
    assert validated == [(8, 8)] * 3  # a batch holds them all
    stepped = [one for one in shown if one[0] != "validation pairs"]
    assert [one[1:] for one in stepped] == [(step, 6) for step in range(1, 7)]
    assert shown[0][0] == "validation pairs"
    assert stepped[-1][0].startswith("loss ")
    assert "pairs/s, 0:00:00 left, step" in stepped[-1][0]
    output = made.settings.output
    names = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    assert names == {
        "adapter/adapter_config.json", "adapter/adapter_model.safetensors", "log.jsonl",
        "checkpoint/latest.pt", "training.json",
    }  # fmt: skip
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 3, 4, 5, 6, 6]
    steps, measured = ([line for line in lines if ("val" in line) is val] for val in (False, True))
    assert all(
        line.keys() == {"step", "loss", "lr", "norm", "pairs", "seconds", "pairs_per_s"}
        for line in steps
    )
    assert [line["lr"] for line in steps[::5]] == [1e-2, 1e-6]
    assert [line["pairs"] for line in steps] == [2] * 6
    record = json.loads((output / "training.json").read_text())
    assert record["result"]["best"] == max(
        (line["val"] for line in measured[1:]), key=lambda one: (one["auc"], -one["loss"])
    )
    assert record["result"]["before"] == measured[0]["val"]
    assert record["counts"] == {"train_pairs": 16, "val_pairs": 8}
    assert record["deciding"]["pack"] == 2
    assert record["versions"]["torch"] == torch.__version__
    assert str(made.root) not in json.dumps(record)
    assert trained.adapter == output / "adapter"


def test_accumulated_batches_are_one_large_batch(made: MadePairs) -> None:
    """So is a pack of them, up to rounding: the loss is a mean over a step's tokens."""
    whole = made.but(
        pack=1, batch_size=4, accumulate=1, dropout=0.0, lr=STILL, output=made.root / "whole"
    )
    parts = replace(whole, batch_size=1, accumulate=4, output=made.root / "parts")
    for settings in (whole, parts):
        train_adapter(settings)
    assert_same_gradients(parts, whole)
    losses = [[line["loss"] for line in log(one) if "loss" in line] for one in (whole, parts)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


def test_bfloat16_and_gradient_checkpointing(made: MadePairs) -> None:
    plain, other = made.but(output=made.root / "plain"), made.but(gradient_checkpointing=True)
    train_adapter(plain)
    train_adapter(other)
    found, wanted = latest(other)["weights"], latest(plain)["weights"]
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=0)
    half = made.but(dtype="bf16", output=made.root / "half")
    trained = train_adapter(half)
    assert {value.dtype for value in latest(half)["weights"].values()} == {torch.float32}
    losses = [[line["loss"] for line in log(one) if "loss" in line] for one in (half, plain)]
    np.testing.assert_allclose(losses[0][0], losses[1][0], rtol=0.05)
    assert losses[0][0] != losses[1][0]
    assert trained.last.loss < trained.before.loss


def test_validation_pairs_are_drawn_by_seed(made: MadePairs) -> None:
    settings = made.but(val_pairs=5, steps=1, overwrite=True)
    found = [train_adapter(replace(settings, seed=seed)).before for seed in (0, 0, 3)]
    assert found[0] == found[1]
    assert found[0] != found[2]
    assert all(round(one.accuracy * 5, 9) % 1 == 0 for one in found)


@pytest.mark.skipif(bool(other_seeds.SHIFT), reason="other processes keep their seeds")
def test_two_processes_do_what_one_does_with_twice_the_batch(
    made: MadePairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine groups in steps of four: in the last one a process has no share."""
    made.write("train", [*made.of(range(4)), Pair("0_0.png", "2_2.png", False)])
    one = made.but(
        output=made.root / "one", dropout=0.0, lr=STILL, steps=None, eval_every=None, batch_size=8
    )
    train_adapter(one)
    two = replace(one, output=made.root / "two", batch_size=4)
    words = [
        "adapt", "train", "--mllm", two.mllm, "--pairs", two.pairs, "--image-root", two.image_root,
        "--prompt", two.prompt, "--image-size", "56x28", "--adapter-dropout", "0", "--pack", "2",
        "--lr", str(STILL), "--batch-size", "4", "-o", two.output, "--json",
    ]  # fmt: skip
    home = made.root / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    printed = in_processes(2, lambda: main([str(word) for word in words]), made.root)
    said = json.loads("".join(printed))  # once, by the main process
    assert (said["adapter"], said["steps"]) == (str(two.output / "adapter"), 3)
    assert not list(home.iterdir())
    assert_same_gradients(two, one)
    record = json.loads((two.output / "training.json").read_text())
    assert record["deciding"]["processes"] == 2


def test_the_default_prompt_is_murank_s_own(made: MadePairs) -> None:
    trained = train_adapter(made.but(prompt=None, steps=1))
    assert read_adapter(trained.adapter).template_sha256 == default_template().sha256


def test_two_trainings_do_not_share_a_folder(made: MadePairs) -> None:
    def begin_another(_stage: str, done: int, _total: int) -> None:
        if done == 1:
            with pytest.raises(OutputError, match="another run is at work in"):
                train_adapter(made.settings)

    train_adapter(made.settings, progress=begin_another)


def test_an_export_wants_the_image_size_that_was_trained_with(made: MadePairs) -> None:
    adapter = read_adapter(train_adapter(made.but(steps=1)).adapter)
    height, width = made.settings.image_size or (0, 0)
    assert adapter.image_size == f"{height}x{width}"
    check_image_size(adapter, (height, width), force=False)
    with pytest.raises(InputError, match=f"trained on images of {height}x{width}, not 280x140"):
        check_image_size(adapter, (280, 140), force=False)
    check_image_size(adapter, (280, 140), force=True)
