"""Pairs of images as numbers of contents: equal files are one."""

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from murank.jobs.asked_pairs import Pairs
from murank.jobs.desk import Desk
from murank.jobs.engine_work import CANDIDATE, QUERY
from murank.jobs.image_contents import NoContent, shown
from murank.jobs.job_units import AskUnit, OneOrder
from murank.jobs.pair_skips import Skip, once_each
from murank.journal.journal import Digest
from murank.journal.known_mu import KnownMu, PairKeys, pair_keys

_MOST_FILES = 4  # of one content that are remembered
_NONE = -1  # the number of what cannot be read

Flags = NDArray[np.bool_]


@dataclass
class NumberedPairs:
    """The pairs of a stage."""

    pairs: Pairs
    keys: PairKeys  # [Q,K]; -1 where an image cannot be read
    first: NDArray[np.int64]  # [Q] number of each query
    second: NDArray[np.int64]  # [Q,K] number of each candidate
    files: dict[int, list[str]]  # of a number: files that have the content
    digests: dict[int, Digest]  # of a number
    unread: dict[str, str]  # by path: why it cannot be read
    out: dict[int, str] = field(default_factory=dict)  # by number: why it cannot be used
    lost: dict[int, str] = field(default_factory=dict)  # by key: why it has no answer, this time
    gone: dict[int, str] = field(default_factory=dict)  # by number: no file has it any more
    _moved: bool = False

    @classmethod
    def of(cls, pairs: Pairs, desk: Desk) -> "NumberedPairs":
        """Read what has to be read of the images."""
        queries, gallery = pairs.contents(desk)
        files: dict[int, list[str]] = {}
        digests: dict[int, Digest] = {}
        unread: dict[str, str] = {}
        first = np.array(
            [
                _number(content, path, desk, files, digests, unread)
                for content, path in zip(queries, pairs.query_paths, strict=True)
            ],
            np.int64,
        )
        numbers = np.full(len(pairs.gallery_paths), _NONE, np.int64)
        for row, content in gallery.items():
            numbers[row] = _number(content, pairs.gallery_paths[row], desk, files, digests, unread)
        second = numbers[pairs.candidates]
        firsts = np.broadcast_to(first[:, None], second.shape)
        is_none = (firsts == _NONE) | (second == _NONE)
        keys = np.where(is_none, _NONE, pair_keys(firsts, second))
        numbered = cls(pairs, keys, first, second, files, digests, unread)
        desk.used.update(digests.values())
        for number, digest in digests.items():
            reason = desk.journal.unusable(desk.asks, digest)
            if reason is not None:
                numbered.out[number] = reason
        return numbered

    @property
    def num_images(self) -> int:
        """How many files take part."""
        return len(self.digests) + len(self.unread)

    @property
    def images_out(self) -> list[str]:
        """Why files cannot be used."""
        out = [
            shown(reason, (self.files[number] or ["an image"])[0])
            for number, reason in self.out.items()
        ]
        return [*self.unread.values(), *out]

    def cannot_read(self, digest: Digest, path: str, reason: str, desk: Desk) -> None:
        """Leave a file out; others of the same content stand for it."""
        self.unread[path] = reason
        number = desk.journal.number(digest)
        if path in self.files[number]:
            self.files[number].remove(path)
            self.gone |= {} if self.files[number] else {number: reason}
            self._moved = True

    def moved(self) -> bool:
        """Whether files were left out since this was asked last."""
        moved, self._moved = self._moved, False
        return moved

    def new(self, known: KnownMu, wanted: Flags) -> Flags:
        """Return [Q,K] which pairs of `wanted` [Q] rows are to be asked: each content pair once."""
        _, is_known = known.look_up(self.keys)
        out = np.array([_NONE, *self.out, *self.gone], np.int64)
        is_new = ~is_known & wanted[:, None] & ~np.isin(self.first, out)[:, None]
        is_new &= ~np.isin(self.second, out)
        is_new &= ~np.isin(self.keys, np.array([*self.lost], np.int64))
        places = np.flatnonzero(is_new)
        _, firsts = np.unique(self.keys.ravel()[places], return_index=True)
        once = np.zeros(is_new.size, bool)
        once[places[firsts]] = True
        return once.reshape(is_new.shape)

    def unit(self, rows: Sequence[int], orders: Mapping[OneOrder, Flags]) -> AskUnit:
        """Return the unit that asks for the pairs of these rows that are new in any order."""
        part = np.array(rows)
        any_order = np.logical_or.reduce([flags[part] for flags in orders.values()])
        row, column = np.nonzero(any_order)
        pairs = np.stack([self.first[part[row]], self.second[part[row], column]], axis=1)
        numbers, first_seen, places = np.unique(pairs, return_index=True, return_inverse=True)
        order = np.argsort(first_seen, kind="stable")  # as a reader would list them
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        shown_numbers = numbers[order].tolist()
        return AskUnit(
            tuple(rows),
            tuple(self.files[number][0] for number in shown_numbers),
            tuple(self.digests[number] for number in shown_numbers),
            rank[places].reshape(-1, 2).astype(np.int32),
            {name: flags[part][row, column] for name, flags in orders.items()},
        )

    def settled(self, known: KnownMu, wanted: Flags) -> tuple[NDArray[np.float32], list[Skip]]:
        """Return mu [Q,K], neutral where there is no answer, and the images that lack answers."""
        mu, _ = known.look_up(self.keys)
        lacking = np.isnan(mu)
        skips = [
            skip
            for row, column in np.argwhere(lacking & wanted[:, None]).tolist()
            for skip in self._why(row, column, known)
        ]
        mu[lacking] = self.pairs.neutral_mu()[lacking]
        return mu, once_each(skips, operator.add)

    def _why(self, row: int, column: int, known: KnownMu) -> Iterator[Skip]:
        query = str(self.pairs.query_paths[row])
        candidate = str(self.pairs.gallery_paths[self.pairs.candidates[row, column]])
        is_explained = False
        for path, number in {
            query: int(self.first[row]), candidate: int(self.second[row, column])
        }.items():  # fmt: skip
            reason = self.unread.get(path) or self.out.get(number) or self.gone.get(number)
            if reason is not None:
                is_explained = True
                yield Skip(path, shown(reason, path), 1)
        if not is_explained:
            key = int(self.keys[row, column])
            reason = self.lost.get(key) or known.reasons.get(key, "it was not asked about")
            yield Skip(query, reason.replace(QUERY, query).replace(CANDIDATE, candidate), 1)


def _number(
    content: Digest | NoContent,
    path: object,
    desk: Desk,
    files: dict[int, list[str]],
    digests: dict[int, Digest],
    unread: dict[str, str],
) -> int:
    if isinstance(content, NoContent):
        unread[str(path)] = content.reason
        return _NONE
    number = desk.journal.number(content)
    names = files.setdefault(number, [])
    if len(names) < _MOST_FILES and str(path) not in names:
        names.append(str(path))
    digests[number] = content
    return number
