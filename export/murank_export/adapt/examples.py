"""Labelled pairs, checked, and put together by query. No torch here."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from murank import InputError
from murank.pairs.labelled import Pair, load_pairs, without_junk

TRAIN, VAL = "train.json", "val.json"
Group = tuple[Pair, ...]  # candidates of one query: a sequence


@dataclass(frozen=True)
class Splits:
    """Pairs to learn from and pairs to measure by; paths can be opened as they stand."""

    train: list[Pair]
    val: list[Pair]
    junk: int = 0  # pairs that were left out: an image's name says pid -1


def load_splits(folder: Path, root: Path) -> Splits:
    """Read train.json and val.json of a folder, and look whether all images are there.

    Parameters
    ----------
    folder
        What `murank adapt mine` wrote.
    root
        Where relative paths begin.

    Raises
    ------
    InputError
        A file cannot be read, its answers are all alike, or an image is missing.
    """
    files = [folder / TRAIN, folder / VAL]
    given = [load_pairs(file) for file in files]
    train, val = ([_found(pair, root) for pair in without_junk(pairs)] for pairs in given)
    junk = sum(map(len, given)) - len(train) - len(val)
    for file, pairs in zip(files, (train, val), strict=True):
        _check_both(pairs, str(file))
    _check_images([*train, *val])
    return Splits(train, val, junk)


def grouped(
    pairs: Iterable[Pair], most: int, random: np.random.Generator | None = None
) -> list[Group]:
    """Put pairs of the same query together, up to `most` of them; in random order if asked.

    The number of groups does not depend on the order.
    """
    by_query: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_query.setdefault(pair.query, []).append(pair)
    groups: list[Group] = []
    for one in by_query.values():
        order = range(len(one)) if random is None else random.permutation(len(one))
        mixed = [one[index] for index in order]
        groups += [tuple(mixed[start : start + most]) for start in range(0, len(mixed), most)]
    if random is not None:
        groups = [groups[index] for index in random.permutation(len(groups))]
    return groups


class StepOrder:
    """Which groups each step sees: every group once an epoch, in another order each time.

    A function of the seed and the step alone, so that a training can go on from any step.
    """

    def __init__(self, pairs: Sequence[Pair], *, pack: int, groups_a_step: int, seed: int) -> None:
        self._pairs, self._pack, self._seed = pairs, pack, seed
        self._groups_a_step = groups_a_step
        self._epoch, self._groups = -1, grouped(pairs, pack)
        self.steps_an_epoch = math.ceil(len(self._groups) / groups_a_step)

    def groups(self, step: int) -> list[Group]:
        """Return the groups of a step, counted from 0; the last of an epoch may be smaller."""
        epoch, place = divmod(step, self.steps_an_epoch)
        if epoch != self._epoch:
            random = np.random.default_rng((self._seed, epoch))
            self._epoch, self._groups = epoch, grouped(self._pairs, self._pack, random)
        start = place * self._groups_a_step
        return self._groups[start : start + self._groups_a_step]


def batches(groups: Sequence[Group], size: int) -> list[Sequence[Group]]:
    """Cut a list of groups into batches."""
    return [groups[start : start + size] for start in range(0, len(groups), size)]


def _found(pair: Pair, root: Path) -> Pair:
    return Pair(str(root / pair.query), str(root / pair.candidate), pair.match)


def _check_both(pairs: Sequence[Pair], name: str) -> None:
    answers = {pair.match for pair in pairs}
    if not answers:
        raise InputError(f"{name}: each pair has an image of junk, whose name says pid -1")
    if len(answers) < 2:
        only = "Yes" if True in answers else "No"
        raise InputError(f"{name}: every answer is {only}; both Yes and No are needed")


def _check_images(pairs: Iterable[Pair]) -> None:
    paths = dict.fromkeys(path for pair in pairs for path in (pair.query, pair.candidate))
    missing = [path for path in paths if not Path(path).is_file()]
    if missing:
        raise InputError(
            f"{missing[0]}: no such image ({len(missing)} of {len(paths)} are missing); relative "
            "paths begin at --image-root"
        )
