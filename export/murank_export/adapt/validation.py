"""How well an adapter tells persons apart: loss, accuracy, and the area under the ROC curve."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from murank import InputError
from murank.pairs.labelled import Pair
from murank.rerank.methods import Progress
from murank.rerank.mu_auc import auc
from murank_export.adapt.answers import IGNORED
from murank_export.adapt.examples import batches, grouped
from murank_export.adapt.question import Question, answer_loss

_PACK, _AT_ONCE = 8, 2  # candidates of a sequence, sequences: answers do not depend on either


@dataclass(frozen=True)
class Evaluation:
    """What validation found after a step."""

    step: int
    loss: float  # a token of the answers
    accuracy: float  # answers that are right, [0,1]
    auc: float  # of the log-odds, [0,1]

    def better_than(self, other: "Evaluation | None") -> bool:
        """By AUC; where that is equal, as it is once all pairs are told apart, by loss."""
        return other is None or (self.auc, -self.loss) > (other.auc, -other.loss)

    def to_json(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return asdict(self)


def validate(
    question: Question, pairs: Sequence[Pair], machine: Any, step: int, progress: Progress
) -> Evaluation:
    """Ask about all pairs, shared between the processes of `machine` (an Accelerator).

    `progress` is called with ("validation pairs", done, all) by the main one.

    Raises
    ------
    InputError
        An image cannot be read, or answers are NaN or infinite.
    """
    from accelerate.utils import gather_object  # type: ignore[import-untyped]

    model = question.checkpoint.model
    was_training = model.training
    model.eval()
    mine = grouped(pairs, _PACK)[machine.process_index :: machine.num_processes]
    rows: list[list[float]] = []
    for groups in batches(mine, _AT_ONCE):
        rows += _ask(question, groups)
        if machine.is_main_process:  # the others are about as far
            progress(
                "validation pairs", min(len(rows) * machine.num_processes, len(pairs)), len(pairs)
            )
    model.train(was_training)
    odds, matches, losses, tokens = np.array(gather_object(rows), dtype=np.float64).T
    wrong = int((~np.isfinite(odds + losses)).sum())
    if wrong:
        raise InputError(
            f"step {step}: answers to {wrong} of {len(odds)} validation pairs are not finite; the "
            "model is damaged, or --lr too high"
        )
    is_match = matches > 0
    return Evaluation(
        step,
        loss=float(losses.sum() / tokens.sum()),
        accuracy=float(((odds > 0) == is_match).mean()),
        auc=auc(-odds, is_match),
    )


@torch.no_grad()  # what is cached meanwhile must serve training, too
def _ask(question: Question, groups: Sequence[Sequence[Pair]]) -> list[list[float]]:
    """Rows of log-odds, match, loss, tokens: one a pair."""
    batch = question.batch([tuple(group) for group in groups]).to(question.device)
    logits = question.logits(batch)
    odds = question.log_odds(logits).tolist()
    rows = []
    for index, group in enumerate(groups):
        for place, pair in enumerate(group):
            targets = batch.targets[index, place]
            loss = answer_loss(logits[index, place], targets)
            tokens = int((targets != IGNORED).sum())
            rows.append([odds[index][place], float(pair.match), float(loss), float(tokens)])
    return rows
