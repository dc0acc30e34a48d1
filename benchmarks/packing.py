"""What a pair costs in training, with several candidates in one sequence and one by one.

    python benchmarks/packing.py

A Qwen2-VL of hidden size 768 (3 layers; vision 3 x 512; random weights), murank's own prompt, 280 x
140 images, LoRA as by default. Eight pairs of one query a step: forward and backward on
one thread, CPU seconds a pair, median of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from random_checkpoint import SIZES, make_checkpoint

from murank.pairs.labelled import Pair
from murank.prompt import LAYOUTS, Layout, default_template
from murank_export.adapt.lora import add_adapter
from murank_export.adapt.question import Question, answer_loss, make_question
from murank_export.adapt.train_settings import TrainSettings
from murank_export.mllm.checkpoint import load_checkpoint

CANDIDATES = 8
SIZES["slim"] = {**SIZES["mid"], "vocab": 1024, "layers": 3, "depth": 3}


def make_pairs(folder: Path) -> list[Pair]:
    """Draw a query and its candidates."""
    random = np.random.default_rng(0)
    paths = [folder / f"{number}.png" for number in range(CANDIDATES + 1)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (128, 64, 3)).astype(np.uint8)).save(path)
    query, *others = map(str, paths)
    return [Pair(query, other, number % 2 == 0) for number, other in enumerate(others)]


def adapted(folder: Path, layout: Layout) -> Question:
    """Return the question to a model with a fresh LoRA."""
    checkpoint = load_checkpoint(folder)
    question = make_question(checkpoint, default_template(), layout, None, torch.device("cpu"))
    checkpoint.model.requires_grad_(False)
    return question.with_adapter(
        add_adapter(checkpoint, TrainSettings(folder, folder, folder), None)
    )


def cost(question: Question, pairs: list[Pair], pack: int) -> float:
    """Return CPU seconds a pair of one step."""
    groups = [tuple(pairs[start : start + pack]) for start in range(0, len(pairs), pack)]
    batch = question.batch(groups)
    start = time.process_time()
    answer_loss(question.logits(batch), batch.targets).backward()  # type: ignore[no-untyped-call]
    return (time.process_time() - start) / len(pairs)


def main() -> None:
    """Measure, print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| layout | one by one, ms a pair | packed | one by one / packed |\n|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pairs = make_pairs(folder)
        make_checkpoint(folder / "mllm", size="slim")
        for layout in LAYOUTS:
            question = adapted(folder / "mllm", layout)
            rounds = [
                [cost(question, pairs, pack) for pack in (1, CANDIDATES)]
                for _ in range(arguments.rounds + 1)
            ]
            single, packed = (1000 * statistics.median(c) for c in zip(*rounds[1:], strict=True))
            print(f"| {layout} | {single:.0f} | {packed:.0f} | {single / packed:.2f} |", flush=True)


if __name__ == "__main__":
    main()
