"""Stages of a training that may be killed: it goes on where it was last kept, to the same weights.

What is kept is all that decides: weights, optimiser, random state, step. It is written aside,
synced and renamed, so that a kill leaves the older file or the newer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from murank.files.atomic import write_files

Say = Callable[[str], None]
_WARM_UP, _FLOOR = 100, 0.03  # steps, at most a quarter; share of the peak at the end
_SPOKEN, _KEPT = 100, 200  # steps between lines, and between files


@dataclass(frozen=True)
class Stage:
    """Some steps of one kind."""

    name: str
    steps: int
    loss: Callable[[], tuple[Tensor, float]]  # to be minimised; what is shown of it
    peaks: Mapping[str, float]  # part of the model -> highest learning rate; others stand still
    begin: Callable[[], None] = lambda: None  # before its first step
    figure: Callable[[], str] = lambda: ""  # what it is worth now


@dataclass
class Training:
    """Stages in turn, over named parts of a model."""

    parts: Mapping[str, nn.Module]
    say: Say
    kept: Path  # the file

    def run(self, stages: Sequence[Stage], settings: Mapping[str, Any], seed: int) -> None:
        """Train in place; `settings` are of what is kept: other ones are refused (ValueError)."""
        identity = {**settings, "seed": seed, "stages": [(s.name, s.steps) for s in stages]}
        torch.manual_seed(seed)
        state = self._found(identity)
        first = 0 if state is None else state["stage"]
        for number in range(first, len(stages)):
            self._stage(stages[number], number, identity, state)
            state = None

    def _found(self, identity: Mapping[str, Any]) -> dict[str, Any] | None:
        if not self.kept.exists():
            return None
        state: dict[str, Any] = torch.load(self.kept, weights_only=True)
        if state["identity"] != identity:
            raise ValueError(f"{self.kept} is of a training with other settings; delete it")
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        torch.set_rng_state(state["random"])
        self.say(f"goes on at stage {state['stage']}, step {state['step']}")
        return state

    def _stage(
        self, stage: Stage, number: int, identity: Mapping[str, Any], state: dict[str, Any] | None
    ) -> None:
        first = 0 if state is None else state["step"]
        if first == 0:
            stage.begin()
        optimiser = self._optimiser(stage)
        if first:
            assert state is not None
            optimiser.load_state_dict(state["optimiser"])
        mean = state["mean"] if first and state is not None else None
        start = time.process_time()
        for step in range(first, stage.steps):
            shown = self._step(stage, optimiser, step)
            mean = shown if mean is None else 0.98 * mean + 0.02 * shown
            done = step + 1
            if done % _SPOKEN == 0 or done == stage.steps:
                spent = time.process_time() - start
                self.say(
                    f"{stage.name} {done}/{stage.steps} loss {mean:.3f} {spent:.0f} CPU s"
                    + (f" {stage.figure()}" if done % (4 * _SPOKEN) == 0 else "")
                )
            if done % _KEPT == 0 and done < stage.steps:
                self._keep(identity, number, done, mean, optimiser)
        self.say(f"{stage.name} done {stage.figure()}")
        self._keep(identity, number + 1, 0, None, None)

    def _optimiser(self, stage: Stage) -> torch.optim.AdamW:
        groups = [
            {"params": list(self.parts[name].parameters()), "peak": peak}
            for name, peak in stage.peaks.items()
        ]
        for name, part in self.parts.items():
            part.requires_grad_(name in stage.peaks)
        return torch.optim.AdamW(groups, weight_decay=0.02, betas=(0.9, 0.98))

    def _step(self, stage: Stage, optimiser: torch.optim.AdamW, step: int) -> float:
        """Take one step: warm-up, then a cosine to a small rest."""
        share = _FLOOR + (1 - _FLOOR) * (0.5 + 0.5 * math.cos(math.pi * step / stage.steps))
        warm_up = max(1, min(_WARM_UP, stage.steps // 4))
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * share * min(1.0, (step + 1) / warm_up)
        loss, shown = stage.loss()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for group in optimiser.param_groups:
            nn.utils.clip_grad_norm_(group["params"], 1.0)
        optimiser.step()
        return shown

    def _keep(
        self, identity: Mapping[str, Any], stage: int, step: int, mean: float | None,
        optimiser: torch.optim.AdamW | None,
    ) -> None:  # fmt: skip
        state = {
            "identity": identity, "stage": stage, "step": step, "mean": mean,
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "optimiser": None if optimiser is None else optimiser.state_dict(),
            "random": torch.get_rng_state(),
        }  # fmt: skip
        write_files(self.kept.parent, {self.kept.name: lambda file: torch.save(state, file)})
