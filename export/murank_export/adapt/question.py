"""Pairs of image files to the logits of their answers: the prompt that is served, trained on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from murank.images import Preprocessing, prepare
from murank.prompt import Layout, PromptTemplate
from murank_export.adapt.answers import IGNORED, Answers, find_answers
from murank_export.adapt.examples import Group
from murank_export.adapt.packing import PackedPrompt, forward, image_tokens, pack
from murank_export.graphs.geometry import Grid
from murank_export.mllm.checkpoint import Checkpoint
from murank_export.mllm.reference import pixel_values
from murank_export.mllm.tokens import PromptTokens, prompt_tokens

Change = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


def _unchanged(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return pixels


@dataclass(frozen=True)
class Batch:
    """B sequences of up to k pairs. Where a group has fewer, a pair stands in that counts not."""

    pixels: Tensor  # [N*patches,...]: patches of each distinct image
    queries: Tensor  # [B] int64: which image
    candidates: Tensor  # [B,k] int64
    answers: Tensor  # [B,k,A] int64: tokens fed
    targets: Tensor  # [B,k,A+1] int64: tokens wanted, or IGNORED

    def to(self, device: torch.device) -> "Batch":
        """Move it."""
        return Batch(**{name: value.to(device) for name, value in vars(self).items()})


@dataclass(frozen=True)
class Question:
    """A model, and how it is asked."""

    checkpoint: Checkpoint
    tokens: PromptTokens
    grid: Grid
    answers: Answers
    how: Preprocessing
    device: torch.device
    adapted: Any = None  # PEFT's wrapper of the checkpoint's model, if there is an adapter
    _packed: dict[int, PackedPrompt] = field(default_factory=dict)

    def with_adapter(self, adapted: Any) -> "Question":
        """Return the question to a model that carries an adapter."""
        return replace(self, adapted=adapted)

    def batch(self, groups: Sequence[Group], change: Change = _unchanged) -> Batch:
        """Read the images of some groups, each distinct one once; `change` may alter their pixels.

        Raises
        ------
        InputError
            An image cannot be read.
        """
        paths = [
            path for group in groups for pair in group for path in (pair.query, pair.candidate)
        ]
        place = {path: index for index, path in enumerate(dict.fromkeys(paths))}
        images = np.stack([change(prepare(path, self.how).pixels) for path in place])
        width = max(map(len, groups))
        filled = [[*group, *[group[-1]] * (width - len(group))] for group in groups]
        matches = [pair.match for group in filled for pair in group]
        shape = (len(groups), width, -1)
        targets = self.answers.targets(matches).reshape(shape)
        for row, group in zip(targets, groups, strict=True):
            row[len(group) :] = IGNORED
        return Batch(
            pixels=pixel_values(images, self.grid, self.checkpoint),
            queries=torch.tensor([place[group[0].query] for group in groups]),
            candidates=torch.tensor([[place[pair.candidate] for pair in one] for one in filled]),
            answers=self.answers.inputs(matches).reshape(shape),
            targets=targets,
        )

    def logits(self, batch: Batch) -> Tensor:
        """Ask: float32 [B,k,A+1,vocabulary]."""
        model = self.checkpoint.model
        images = image_tokens(model, batch.pixels, self.grid)
        packed = self._layout(batch.candidates.shape[1])
        return forward(
            model, packed, images[batch.queries], images[batch.candidates], batch.answers
        )

    def log_odds(self, logits: Tensor) -> Tensor:
        """Log-odds of "Yes" against "No", [B,k]: what -log(mu / (1 - mu)) is at tau 1."""
        no, yes = self.answers.first
        return logits[:, :, 0, yes] - logits[:, :, 0, no]

    def _layout(self, candidates: int) -> PackedPrompt:
        if candidates not in self._packed:
            made = pack(self.tokens, self.grid, candidates, self.answers.length)
            moved = {name: value.to(self.device) for name, value in vars(made).items()}
            self._packed[candidates] = replace(made, **moved)
        return self._packed[candidates]


def make_question(
    checkpoint: Checkpoint,
    template: PromptTemplate,
    layout: Layout,
    image_size: tuple[int, int] | None,
    device: torch.device,
) -> Question:
    """Set up the question exactly as an export does.

    Raises
    ------
    InputError
        The image size or the chat template does not fit.
    """
    grid, size = checkpoint.grid(image_size)
    tokens = prompt_tokens(checkpoint, template, layout)
    how = Preprocessing(*size, "bicubic")
    answers = find_answers(checkpoint, template.answers)
    return Question(checkpoint, tokens, grid, answers, how, device)


def answer_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy summed over the tokens that count: [...,V] and [...] -> a number."""
    return F.cross_entropy(
        logits.flatten(0, -2), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )


def cast_parameters(model: Any, dtype: torch.dtype) -> None:
    """Cast the parameters, and leave buffers: rotary frequencies need float32."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def recompute_activations(model: Any) -> None:
    """Keep no activations for the backward pass: less memory, more time, the same gradients."""
    enable = getattr(model, "activation_checkpointing_enable", None)  # transformers 5
    (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
