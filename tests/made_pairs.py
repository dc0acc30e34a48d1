"""A small set of labelled pairs with its images: persons are pairs of colours."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from murank.pairs.labelled import Pair, save_pairs
from murank_export.adapt.train_settings import TrainSettings

PROMPT = {
    "task_description": "One person? ",
    "rules": ["Go by clothes."],
    "response_format": "Yes or No.",
}


class MadePairs:
    """Images, pairs and a short prompt in a folder, and settings that train on them in seconds."""

    def __init__(self, root: Path, mllm: Path, people: int = 6) -> None:
        self.root, self.images, self.pairs = root, root / "images", root / "pairs"
        self.images.mkdir(parents=True)
        random = np.random.default_rng(2)
        for person in range(people):
            colours = random.integers(0, 256, (2, 1, 3)).repeat(10, 0)
            for view in range(3):
                noisy = colours[:, :, None] + random.integers(-15, 16, (20, 1, 10, 1))
                pixels = np.clip(noisy.reshape(20, 10, 3), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(self.images / f"{person}_{view}.png")
        self.write("train", self.of(range(people - 2)))
        self.write("val", self.of(range(people - 2, people)))
        (root / "prompt.json").write_text(json.dumps(PROMPT))
        self.settings = TrainSettings(
            mllm=mllm, pairs=self.pairs, output=root / "out", image_root=self.images,
            prompt=root / "prompt.json", image_size=(56, 28), lr=1e-2, steps=6, eval_every=3,
            save_every=2, pack=2,
        )  # fmt: skip

    def of(self, people: range) -> list[Pair]:
        """One view of each person as the query: two pairs of each kind."""
        found = []
        for person in people:
            other = people[(people.index(person) + 1) % len(people)]
            for view in (1, 2):
                found.append(Pair(f"{person}_0.png", f"{person}_{view}.png", True))
                found.append(Pair(f"{person}_0.png", f"{other}_{view}.png", False))
        return found

    def write(self, name: str, pairs: list[Pair]) -> None:
        """Replace train.json or val.json."""
        save_pairs(self.pairs / f"{name}.json", pairs)

    def but(self, **changes: Any) -> TrainSettings:
        """The settings with some changes."""
        return replace(self.settings, **changes)
