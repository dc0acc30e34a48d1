"""Which validation pairs are asked about: as many as the training is worth, of all kinds alike."""

import math
from collections.abc import Sequence

import numpy as np

from murank import InputError
from murank.pairs.labelled import Pair
from murank_export.adapt.train_settings import TrainSettings

_SHARE = 0.1  # of the pairs that are learnt from, all validations together
_LEAST, _MOST = 200, 2000  # an AUC of 200 pairs is known to about 0.03; of 2,000 to 0.01


def validation_size(settings: TrainSettings, train: int, val: int, processes: int) -> int:
    """Return how many of `val` pairs each validation asks about.

    Parameters
    ----------
    settings
        Those of the training; its `val_pairs`, if given, decides.
    train, val
        Pairs of train.json and of val.json.
    processes
        That share each step.
    """
    if settings.val_pairs == "all":
        return val
    return min(val, settings.val_pairs or _share_of_budget(settings, train, processes))


def _share_of_budget(settings: TrainSettings, train: int, processes: int) -> int:
    a_step = settings.groups_at_once * settings.pack * settings.accumulate * processes
    learnt = settings.epochs * train if settings.steps is None else settings.steps * a_step
    between = train if settings.eval_every is None else settings.eval_every * a_step
    validations = 1 + math.ceil(learnt / between)
    return max(_LEAST, min(_MOST, round(_SHARE * learnt / validations)))


def chosen(pairs: Sequence[Pair], size: int, seed: int) -> list[Pair]:
    """Return `size` of the pairs, in their order: both answers as often as among all, rounded.

    Of each answer one pair of every query comes first, then a second one. Equal seeds, equal pairs.

    Raises
    ------
    InputError
        They are too few to hold both answers.
    """
    if size >= len(pairs):
        return list(pairs)
    kinds = [[n for n, pair in enumerate(pairs) if pair.match is match] for match in (True, False)]
    matches = min(max(round(size * len(kinds[0]) / len(pairs)), 1), size - 1)
    if matches < 1:
        raise InputError(f"{size} of the pairs of val.json cannot hold both answers: --val-pairs")
    random = np.random.default_rng(seed)
    found: list[int] = []
    for kind, count in zip(kinds, (matches, size - matches), strict=True):
        mixed = [kind[place] for place in random.permutation(len(kind))]
        found += sorted(mixed, key=_rounds(pairs, mixed).__getitem__)[:count]
    return [pairs[number] for number in sorted(found)]


def _rounds(pairs: Sequence[Pair], numbers: Sequence[int]) -> dict[int, int]:
    """Return how many pairs of its query come before each."""
    seen: dict[str, int] = {}
    rounds = {}
    for number in numbers:
        query = pairs[number].query
        rounds[number] = seen.get(query, 0)
        seen[query] = rounds[number] + 1
    return rounds
