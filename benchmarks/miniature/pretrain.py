"""Pre-training of the miniature MLLM: its eyes first, then the question, then both together.

A stand-in for what a real MLLM brings along: it has seen many places, cameras and people. `tower`:
the vision tower names attributes and tells people apart by one vector an image. `mean`: the mean of
an image's tokens tells them apart, too, which any head of attention can take up. `easy`: the text
side learns to answer from the standing tower's tokens, half by the truth, half by what that vector
says, and in which attributes two people are alike; others are any. `pairs`: others are those that
the vector finds most alike (with them from the start, nothing was learned in 240 steps).
`together`: all of it. `turn`: to end a turn once it has answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from miniature.degrade import degraded
from miniature.model import BARE_PROMPT, GRID, HIDDEN, PROMPT, Answers, Vision, ask_many, question
from miniature.pool import ATTRIBUTES, NOTHING, SHOTS, Pool
from miniature.stages import Say, Stage, Training
from torch import Tensor, nn

from murank.prompt import Layout, load_template

_CONTRAST = 0.3  # weight of the term that makes the states behind two images comparable
_TEMPERATURE = 0.1
_EMBEDDING = 128
_PEOPLE, _SEEN = 16, 4  # neighbours in the pool, of whom every other is a look-alike; crops of each
# How the question is put: with the rules or bare, in which layout; and how often (paper is dear).
_FORMS: tuple[tuple[Path, Layout], ...] = (
    (PROMPT, "prefix_first"), (BARE_PROMPT, "prefix_first"), (PROMPT, "paper"),
)  # fmt: skip
_PAPER = 2
_ORDER = (0, 1, 0, 0, 1, 0, 0, _PAPER)
_OTHERS = 3  # candidates that do not match; and all that do


@dataclass(frozen=True)
class Stages:
    """How long each stage lasts, in steps."""

    tower: int = 3000
    mean: int = 400
    easy: int = 600
    pairs: int = 500
    together: int = 1000
    turn: int = 160


def pretrain(
    checkpoint: Any, pool: Pool, held: Pool, stages: Stages, seed: int, *, kept: Path, say: Say
) -> None:
    """Train the checkpoint's model in place; curves are of `held`, places that it does not see."""
    learner = Learner(checkpoint, pool)
    watcher = Learner(checkpoint, held, learner.heads)
    text, eyes = {"text": 1e-3, "heads": 1e-3}, {"vision": 1e-3, "heads": 1e-3}
    plan = [
        Stage("tower", stages.tower, learner.tower, eyes, figure=watcher.figure),
        Stage("mean", stages.mean, lambda: learner.tower(mean=True), eyes | {"vision": 5e-4},
              figure=watcher.figure),
        Stage("easy", stages.easy, lambda: learner.pairs(trust=0.5), text | {"text": 1.5e-3},
              begin=learner.standardise, figure=watcher.figure),
        Stage("pairs", stages.pairs, lambda: learner.pairs(hard=2, trust=0.5), text,
              figure=watcher.figure),
        Stage("together", stages.together, lambda: learner.pairs(hard=2, trust=0.25, together=True),
              {"text": 8e-4, "heads": 8e-4, "vision": 4e-4}, figure=watcher.figure),
        Stage("turn", stages.turn, lambda: learner.pairs(hard=2, with_end=True), {"text": 3e-4},
              figure=watcher.figure),
    ]  # fmt: skip
    Training(learner.parts, say, kept).run(plan, {"crops": len(pool.pixels)}, seed)


class Heads(nn.Module):
    """What training adds to the model, and leaves behind."""

    def __init__(self) -> None:
        super().__init__()
        width = GRID.num_tokens * HIDDEN
        self.attributes = nn.Linear(width, sum(ATTRIBUTES.values()))
        self.embedding = nn.Linear(width, _EMBEDDING)
        self.projection = nn.Linear(HIDDEN, 64, bias=False)
        self.odds = nn.Linear(1, 1)  # of a cosine
        self.alike = nn.Linear(HIDDEN, len(ATTRIBUTES))  # of an answer: in which attributes
        self.mean = nn.Linear(HIDDEN, _EMBEDDING)  # of an image's tokens

    def likeness(self, tokens: Tensor) -> Tensor:
        """Cosines of all images of a batch: [N,T,H] -> [N,N]."""
        rows = F.normalize(self.embedding(tokens.flatten(1)), dim=-1)
        return rows @ rows.T


