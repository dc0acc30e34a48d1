"""The steps of a training: forward, backward, one update of the adapter."""

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from murank import InputError
from murank_export.adapt.examples import Group, StepOrder, batches
from murank_export.adapt.jitter import jittered
from murank_export.adapt.lora import trainable
from murank_export.adapt.question import Batch, Question, answer_loss
from murank_export.adapt.train_settings import TrainSettings


@dataclass(frozen=True)
class TrainingStep:
    """What a step did, over all processes."""

    step: int  # steps done
    loss: float  # a token of the answers
    lr: float
    norm: float  # of the gradient, before it was clipped
    pairs: int
    seconds: float


class Loop:
    """An adapter in training."""

    def __init__(
        self, settings: TrainSettings, question: Question, plan: StepOrder, steps: int, machine: Any
    ) -> None:
        self._settings, self._question, self._plan = settings, question, plan
        self._steps, self._machine = steps, machine
        self.weights = trainable(question.adapted)
        self.optimizer = torch.optim.AdamW(
            self.weights.values(), lr=settings.lr, weight_decay=settings.weight_decay
        )

    def run(self, done: int) -> Iterator[TrainingStep]:
        """Do the steps that are left; images of the next are read meanwhile.

        Raises
        ------
        InputError
            An image cannot be read, or the loss is not finite.
        """
        self._question.adapted.train()
        with ThreadPoolExecutor(1) as reader:
            waiting = reader.submit(self._read, done)
            for step in range(done, self._steps):
                started = time.perf_counter()
                groups, read = waiting.result()
                if step + 1 < self._steps:
                    waiting = reader.submit(self._read, step + 1)
                loss, lr, norm = self._step(step, groups, read)
                pairs = sum(map(len, groups))
                yield TrainingStep(step + 1, loss, lr, norm, pairs, time.perf_counter() - started)

    def restore(self, weights: dict[str, torch.Tensor], optimizer: dict[str, Any]) -> None:
        """Go back to a checkpoint."""
        with torch.no_grad():
            for name, value in self.weights.items():
                value.copy_(weights[name])
        self.optimizer.load_state_dict(optimizer)

    def _read(self, step: int) -> tuple[list[Group], list[Batch]]:
        """Return the groups of a step, and this process's share of them as batches."""
        groups = self._plan.groups(step)
        mine = groups[self._machine.process_index :: self._machine.num_processes]
        # Drawn anew for each step and process, as dropout is.
        random = np.random.default_rng((self._settings.seed, step, self._machine.process_index, 1))
        change = partial(jittered, strength=self._settings.jitter, random=random)
        size = self._settings.groups_at_once
        return groups, [self._question.batch(part, change) for part in batches(mine, size)]

    def _step(
        self, step: int, groups: Sequence[Group], read: Sequence[Batch]
    ) -> tuple[float, float, float]:
        """Update the adapter once; return loss, learning rate and the gradient's norm."""
        machine, question = self._machine, self._question
        tokens = sum(len(question.answers.tokens(p.match)) for group in groups for p in group)
        # Dropout is drawn anew for each step and process: there is no random state to keep.
        torch.manual_seed(_seed(self._settings.seed, step, machine.process_index))
        total = torch.zeros((), device=question.device)
        for batch in read:
            there = batch.to(question.device)
            loss = answer_loss(question.logits(there), there.targets) / tokens
            machine.backward(loss)
            total += loss.detach()
        self._add_up_gradients()
        return self._update(step, float(machine.reduce(total, "sum")))

    def _update(self, step: int, loss: float) -> tuple[float, float, float]:
        settings = self._settings
        norm = float(torch.nn.utils.clip_grad_norm_(self.weights.values(), settings.clip))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise InputError(
                f"step {step + 1}: loss {loss}, norm of the gradient {norm}: lower --lr"
            )
        lr = learning_rate(
            step, self._steps, lr=settings.lr, min_lr=settings.min_lr, warmup=settings.warmup
        )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss, lr, norm

    def _add_up_gradients(self) -> None:
        """Sum them over the processes: an adapter's are small, so once, and in one piece."""
        if self._machine.num_processes == 1:
            return
        for value in self.weights.values():  # a process may have had no share of a last step
            if value.grad is None:
                value.grad = torch.zeros_like(value)
        gradients = [value.grad for value in self.weights.values() if value.grad is not None]
        summed = self._machine.reduce(torch.cat([one.flatten() for one in gradients]), "sum")
        for one, part in zip(
            gradients, summed.split([one.numel() for one in gradients]), strict=True
        ):
            one.copy_(part.view_as(one))


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def learning_rate(step: int, steps: int, *, lr: float, min_lr: float, warmup: int) -> float:
    """Rise for `warmup` steps, then fall along half a cosine; the last step has `min_lr`.

    `step` counts from 0. A training of one step has `lr`.
    """
    if step < warmup:
        return lr * (step + 1) / (warmup + 1)
    fallen = (step - warmup) / max(1, steps - 1 - warmup)
    return min_lr + (lr - min_lr) * (1 + math.cos(math.pi * fallen)) / 2
