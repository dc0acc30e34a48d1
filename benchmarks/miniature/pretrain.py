"""Pre-training of the miniature MLLM: it names attributes, then compares people, in many places.

A stand-in for what a real MLLM brings along: it has seen much. Its pairs are easy: people of one
place drawn at random, hardly ever look-alikes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from miniature.model import BARE_PROMPT, HIDDEN, PROMPT, Answers, Vision, ask_many, question
from miniature.pool import ATTRIBUTES, NOTHING, SHOTS, Pool
from torch import Tensor, nn

from murank.prompt import Layout, load_template

Say = Callable[[str], None]
_CONTRAST = 0.5  # weight of the term that makes the states behind two images comparable
_TEMPERATURE = 0.1
# How the question is put: with the rules or bare, in which layout; and how often (paper is dear).
_FORMS: tuple[tuple[Path, Layout], ...] = (
    (PROMPT, "prefix_first"), (BARE_PROMPT, "prefix_first"), (PROMPT, "paper"),
)  # fmt: skip
_PAPER = 2
_ORDER = (0, 1, 0, 1, 0, _PAPER)


@dataclass(frozen=True)
class Stages:
    """How long each stage lasts, in steps."""

    attributes: int = 650
    pairs: int = 500
    together: int = 600
    turn: int = 100  # to end a turn once it has answered


def pretrain(checkpoint: Any, pool: Pool, stages: Stages, seed: int, say: Say) -> None:
    """Train the checkpoint's model in place."""
    torch.manual_seed(seed)
    vision = Vision(checkpoint)
    _learn_attributes(checkpoint, vision, pool, stages.attributes, say)
    tokens = _standardise(checkpoint, vision, pool)
    trainer = PairTrainer(checkpoint, pool, say)
    trainer.run(stages.pairs, lambda rows: tokens[rows], {"text": 1e-3})
    trainer.run(
        stages.together,
        lambda rows: vision(shifted(torch.from_numpy(pool.pixels[rows.numpy()]))),
        {"text": 8e-4, "vision": 2.5e-4},
    )
    learn_turns(vision, trainer, pool, stages.turn)


def learn_turns(vision: Vision, trainer: PairTrainer, pool: Pool, steps: int) -> None:
    """Train the text side to answer and then to end its turn, as adaptation will ask of it."""
    with torch.no_grad():
        tokens = all_tokens(vision, pool)
    trainer.run(steps, lambda rows: tokens[rows], {"text": 3e-4}, with_end=True)


def _learn_attributes(checkpoint: Any, vision: Vision, pool: Pool, steps: int, say: Say) -> None:
    heads = nn.Linear(8 * HIDDEN, sum(ATTRIBUTES.values()))
    tower = list(checkpoint.model.model.visual.parameters())
    optimiser = torch.optim.AdamW(
        [{"params": tower, "peak": 1.5e-3}, {"params": heads.parameters(), "peak": 3e-3}],
        weight_decay=0.02,
    )
    kinds, labels = list(ATTRIBUTES.values()), torch.from_numpy(pool.attributes)
    for step in _steps(steps, optimiser, "attributes", say):
        rows = torch.randint(len(pool.pixels), (128,))
        found = heads(vision(shifted(torch.from_numpy(pool.pixels[rows.numpy()]))).flatten(1))
        wanted = labels[rows]
        losses = [
            F.cross_entropy(part, wanted[:, i], ignore_index=NOTHING)
            for i, part in enumerate(found.split(kinds, 1))
        ]
        step(sum(losses) / len(losses))  # type: ignore[arg-type]


def _standardise(checkpoint: Any, vision: Vision, pool: Pool) -> Tensor:
    """Give vision tokens zero mean and unit variance, by the merger's last layer; return them."""
    with torch.no_grad():
        tokens = all_tokens(vision, pool)
        mean, spread = tokens.mean((0, 1)), tokens.std((0, 1)) + 1e-4
        last = checkpoint.model.model.visual.merger.mlp[-1]
        last.weight.div_(spread[:, None])
        last.bias.copy_((last.bias - mean) / spread)
        return (tokens - mean) / spread


def all_tokens(vision: Vision, pool: Pool) -> Tensor:
    """Vision tokens of every crop: [N,T,H]."""
    starts = range(0, len(pool.pixels), 256)
    return torch.cat([vision(torch.from_numpy(pool.pixels[s : s + 256])) for s in starts])