class Learner:
    """Losses of batches of a pool."""

    def __init__(self, checkpoint: Any, pool: Pool, heads: Heads | None = None) -> None:
        self.model, self.pool = checkpoint.model, pool
        self.vision = Vision(checkpoint)
        self.heads = Heads() if heads is None else heads
        self.people = torch.from_numpy(pool.people)
        self.labels = torch.from_numpy(pool.attributes)
        self.place_size = int((pool.domains == pool.domains[0]).sum())
        self.asked = [
            question(checkpoint, load_template(prompt), layout) for prompt, layout in _FORMS
        ]
        self._turns = 0

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What can be trained."""
        inner = self.model.model
        return {"vision": inner.visual, "text": inner.language_model, "heads": self.heads}

    def tower(self, *, mean: bool = False) -> tuple[Tensor, float]:
        """Attributes, and people told apart: the images of two places."""
        rows = torch.cat([self._draw(_PEOPLE), self._draw(_PEOPLE)])
        tokens = self.vision(degraded(self._pixels(rows)))
        loss, contrast = self._seen(tokens, rows)
        if mean:
            contrast = self._mean(tokens, rows)
            loss = loss + contrast
        return loss, float(contrast.detach())

    def pairs(
        self, *, hard: int = 0, trust: float = 0.0, together: bool = False, with_end: bool = False
    ) -> tuple[Tensor, float]:
        """Answers; `hard` of the others are the most alike; `trust`: in what the vector says."""
        form = int(torch.randint(len(_ORDER), ()))
        small = _ORDER[form] == _PAPER
        asked, rows = self.asked[_ORDER[form]], self._draw(6 if small else _PEOPLE)
        with torch.set_grad_enabled(together):
            tokens = self.vision(degraded(self._pixels(rows)))
        people = self.people[rows]
        same = people[:, None] == people
        likeness = self.heads.likeness(tokens)
        candidates = chosen(same, likeness.detach(), hard=hard)
        match = same.gather(1, candidates)
        said = torch.tensor(asked.answers)[match.long()]
        answers = ask_many(
            self.model, asked, tokens, tokens[candidates], said=said if with_end else None
        )
        wanted = match.float()
        if trust:
            vector = self.heads.odds(likeness.gather(1, candidates)[..., None])[..., 0].sigmoid()
            wanted = (1 - trust) * wanted + trust * vector.detach()
        loss = _cross_entropy(answers, asked.answers, wanted)
        more = torch.zeros(())
        if with_end:
            end = torch.full_like(said, asked.end).flatten()
            more = F.cross_entropy(answers.next_words.flatten(0, 1), end)
        else:
            more = _CONTRAST * self._behind_images(answers, people, candidates)
            more = more + self._alike(answers, rows, candidates)
        if together:
            more = more + 0.3 * (self._seen(tokens, rows)[0] + self._mean(tokens, rows))
        return loss + more, float(loss.detach())

    def standardise(self) -> None:
        """Give vision tokens zero mean and unit variance, by the merger's last layer."""
        with torch.no_grad():
            rows = torch.randperm(len(self.pool.pixels))[:2048]
            tokens = torch.cat([self.vision(self._pixels(part)) for part in torch.split(rows, 128)])
            mean, spread = tokens.mean((0, 1)), tokens.std((0, 1)) + 1e-4
            last: Any = self.model.model.visual.merger.mlp[-1]
            last.weight.div_(spread[:, None])
            last.bias.copy_((last.bias - mean) / spread)
            for head in (self.heads.attributes, self.heads.embedding, self.heads.mean):
                # They see what they saw.
                by_token = head.weight.reshape(len(head.weight), -1, HIDDEN)
                head.bias.add_((by_token * mean).sum((1, 2)))
                head.weight.copy_((by_token * spread).flatten(1))

    def figure(self) -> str:
        """AUC of the vector and of mu over easy and hard pairs, images as they are; percent."""
        told = []
        with torch.random.fork_rng(), torch.no_grad():
            for hard, name in (0, "easy"), (2, "hard"):
                torch.manual_seed(0)
                found = [self._opinions(hard) for _ in range(8)]
                parts = (torch.cat(part).flatten().numpy() for part in zip(*found, strict=True))
                match, *opinions = parts
                vector, mu = (100 * _auc(opinion, match) for opinion in opinions)
                told.append(f"{name}: vector {vector:.1f}, mu {mu:.1f}")
        return f"AUC on held-out places, {'; '.join(told)}"

    def _opinions(self, hard: int) -> tuple[Tensor, Tensor, Tensor]:
        rows, asked = self._draw(_PEOPLE), self.asked[0]
        same = self.people[rows][:, None] == self.people[rows]
        tokens = self.vision(self._pixels(rows))
        likeness = self.heads.likeness(tokens)
        candidates = chosen(same, likeness, hard=hard)
        logits = ask_many(self.model, asked, tokens, tokens[candidates]).logits
        return (
            same.gather(1, candidates),
            likeness.gather(1, candidates),
            logits[..., 1] - logits[..., 0],
        )

    def _seen(self, tokens: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of the tower, and its part that tells people apart."""
        found, wanted = self.heads.attributes(tokens.flatten(1)), self.labels[rows]
        named = [
            F.cross_entropy(part, wanted[:, i], ignore_index=NOTHING)
            for i, part in enumerate(found.split(list(ATTRIBUTES.values()), 1))
        ]
        people = self.people[rows]
        same = people[:, None] == people
        likeness = self.heads.likeness(tokens)
        contrast = _info_nce(likeness / _TEMPERATURE, same)
        there = (rows[:, None] // self.place_size) == rows // self.place_size
        odds = self.heads.odds(likeness.detach()[..., None])[..., 0]
        asked = there & ~torch.eye(len(rows), dtype=torch.bool)
        calibrated = F.binary_cross_entropy_with_logits(
            odds[asked], same[asked].float(), pos_weight=torch.tensor(10.0)
        )
        return sum(named, contrast * 0) / len(named) + contrast + 0.1 * calibrated, contrast

    def _mean(self, tokens: Tensor, rows: Tensor) -> Tensor:
        """Contrast of the tokens' means."""
        found = F.normalize(self.heads.mean(tokens.mean(1)), dim=-1)
        people = self.people[rows]
        return _info_nce(found @ found.T / _TEMPERATURE, people[:, None] == people)

    def _behind_images(self, answers: Answers, people: Tensor, candidates: Tensor) -> Tensor:
        """InfoNCE on the states behind the images: without it nothing is learned for long."""
        query = F.normalize(self.heads.projection(answers.query), dim=-1)
        other = F.normalize(self.heads.projection(answers.candidates), dim=-1).flatten(0, 1)
        owners = torch.cat([people, people[candidates].flatten()])
        likeness = query @ torch.cat([query, other]).T / _TEMPERATURE
        return _info_nce(likeness, people[:, None] == owners)

    def _alike(self, answers: Answers, rows: Tensor, candidates: Tensor) -> Tensor:
        """Loss of naming, for each attribute of a pair, whether the two have it in common."""
        query, other = self.labels[rows][:, None], self.labels[rows[candidates]]
        shown = (query != NOTHING) & (other != NOTHING)
        found = self.heads.alike(answers.states)[shown]
        return F.binary_cross_entropy_with_logits(found, (query == other)[shown].float())

    def _pixels(self, rows: Tensor) -> Tensor:
        return torch.from_numpy(self.pool.pixels[rows.numpy()])

    def _draw(self, people: int) -> Tensor:
        """Rows of crops of people who stand together in the pool, of one place."""
        places, there = len(self.pool.pixels) // self.place_size, self.place_size // SHOTS
        first = there * int(torch.randint(places, ())) + int(torch.randint(there - people + 1, ()))
        shots = torch.rand(people, SHOTS).topk(_SEEN, 1).indices
        return (SHOTS * (first + torch.arange(people))[:, None] + shots).flatten()


def chosen(same: Tensor, likeness: Tensor, *, hard: int) -> Tensor:
    """Candidates [N,K] of each of N images: all matches, `hard` most alike others, any others."""
    lot = torch.rand(same.shape)
    itself = torch.eye(len(same), dtype=torch.bool)
    match = lot.masked_fill(~same | itself, -1).topk(int(same[0].sum()) - 1, 1).indices
    alike = likeness.masked_fill(same, -2).topk(hard, 1).indices
    rest = lot.masked_fill(same, -1).scatter(1, alike, -1).topk(_OTHERS - hard, 1).indices
    found = torch.cat([match, alike, rest], 1)
    return found.gather(1, torch.rand(found.shape).argsort(1))


def _cross_entropy(answers: Answers, words: tuple[int, int], wanted: Tensor) -> Tensor:
    """Of No and Yes among all words; `wanted` [B,K] is the share of Yes."""
    no, yes = answers.words.log_softmax(-1)[..., list(words)].unbind(-1)
    return -((1 - wanted) * no + wanted * yes).mean()


def _info_nce(likeness: Tensor, same: Tensor) -> Tensor:
    """Supervised contrast: rows of images, columns of others of which the first are the same."""
    itself = torch.eye(*same.shape, dtype=torch.bool)
    share = likeness.masked_fill(itself, -1e9)
    share = share - share.logsumexp(1, keepdim=True)
    ours = (same & ~itself).float()
    return -((share * ours).sum(1) / ours.sum(1).clamp(min=1)).mean()


def _auc(opinion: Any, match: Any) -> float:
    others = np.sort(opinion[~match])
    return float((np.searchsorted(others, opinion[match]) / len(others)).mean())
