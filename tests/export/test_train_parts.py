"""Small parts of the training against independent words of what they are."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig

from murank import InputError
from murank.pairs.labelled import Pair, save_pairs
from murank_export.adapt.answers import IGNORED, Answers, find_answers
from murank_export.adapt.examples import StepOrder, grouped, load_splits
from murank_export.adapt.loop import learning_rate
from murank_export.adapt.lora import TARGETS, add_adapter, trainable
from murank_export.adapt.question import answer_loss, cast_parameters
from murank_export.adapt.train_settings import TrainSettings
from murank_export.adapt.validation import Evaluation
from murank_export.mllm.checkpoint import load_checkpoint

Folder = Callable[[str], Path]
PATHS = Path("m"), Path("p"), Path("o")


def test_the_better_evaluation() -> None:
    one = Evaluation(1, loss=0.5, accuracy=0.9, auc=0.8)
    assert one.better_than(None)
    assert one.better_than(replace(one, auc=0.7, loss=0.1))
    assert not one.better_than(replace(one, auc=0.9, loss=0.9))
    assert one.better_than(replace(one, loss=0.6))
    assert not one.better_than(one)


def test_the_learning_rate() -> None:
    """Half a cosine of eleven steps, then one behind a warm-up."""
    how = {"lr": 1.0, "min_lr": 0.2}
    rates = [learning_rate(step, 11, warmup=0, **how) for step in range(11)]
    assert rates[0] == 1
    assert rates[5] == pytest.approx(0.6)
    assert rates[10] == pytest.approx(0.2)
    assert rates[2] == pytest.approx(0.2 + 0.4 * (1 + math.cos(math.pi / 5)))
    warm = [learning_rate(step, 15, warmup=4, **how) for step in range(15)]
    assert warm[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert warm[4:] == pytest.approx(rates)
    assert learning_rate(0, 1, warmup=0, **how) == 1


PAIRS = [Pair(f"q{query}", f"c{query}{place}", place % 2 == 0)
         for query in range(5) for place in range(3)]  # fmt: skip


@pytest.mark.parametrize("pack", [1, 2, 5])
def test_every_pair_is_seen_once_an_epoch(pack: int) -> None:
    plan = StepOrder(PAIRS, pack=pack, groups_a_step=2, seed=7)
    epochs = []
    for epoch in range(2):
        steps = range(epoch * plan.steps_an_epoch, (epoch + 1) * plan.steps_an_epoch)
        groups = [group for step in steps for group in plan.groups(step)]
        assert all(len({pair.query for pair in group}) == 1 for group in groups)
        assert max(map(len, groups)) == min(pack, 3)
        epochs.append([pair for group in groups for pair in group])
    assert [sorted(map(str, one)) for one in epochs] == [sorted(map(str, PAIRS))] * 2
    assert epochs[0] != epochs[1]
    again = StepOrder(PAIRS, pack=pack, groups_a_step=2, seed=7)
    assert again.groups(plan.steps_an_epoch) == plan.groups(plan.steps_an_epoch)
    other = StepOrder(PAIRS, pack=pack, groups_a_step=20, seed=8)
    assert other.groups(0) != StepOrder(PAIRS, pack=pack, groups_a_step=20, seed=7).groups(0)


def test_pairs_of_junk_are_not_learnt(tmp_path: Path) -> None:
    junk, *known = (f"{name}.jpg" for name in ("-1_c1", "0001_c1", "0001_c2", "0002_c1"))
    for name in (junk, *known):
        (tmp_path / name).touch()
    kept = [Pair(known[0], known[1], True), Pair(known[0], known[2], False)]
    for side in ("train", "val"):
        save_pairs(tmp_path / f"{side}.json", [Pair(junk, junk, True), *kept])
    found = load_splits(tmp_path, tmp_path)
    placed = [
        Pair(str(tmp_path / one.query), str(tmp_path / one.candidate), one.match) for one in kept
    ]
    assert (found.train, found.val, found.junk) == (placed, placed, 2)
    save_pairs(tmp_path / "val.json", [Pair(junk, junk, True)])
    with pytest.raises(InputError, match=r"val\.json"):
        load_splits(tmp_path, tmp_path)


def test_groups_in_order() -> None:
    assert [len(group) for group in grouped(PAIRS, 2)] == [2, 1] * 5
    assert [pair for group in grouped(PAIRS, 2) for pair in group] == PAIRS


def test_answers_of_different_length() -> None:
    answers = Answers(no=(3,), yes=(4, 5), end=9)
    assert (answers.length, answers.first) == (2, (3, 4))
    assert answers.inputs([True, False]).tolist() == [[4, 5], [3, 9]]
    assert answers.targets([True, False]).tolist() == [[4, 5, 9], [3, 9, IGNORED]]


def test_answers_are_the_chat_templates(checkpoint: Folder) -> None:
    loaded = load_checkpoint(checkpoint("qwen2_vl"))
    found = find_answers(loaded)
    words = [loaded.tokenizer.decode(ids) for ids in (found.no, found.yes, [found.end])]
    assert words == ["No", "Yes", "<|im_end|>"]
    loaded.chat_template = "{{ messages[-1]['content'][0]['text'] }}{% if add_generation_prompt %}:"
    loaded.chat_template += "{% endif %}"
    with pytest.raises(InputError, match="must put an answer and an end of turn behind"):
        find_answers(loaded)


def test_the_loss_is_the_cross_entropy_of_tokens_that_count() -> None:
    logits = torch.tensor([[[0.0, 1, 2], [3, 0, 0]]])
    wanted = -torch.log_softmax(logits[0, 0], 0)[2]
    torch.testing.assert_close(answer_loss(logits, torch.tensor([[2, IGNORED]])), wanted)
    wanted = wanted - torch.log_softmax(logits[0, 1], 0)[1]
    torch.testing.assert_close(answer_loss(logits, torch.tensor([[2, 1]])), wanted)


LANGUAGE = ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o",
            "mlp.gate", "mlp.up", "mlp.down")  # fmt: skip
VISION = {
    "qwen2_vl": ("fc1", "fc2"),
    "qwen2_5_vl": ("gate_proj", "up_proj", "down_proj"),
    "qwen3_vl": ("linear_fc1", "linear_fc2"),
}


@pytest.mark.parametrize("family", VISION)
def test_adapters_go_where_the_method_has_them(checkpoint: Folder, family: str) -> None:
    """And change nothing yet; what is frozen is bfloat16, what is trained float32."""
    loaded = load_checkpoint(checkpoint(family))
    loaded.model.requires_grad_(False)
    buffers = {name: value.clone() for name, value in loaded.model.named_buffers()}
    cast_parameters(loaded.model, torch.bfloat16)
    adapted = add_adapter(loaded, TrainSettings(*PATHS), None)
    weights = trainable(adapted)
    modules = {name.partition(".lora_")[0].removeprefix("base_model.model.") for name in weights}
    sizes: Any = loaded.model.config
    language = {
        f"model.language_model.layers.{layer}.{name}_proj"
        for layer in range(sizes.text_config.num_hidden_layers)
        for name in LANGUAGE
    }
    vision = {
        f"model.visual.blocks.{block}.mlp.{name}"
        for block in range(sizes.vision_config.depth)
        for name in VISION[family]
    }
    assert modules == language | vision
    assert {value.dtype for value in weights.values()} == {torch.float32}
    frozen = {value.dtype for value in loaded.model.parameters() if not value.requires_grad}
    assert frozen == {torch.bfloat16}
    for name, value in loaded.model.named_buffers():
        torch.testing.assert_close(value, buffers[name], atol=0, rtol=0)
    halves = {"lora_A": set[int](), "lora_B": set[int]()}
    for name, value in weights.items():
        half = name.split(".")[-3]
        halves[half].add(value.shape[0 if half == "lora_A" else 1])
        assert bool(value.any()) == (half == "lora_A")
    assert halves == {"lora_A": {16}, "lora_B": {16}}
    config: LoraConfig = adapted.peft_config["default"]
    assert (config.lora_alpha, config.lora_dropout) == (32, 0.05)
    assert set(TARGETS) == set(VISION)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"rank": 0}, "rank"),
        ({"pack": -1}, "pack must be at least 1"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
        ({"eval_every": 0}, "eval_every"),
        ({"save_every": 0}, "save_every"),
        ({"val_pairs": 0}, "val_pairs"),
        ({"val_pairs": "some"}, "val_pairs"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 3, "pack": 2}, "batch_size"),
        ({"lr": 0.0}, "lr must be above 0 and finite"),
        ({"lr": math.nan}, "lr must be above 0"),
        ({"alpha": 0.0}, "alpha"),
        ({"clip": math.inf}, "clip must be above 0 and finite"),
        ({"min_lr": 1.0}, "min_lr"),
        ({"min_lr": math.nan}, "min_lr"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"warmup": -1}, "warmup and seed must be at least 0"),
        ({"seed": -1}, "warmup and seed must be at least 0"),
        ({"targets": ()}, "targets must name at least one module"),
        ({"targets": ("",)}, "targets must name at least one module"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainSettings(*PATHS, **changes)


@pytest.mark.parametrize(
    ("batch_size", "pack", "groups"), [(None, 1, 2), (None, 2, 1), (None, 8, 1), (8, 2, 4)]
)
def test_sequences_of_a_batch(batch_size: int | None, pack: int, groups: int) -> None:
    assert TrainSettings(*PATHS, batch_size=batch_size, pack=pack).groups_at_once == groups
