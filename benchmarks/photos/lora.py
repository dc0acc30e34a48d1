"""What an MLLM adds: without LoRA, with one of hard pairs, with one of random pairs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from photos.figures import METHODS, aligned, evaluate
from photos.kept import Kept
from photos.stages import Embedding, murank

from murank import FeatureSet, MuDistances
from murank.pairs.labelled import Pair, load_pairs, save_pairs
from murank.rerank.intervals import Gain, paired_gain
from murank.rerank.mu_auc import told_among_candidates

VARIANTS = ("none", "hard", "random")
AUCS = ("among all candidates", "within a query", "right where the encoder is wrong")
LEVELS: Mapping[str, str] = {"as is": "off", "pairs": "pairs"}  # ours, and --align-cameras


@dataclass(frozen=True)
class Lora:
    """An MLLM, and how its LoRA is trained and exported."""

    embedding: Embedding
    mllm: Path
    training: Path  # features of the training images
    shared: Sequence[object]  # options of both: prompt, layout, image size
    train: Sequence[object]  # options of `murank adapt train`
    export: Sequence[object]  # options of `murank export`

    @property
    def work(self) -> Path:
        """A folder of its own for what decides the outcome."""
        from murank_export.sources.hashing import checkpoint_sha256, file_sha256

        deciding = [
            checkpoint_sha256(self.mllm), file_sha256(self.training),
            *map(str, [*self.shared, "|", *self.train, "|", *self.export]),
        ]  # fmt: skip
        digest = hashlib.sha256("\n".join(deciding).encode()).hexdigest()[:12]
        return self.embedding.work / f"mllm-{digest}"

    def pairs(self, variant: str, seed: int) -> Path:
        """Pairs of the training people: mined, or as many with candidates drawn at random."""
        hard = self.work / f"pairs-hard-{seed}"
        if not hard.exists():
            murank("adapt", "mine", "--features", self.training, "--seed", seed, "-o", hard)
        if variant == "hard":
            return hard
        folder = self.work / f"pairs-{variant}-{seed}"
        if not (folder / "train.json").exists():
            folder.mkdir(exist_ok=True)
            (folder / "val.json").write_bytes((hard / "val.json").read_bytes())
            drawn = random_alike(load_pairs(hard / "train.json"), self._people(), seed=seed)
            save_pairs(folder / "train.json", drawn)  # last: a folder with it is whole
        return folder

    def engine(self, variant: str, seed: int) -> Path:
        """An engine of the MLLM with the LoRA of a variant."""
        name = variant if variant == "none" else f"{variant}-{seed}"
        folder = self.work / f"engine-{name}"
        if not folder.exists():
            lora = () if variant == "none" else ("--adapter", self._adapter(variant, seed))
            murank(
                "export", "--mllm", self.mllm, *lora, *self.shared, *self.export,
                "--quiet", "-o", folder,
            )  # fmt: skip
        return folder

    def _adapter(self, variant: str, seed: int) -> Path:
        folder = self.work / f"adapter-{variant}-{seed}"
        if not is_trained(folder):
            murank(
                "adapt", "train", "--mllm", self.mllm, "--pairs", self.pairs(variant, seed),
                "--seed", seed, *self.shared, *self.train, "-o", folder,
            )  # fmt: skip
        return folder / "adapter"

    def _people(self) -> Mapping[str, int]:
        with np.load(self.training) as arrays:
            return dict(zip(arrays["paths"].tolist(), arrays["pids"].tolist(), strict=True))


def is_trained(folder: Path) -> bool:
    """Whether a training has come to its end; `adapt train` goes on with one that has not."""
    record = folder / "training.json"
    return record.exists() and json.loads(record.read_text("utf-8"))["result"] is not None


def random_alike(hard: Sequence[Pair], people: Mapping[str, int], *, seed: int) -> list[Pair]:
    """Return for each pair one of the same query and answer, with a candidate drawn at random.

    `adapt mine --random` draws candidates of any person, so that hardly a pair matches: the paper's
    baseline. Half of these match, as of the mined; drawn one by one, a few come twice.
    """
    random = np.random.default_rng(seed)
    paths = sorted({path for pair in hard for path in (pair.query, pair.candidate)})
    members: dict[int, list[str]] = {}
    for path in paths:
        members.setdefault(people[path], []).append(path)

    def draw(pair: Pair) -> str:
        same = members[people[pair.query]] if pair.match else paths
        while True:  # hardly ever twice: a match has an image beside the query, others are many
            path = same[random.integers(len(same))]
            if path != pair.query and (people[path] == people[pair.query]) == pair.match:
                return path

    return [Pair(pair.query, draw(pair), pair.match) for pair in hard]


def mu_figures(
    features: FeatureSet, name: str, lora: Lora, seeds: Sequence[int], kept: Kept
) -> dict[str, Any]:
    """Measure mu of each variant and seed on one set, as is and aligned."""
    found: dict[str, Any] = {}
    for level, asked in LEVELS.items():
        for seed in seeds:
            row = f"{level}, seed {seed}"
            found[row] = kept.row(row, partial(_of_seed, features, name, lora, level, asked, seed))
    return found


def _of_seed(
    features: FeatureSet, name: str, lora: Lora, level: str, asked: str, seed: int
) -> dict[str, Any]:
    """Return gains in mAP with their intervals, and the AUC among the candidates."""
    ready = aligned(features, level)
    mus: dict[str, MuDistances] = {}
    for variant in VARIANTS:
        engine = lora.engine(variant, seed)
        mus[variant] = lora.embedding.ask(name, engine, asked, engine.name)
    gains: dict[str, dict[str, Any]] = {}
    before: dict[str, float] = {}
    for method in METHODS:
        plain = evaluate(ready, method)
        with_mu = {one: evaluate(ready, method, mu).precisions for one, mu in mus.items()}
        before[method] = plain.score[0]
        gains[method] = {
            "base": _gain(plain.precisions, with_mu["none"]),
            "LoRA": _gain(plain.precisions, with_mu["hard"]),
            "LoRA against none": _gain(with_mu["none"], with_mu["hard"]),
            "hard against random": _gain(with_mu["random"], with_mu["hard"]),
        }
    return {"mAP": before, "gains": gains, "auc": _aucs(ready, mus)}


def _aucs(ready: FeatureSet, mus: Mapping[str, MuDistances]) -> dict[str, list[float]]:
    """The AUCS of the encoder and of each variant."""
    labels = ready.labels
    assert labels is not None
    found: dict[str, list[float]] = {}
    for name, mu in mus.items():
        told = told_among_candidates(mu, labels, ready, None)
        if told is not None and told.within is not None:
            found["encoder"] = [told.encoder, told.within.encoder, 0.0]
            found[name] = [told.mu, told.within.mu, told.within.mu_right_there or 0.0]
    return found


def _gain(before: Any, after: Any) -> dict[str, Any]:
    gain: Gain = paired_gain(before, after)
    return gain.to_json()
