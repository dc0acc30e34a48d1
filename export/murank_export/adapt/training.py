"""A training under way: steps, validations, what is written of them and when."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from murank.prompt import PromptTemplate
from murank.rerank.methods import Progress
from murank_export.adapt.checkpoints import ADAPTER, RunFolder, Saved
from murank_export.adapt.examples import Splits, StepOrder
from murank_export.adapt.interrupt import Interrupt, caught_interrupt
from murank_export.adapt.loop import Loop, TrainingStep
from murank_export.adapt.lora import adapter_files
from murank_export.adapt.question import Question
from murank_export.adapt.train_settings import TrainSettings
from murank_export.adapt.validation import Evaluation, validate
from murank_export.engine.steps import Report


@dataclass(frozen=True)
class Trained:
    """A training that is finished."""

    adapter: Path  # PEFT folder: the best by AUC of the validation pairs
    steps: int
    seconds: float  # of the steps
    before: Evaluation
    best: Evaluation
    last: Evaluation

    def to_json(self) -> dict[str, Any]:
        """Return the result as training.json has it."""
        return {key: value for key, value in asdict(self).items() if key != "adapter"}


class Training:
    """Steps through a training. Of several processes, the main one alone writes and tells."""

    def __init__(
        self,
        settings: TrainSettings,
        splits: Splits,
        question: Question,
        template: PromptTemplate,
        folder: RunFolder,
        machine: Any,
    ) -> None:
        self._settings, self._splits, self._question = settings, splits, question
        self._template, self._folder, self._machine = template, folder, machine
        plan = StepOrder(
            splits.train,
            pack=settings.pack,
            groups_a_step=settings.groups_at_once * settings.accumulate * machine.num_processes,
            seed=settings.seed,
        )
        self._eval_every = settings.eval_every or plan.steps_an_epoch
        self._steps = settings.steps or settings.epochs * plan.steps_an_epoch
        self._loop = Loop(settings, question, plan, self._steps, machine)
        self._done, self._seconds = 0, 0.0
        self._evaluations: list[Evaluation] = []
        self._best: Evaluation | None = None

    def begin(
        self, record: Mapping[str, Any], saved: Saved | None, tell: Report, progress: Progress
    ) -> None:
        """Make the folder ready, and go back to where `saved` was."""
        self._record, self._tell, self._progress = record, tell, progress
        if self._machine.is_main_process:
            self._folder.begin({**record, "result": None}, saved)
        if saved is not None:
            self._loop.restore(saved.weights, saved.optimizer)
            self._done, self._seconds = saved.step, saved.seconds
            self._evaluations = [Evaluation(**one) for one in saved.evaluations]
            self._best = None if saved.best is None else Evaluation(**saved.best)
            tell(f"going on after step {saved.step} of {self._steps}")

    def run(self) -> Trained:
        """Do what is left.

        Raises
        ------
        KeyboardInterrupt
            Ctrl-C was pressed; if a step was done, a checkpoint is saved.
        """
        if not self._evaluations:
            self._evaluate()  # there is nothing to save as yet: Ctrl-C ends it at once
        with caught_interrupt() as interrupt:
            self._step_on(interrupt)
        return self._finish()

    def _step_on(self, interrupt: Interrupt) -> None:
        for step in self._loop.run(self._done):
            self._note(step)
            due = self._done % self._eval_every == 0 or self._done == self._steps
            if due:
                self._evaluate()
            stop = interrupt.anywhere(self._machine)
            # After an evaluation, too: which was the best must fit the adapter that is kept.
            if stop or due or self._done % self._settings.save_every == 0:
                self._save()
            if stop:
                self._tell(
                    f"stopped after step {self._done} of {self._steps}, all is saved in "
                    f"{self._folder.path}; the same command goes on from there"
                )
                raise KeyboardInterrupt

    def _note(self, step: TrainingStep) -> None:
        self._done, self._seconds = step.step, self._seconds + step.seconds
        speed = step.pairs / step.seconds
        if self._machine.is_main_process:
            self._folder.log({**asdict(step), "pairs_per_s": speed})
            left = self._seconds / self._done * (self._steps - self._done)
            text = f"loss {step.loss:.4f}, {speed:.1f} pairs/s, {_clock(left)} left, step"
            self._progress(text, self._done, self._steps)

    def _evaluate(self) -> None:
        """Measure; the adapter is kept if it is the best so far."""
        found = validate(
            self._question, self._splits.val, self._machine, self._done, self._progress
        )
        self._evaluations.append(found)
        best = self._done > 0 and found.better_than(self._best)
        if best:
            self._best = found
        if not self._machine.is_main_process:
            return
        if best:
            files = adapter_files(
                self._question.adapted, self._settings.layout, self._template.sha256,
                (self._question.how.height, self._question.how.width),
            )  # fmt: skip
            self._folder.write(ADAPTER, files)
        self._folder.log({"step": self._done, "val": found.to_json()})
        self._tell(
            f"step {self._done}: validation loss {found.loss:.4f}, accuracy {found.accuracy:.4f}, "
            f"AUC {found.auc:.4f}"
        )

    def _save(self) -> None:
        if not self._machine.is_main_process:
            return
        saved = Saved(
            step=self._done,
            seconds=self._seconds,
            evaluations=[one.to_json() for one in self._evaluations],
            best=None if self._best is None else self._best.to_json(),
            weights={name: value.detach() for name, value in self._loop.weights.items()},
            optimizer=self._loop.optimizer.state_dict(),
        )
        self._folder.save(saved)

    def _finish(self) -> Trained:
        before, last = self._evaluations[0], self._evaluations[-1]
        if not (self._best or last).better_than(before):
            self._tell(
                "note: no step answered the validation pairs better than the model did before; "
                "more pairs, or a smaller --lr or --steps, may help"
            )
        path = self._folder.path / ADAPTER
        trained = Trained(path, self._done, self._seconds, before, self._best or last, last)
        if self._machine.is_main_process:
            self._folder.finish({**self._record, "result": trained.to_json()})
        self._machine.wait_for_everyone()
        return trained


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