class PairTrainer:
    """Same person or not, over pairs of a batch: each image is a query and a candidate."""

    def __init__(self, checkpoint: Any, pool: Pool, say: Say) -> None:
        self.model, self.say, self.crops = checkpoint.model, say, len(pool.pixels)
        self.projection = nn.Linear(HIDDEN, 64, bias=False)
        self.domain_size = int((pool.domains == 0).sum())
        self.people = torch.from_numpy(pool.people)
        self.asked = [
            question(checkpoint, load_template(prompt), layout) for prompt, layout in _FORMS
        ]

    def run(
        self,
        steps: int,
        tokens_of: Callable[[Tensor], Tensor],
        peaks: dict[str, float],
        *,
        with_end: bool = False,
    ) -> None:
        """Train for a number of steps; `with_end`: the end of the turn instead of the contrast."""
        parts = {
            "text": [*self.model.model.language_model.parameters(), *self.projection.parameters()],
            "vision": list(self.model.model.visual.parameters()),
        }
        groups = [{"params": parts[name], "peak": peak} for name, peak in peaks.items()]
        optimiser = torch.optim.AdamW(groups, weight_decay=0.02, betas=(0.9, 0.98))
        for number, step in enumerate(_steps(steps, optimiser, "+".join(peaks), self.say)):
            form = _ORDER[number % len(_ORDER)]
            asked = self.asked[form]
            rows, candidates = self._batch(small=form == _PAPER)
            tokens = tokens_of(rows)
            people = self.people[rows]
            same = people[candidates] == people[:, None]
            said = torch.tensor(asked.answers)[same.long()]
            given = said if with_end else None
            answers = ask_many(self.model, asked, tokens, tokens[candidates], said=given)
            loss = F.cross_entropy(answers.words.flatten(0, 1), said.flatten())
            if with_end:
                end = torch.full_like(said, asked.end).flatten()
                more = F.cross_entropy(answers.next_words.flatten(0, 1), end)
            else:
                more = _CONTRAST * self._contrast(answers, people, candidates)
            step(loss + more, loss)

    def _batch(self, *, small: bool) -> tuple[Tensor, Tensor]:
        """Rows [n] of images of two domains, and each one's candidates [n,6] among them."""
        people, shots, each = (4, 3, 4) if small else (5, 4, 6)
        rows = torch.cat([self._draw(people, shots) for _ in range(2)])
        person = self.people[rows]
        domain = rows // self.domain_size
        same = person[:, None] == person
        there = domain[:, None] == domain
        lot = torch.rand(len(rows), len(rows))
        itself = torch.eye(len(rows), dtype=torch.bool)
        match = lot.masked_fill(~same | itself, -1)
        other = lot.masked_fill(same | ~there, -1)
        half = min(each // 2, shots - 1)
        chosen = [match.topk(half, 1).indices, other.topk(each - half, 1).indices]
        return rows, torch.cat(chosen, 1)

    def _draw(self, people: int, shots: int) -> Tensor:
        start = self.domain_size * int(torch.randint(self.crops // self.domain_size, ()))
        count = self.domain_size // SHOTS
        chosen = torch.randperm(count)[:people]
        picks = [start + SHOTS * int(one) + torch.randperm(SHOTS)[:shots] for one in chosen]
        return torch.cat(picks)

    def _contrast(self, answers: Answers, people: Tensor, candidates: Tensor) -> Tensor:
        """InfoNCE on the states behind the images: without it nothing is learned for long."""
        query = F.normalize(self.projection(answers.query), dim=-1)
        other = F.normalize(self.projection(answers.candidates), dim=-1).flatten(0, 1)
        likeness = torch.cat([query, other]) @ query.T / _TEMPERATURE
        owners = torch.cat([people, people[candidates].flatten()])
        same = (owners[:, None] == people).float()
        itself = torch.arange(len(people))
        same[itself, itself] = 0
        likeness = likeness.index_put((itself, itself), torch.tensor(-1e9))
        share = likeness - likeness.logsumexp(1, keepdim=True)
        return -((share * same).sum(1) / same.sum(1).clamp(min=1)).mean()


def shifted(pixels: Tensor, most: int = 4) -> Tensor:
    """Move a batch of images by a few pixels, edges repeated."""
    down, across = torch.randint(0, 2 * most + 1, (2,)).tolist()
    padded = F.pad(pixels.float(), (most, most, most, most), mode="replicate")
    return padded[:, :, down : down + pixels.shape[2], across : across + pixels.shape[3]]


class _Step:
    """Takes steps of an optimiser, and keeps a running mean of the loss."""

    def __init__(self, optimiser: torch.optim.Optimizer) -> None:
        self._optimiser = optimiser
        self._parameters = [one for group in optimiser.param_groups for one in group["params"]]
        self.mean: float | None = None

    def __call__(self, loss: Tensor, shown: Tensor | None = None) -> None:
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimiser.step()
        value = float((loss if shown is None else shown).detach())
        self.mean = value if self.mean is None else 0.95 * self.mean + 0.05 * value


def _steps(count: int, optimiser: torch.optim.Optimizer, name: str, say: Say) -> Iterator[_Step]:
    """Yield what takes one step, `count` times: warm-up, then a cosine to a twentieth."""
    step, start = _Step(optimiser), time.monotonic()
    for number in range(count):
        share = min(1.0, (number + 1) / 50) * (0.525 + 0.475 * math.cos(math.pi * number / count))
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * share
        yield step
        if (number + 1) % 100 == 0:
            say(
                f"{name} {number + 1}/{count} loss {step.mean:.3f} {time.monotonic() - start:.0f} s"
            )
