"""Trainings to compare."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from made_pairs import MadePairs

from murank_export.adapt.train import train_adapter
from murank_export.adapt.train_settings import TrainSettings


@pytest.fixture
def made(checkpoint: Callable[[str], Path], tmp_path: Path) -> MadePairs:
    return MadePairs(tmp_path, checkpoint("qwen2_vl"))


@pytest.fixture(scope="module")
def whole(
    checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> TrainSettings:
    """A training that nothing stopped, in a place of its own."""
    settings = MadePairs(tmp_path_factory.mktemp("whole"), checkpoint("qwen2_vl")).settings
    train_adapter(settings)
    return settings


def latest(settings: TrainSettings) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(settings.output / "checkpoint" / "latest.pt")
    return found


def log(settings: TrainSettings) -> list[dict[str, Any]]:
    lines = (settings.output / "log.jsonl").read_text().splitlines()
    timed = ("seconds", "pairs_per_s")
    return [
        {key: value for key, value in json.loads(line).items() if key not in timed}
        for line in lines
    ]
