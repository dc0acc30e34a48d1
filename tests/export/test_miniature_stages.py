"""A training of the miniature that is killed goes on to the same weights, or refuses."""

import itertools
from pathlib import Path

import miniature.stages
import numpy as np
import pytest
import torch
from miniature.model import load_base, make_base
from miniature.pool import ATTRIBUTES, PEOPLE, SHOTS, SIZE, Pool
from miniature.pretrain import Learner, Stages, chosen, pretrain
from miniature.stages import Stage, Training
from torch import Tensor, nn


class KilledError(Exception):
    """As a signal would."""


def lessons(model: nn.Linear, *, killed_at: int | None) -> list[Stage]:
    """Two stages of noisy steps: weights depend on the random state and the optimiser's."""
    taken = 0

    def loss() -> tuple[Tensor, float]:
        nonlocal taken
        taken += 1
        if taken == killed_at:
            raise KilledError
        found = (model(torch.randn(5, 3)) - torch.randn(5, 2)).square().mean()
        return found, float(found.detach())

    def begin() -> None:
        with torch.no_grad():
            model.weight.add_(torch.randn(2, 3))

    return [
        Stage("first", 5, loss, {"model": 1e-2}),
        Stage("second", 6, loss, {"model": 1e-2}, begin=begin),
    ]


def trained(kept: Path, *, killed_at: int | None = None) -> Tensor:
    torch.manual_seed(4)
    model = nn.Linear(3, 2)
    stages = lessons(model, killed_at=killed_at)
    Training({"model": model}, lambda _: None, kept).run(stages, {"crops": 1}, 7)
    return model.weight.detach()


@pytest.mark.parametrize("killed_at", [1, 2, 4, 5, 6, 7, 10])
def test_a_killed_training_goes_on_to_the_same_weights(
    killed_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(miniature.stages, "_KEPT", 2)
    whole = trained(tmp_path / "whole" / "state.pt")
    kept = tmp_path / "killed" / "state.pt"
    with pytest.raises(KilledError):
        trained(kept, killed_at=killed_at)
    torch.testing.assert_close(trained(kept), whole, rtol=0, atol=0)


def test_what_is_kept_of_another_training_is_refused(tmp_path: Path) -> None:
    kept = tmp_path / "state.pt"
    trained(kept)
    model = nn.Linear(3, 2)
    with pytest.raises(ValueError, match=r"state\.pt"):
        Training({"model": model}, print, kept).run(lessons(model, killed_at=None), {"crops": 2}, 7)


def test_every_stage_of_the_base_trains_its_own_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    count = PEOPLE * SHOTS
    pool = Pool(
        random.integers(0, 256, (count, 3, *SIZE), np.uint8),
        np.stack([random.integers(0, n, count) for n in ATTRIBUTES.values()], 1),
        np.zeros(count, np.int64), np.repeat(np.arange(PEOPLE), SHOTS),
    )  # fmt: skip
    make_base(tmp_path / "base", seed=1)
    parts: list[list[Tensor]] = []

    def figure(learner: Learner) -> str:
        inner = learner.model.model
        ends = inner.visual.blocks[0].attn.proj.weight, inner.language_model.layers[0].mlp
        parts.append([ends[0].detach().clone(), ends[1].up_proj.weight.detach().clone()])
        return ""

    monkeypatch.setattr(Learner, "figure", figure)
    checkpoint = load_base(tmp_path / "base")
    monkeypatch.setattr("miniature.pretrain._PEOPLE", 7)
    pretrain(
        checkpoint, pool, pool, Stages(1, 1, 1, 1, 1, 1), 0, kept=tmp_path / "state.pt",
        say=lambda _: None,
    )  # fmt: skip
    moved = [
        [not torch.equal(a, b) for a, b in zip(one, other, strict=True)]
        for one, other in itertools.pairwise(parts)
    ]
    tower, text, both = [True, False], [False, True], [True, True]
    assert moved == [tower, text, text, both, text]  # mean, easy, pairs, together, turn


def test_candidates_are_all_matches_and_the_most_alike_of_the_others() -> None:
    people = torch.arange(6).repeat_interleave(3)
    same = people[:, None] == people
    likeness = torch.rand(18, 18)
    found = chosen(same, likeness, hard=2)
    others = likeness.masked_fill(same, -1)
    for row in range(18):
        picked = set(found[row].tolist())
        assert len(picked) == found.shape[1]
        assert row not in picked
        assert {i for i in range(18) if same[row, i] and i != row} <= picked
        assert set(others[row].topk(2).indices.tolist()) <= picked
