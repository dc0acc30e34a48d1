"""Who looks for neighbours, in which order and how often begun anew does not change a bit."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from murank_kernels import (
    InvalidInputError,
    ca_jaccard,
    ca_jaccard_blocks,
    ecn,
    ecn_blocks,
    k_reciprocal,
    k_reciprocal_blocks,
)
from murank_kernels.tiles import search as searches
from murank_kernels.tiles.distances import squared_norms
from murank_kernels.tiles.lists import Lists
from murank_kernels.tiles.neighbors import neighbors
from murank_kernels.tiles.search import SearchWork, exact_search
from murank_kernels.tiles.strips import STRIP, bounds_of, search_pair, strip_pairs

RAGGED = 2 * STRIP + 700  # two strips, and one with a tile and some rows


@cache
def rows(count: int) -> NDArray[np.float32]:
    """Few directions, so that distances tie; some rows stand twice, in other strips too."""
    random = np.random.default_rng(count)
    made = random.integers(-2, 3, (count, 6)).astype(np.float32) + np.float32(0.25)
    made[count // 2 : count // 2 + count // 8] = made[: count // 8]
    return made


@cache
def pairs(count: int) -> dict[str, Any]:
    """Mu of some pairs, far ones too: a row's largest distance may be one of them."""
    random = np.random.default_rng(1)
    first = random.integers(0, count - 1, (count // 8, 1))
    candidates = np.concatenate([first, (first + 1 + count // 2) % (count - count // 8)], axis=1)
    candidates = np.where(candidates[:, :1] == candidates[:, 1:], [[0, 1]], candidates)
    candidates %= count - count // 8
    candidates[candidates[:, 0] == candidates[:, 1]] = [0, 1]
    return {"mu": random.random(candidates.shape), "candidates": candidates}


@dataclass
class Workers:
    """Does pairs of strips as so many workers would who finish in an order of their own."""

    count: int
    bounded: bool = False  # told what is too far by what others have found
    asked: list[tuple[int, int]] = field(default_factory=list)

    def __call__(self, work: SearchWork) -> Lists:
        norms = squared_norms(work.features)
        todo = strip_pairs(len(work.features))
        lists = work.lists()
        for worker in reversed(range(self.count)):
            for pair in todo[worker :: self.count]:
                self.asked.append(pair)
                found = search_pair(
                    pair,
                    work.features,
                    norms,
                    work.changes,
                    work.cameras,
                    work.length,
                    bounds_of(pair, lists) if self.bounded else None,
                )
                for first, part in found:
                    lists.merge(part, first)
        return lists


@pytest.mark.parametrize("cameras", [None, 3])
@pytest.mark.parametrize("num_rows", [700, STRIP, RAGGED])
def test_strips_are_merged_to_the_same_lists(num_rows: int, cameras: int | None) -> None:
    fusion = pairs(num_rows)
    num_query = num_rows // 8
    labels = None if cameras is None else np.arange(num_rows, dtype=np.int32) % cameras
    from murank_kernels.fusion.fusion import Fusion
    from murank_kernels.tiles.prepare import MethodInput, prepare

    ready = prepare(MethodInput(rows(num_rows), num_query, Fusion(**fusion)))
    given: dict[str, Any] = {"num_query": num_query, "cameras": labels}
    wanted = neighbors(ready.features, 7, ready.changes, **given)
    for count, bounded in ((1, False), (1, True), (2, True), (5, False), (5, True)):
        workers = Workers(count, bounded)
        found = neighbors(ready.features, 7, ready.changes, search=workers, **given)
        assert len(set(workers.asked)) == len(workers.asked) == len(strip_pairs(num_rows))
        for name, array in vars(wanted).items():
            assert_array_equal(getattr(found, name), array, err_msg=name)


def test_a_pair_reads_its_strips_alone() -> None:
    """As a worker does that maps them: all other rows may be anything."""
    features = rows(RAGGED)
    norms = squared_norms(features)
    none = SearchWork(features, 1, no_changes(len(features)), np.empty(0, np.int32), 6)
    spoilt, spoilt_norms = np.full_like(features, np.nan), np.full_like(norms, np.nan)
    for strip in (0, 2):
        part = slice(strip * STRIP, (strip + 1) * STRIP)
        spoilt[part], spoilt_norms[part] = features[part], norms[part]
    arguments = (none.changes, none.cameras, none.length)
    wanted = search_pair((0, 2), features, norms, *arguments)
    found = search_pair((0, 2), spoilt, spoilt_norms, *arguments)
    assert [first for first, _ in found] == [0, 2 * STRIP]
    for (_, one), (_, other) in zip(wanted, found, strict=True):
        for name, array in vars(one).items():
            assert_array_equal(getattr(other, name), array, err_msg=name)


def no_changes(count: int) -> Any:
    from murank_kernels.fusion.changes import Changes

    return Changes.none(count)


class StoppedError(Exception):
    """The process is gone."""


class Keeper:
    """A checkpoint in memory; ends the work after so many saves."""

    def __init__(self, most: int) -> None:
        self.kept: dict[str, NDArray[Any]] | None = None
        self.most = most

    def load(self) -> Mapping[str, NDArray[Any]] | None:
        return self.kept

    def due(self) -> bool:
        return True

    def save(self, state: Mapping[str, NDArray[Any]]) -> None:
        if not self.most:
            raise StoppedError
        self.most -= 1
        self.kept = {name: array.copy() for name, array in state.items()}


def resumed(keeper: Keeper) -> Any:
    return lambda work: exact_search(work, checkpoint=keeper)


METHODS: dict[str, Any] = {
    "k-reciprocal": (k_reciprocal, k_reciprocal_blocks, ()),
    "ecn": (ecn, ecn_blocks, ()),
    "ca-jaccard": (ca_jaccard, ca_jaccard_blocks, (np.arange(1500) % 4,)),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_search_goes_on_where_it_was(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searches, "_AT_ONCE", 2)  # of 6 tiles
    at_once, in_blocks, arguments = METHODS[name]
    features, q = rows(1500), 187
    fusion = pairs(1500)
    wanted = at_once(features, q, *arguments, **fusion)
    keeper = Keeper(1)
    given = {"search": resumed(keeper), **fusion}
    with pytest.raises(StoppedError):
        in_blocks(features, q, *arguments, **given).dense()
    assert keeper.kept is not None
    assert int(keeper.kept["done"]) == 2
    keeper.most = 9
    seen: list[tuple[str, int]] = []
    found = in_blocks(
        features, q, *arguments,
        progress=lambda stage, done, _total: seen.append((stage, done)), **given,
    ).dense()  # fmt: skip
    tiles = [done for stage, done in seen if stage == "neighbours"]
    assert min(tiles) > 2  # the first two were known; two threads may tell of two at once
    assert max(tiles) == 6
    assert_array_equal(found, wanted)


@pytest.mark.parametrize("change", ["none", "shape", "dtype", "done", "lost"])
def test_what_does_not_fit_is_not_gone_on_with(change: str) -> None:
    features = rows(1500)
    work = SearchWork(features, 9, no_changes(1500), np.empty(0, np.int32), 8)
    wanted = exact_search(work)
    keeper = Keeper(0)
    state = {"done": np.array(5), **Lists.start(1500, 8, with_cameras=False).to_arrays()}
    state["row_max"][:] = 9  # would be seen in the result
    if change == "shape":
        state["indices"] = state["indices"][:, 1:]
    if change == "dtype":
        state["distances"] = state["distances"].astype(np.float64)
    if change == "done":
        state["done"] = np.array(99)
    if change == "lost":
        del state["other_indices"]
    keeper.kept, keeper.most = None if change == "none" else state, 9
    found = exact_search(work, checkpoint=keeper)
    for name, array in vars(wanted).items():
        assert_array_equal(getattr(found, name), array, err_msg=name)


def test_blocks_from_a_query_on() -> None:
    features = np.random.default_rng(0).random((900, 8), np.float32)
    blocks = k_reciprocal_blocks(features, 600)
    blocks_of_128 = [(first, part) for first, part in small(blocks)]
    assert [first for first, _ in blocks_of_128] == [0, 128, 256, 384, 512]
    for first, part in small(k_reciprocal_blocks(features, 600), 384):
        assert_array_equal(part, dict(blocks_of_128)[first])
    assert list(small(blocks, 600)) == []
    with pytest.raises(InvalidInputError, match="first_query"):
        small(blocks, 100)


def small(blocks: Any, first: int = 0) -> Any:
    """Iterate over blocks of the least height."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("murank_kernels.tiles.distance_blocks.BLOCK_BYTES", 1)
        return iter(blocks) if first == 0 else blocks.after(first)


def test_a_search_is_of_the_cpu() -> None:
    with pytest.raises(InvalidInputError, match="search"):
        k_reciprocal_blocks(rows(700), 9, device="cuda", search=Workers(1))
