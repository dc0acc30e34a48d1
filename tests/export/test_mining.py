"""Hard mining against a plain N x N version."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from murank import InputError
from murank.pairs.labelled import Pair
from murank_export.adapt import hardest
from murank_export.adapt.mining import Mined, MinedPairs, mine_pairs
from murank_export.adapt.mining_settings import MiningSettings
from murank_export.adapt.split import split_ids

Rows = list[tuple[int, int, bool]]


def similarities(features: NDArray[Any]) -> NDArray[np.float64]:
    wide = features.astype(np.float64)
    wide /= np.sqrt((wide**2).sum(axis=1, keepdims=True))
    result: NDArray[np.float64] = wide @ wide.T
    return result


def by_hand(
    similar: NDArray[Any], pids: Any, ids: Any, k: int, camids: Any = None
) -> tuple[Rows, list[float]]:
    """Every query of `ids` in turn, its positives, its negatives: sorted whole."""
    pairs: Rows = []
    side = [i for i in range(len(pids)) if pids[i] in ids]
    for q in side:
        same = [i for i in side if i != q and pids[i] == pids[q]]
        if camids is not None:
            same = [i for i in same if camids[i] != camids[q]]
        others = [i for i in side if pids[i] != pids[q]]
        same.sort(key=lambda i: (similar[q, i], i))
        others.sort(key=lambda i: (-similar[q, i], i))
        pairs += [(q, i, True) for i in same[:k]] + [(q, i, False) for i in others[:k]]
    return pairs, [float(similar[q, i]) for q, i, _ in pairs]


def rows_of(pairs: MinedPairs) -> Rows:
    columns = pairs.queries.tolist(), pairs.candidates.tolist(), pairs.match.tolist()
    return list(zip(*columns, strict=True))


def people(
    count: int = 90, ids: int = 12, dim: int = 16, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Features of different lengths, person ids with gaps, cameras."""
    random = np.random.default_rng(seed)
    features = random.standard_normal((count, dim)) * random.uniform(0.1, 9, (count, 1))
    pids = random.integers(0, ids, count) * 7 + 3
    return features.astype(np.float32), pids, random.integers(0, 3, count)


@pytest.mark.parametrize("cross_camera", [False, True])
@pytest.mark.parametrize("k", [1, 3, 1000])
def test_the_hardest_of_each_kind(k: int, cross_camera: bool) -> None:
    features, pids, camids = people()
    how = MiningSettings(k=k, val_ratio=0.3, seed=5, cross_camera=cross_camera)
    found = mine_pairs(features, pids, camids, how)
    similar = similarities(features)
    for part, ids in (("train", found.train_ids), ("val", found.val_ids)):
        cameras = camids if cross_camera else None
        rows, values = by_hand(similar, pids, set(ids.tolist()), k, cameras)
        assert rows_of(found.parts[part]) == rows
        assert np.allclose(found.parts[part].similarity, values, atol=1e-6)
    assert set(found.parts) == {"train", "val"}


@st.composite
def small_sets(draw: st.DrawFn) -> dict[str, Any]:
    """Vectors whose cosines are exact in any precision, with ties all over."""
    count = draw(st.integers(2, 20))
    one = st.sampled_from([[4.0, 0, 0, 0], [0, 0, -0.5, 0], [0, 2.0, 0, 0]])
    full = st.lists(st.sampled_from([-1.0, 1.0]), min_size=4, max_size=4)

    def each(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=count, max_size=count))

    return {
        "features": each(one | full),
        "pids": each(st.integers(-1, 4)),
        "camids": each(st.integers(0, 1)),
        "k": draw(st.integers(1, 4)),
        "ratio": draw(st.sampled_from([0.2, 0.5, 0.7])),
        "seed": draw(st.integers(0, 3)),
        "cross_camera": draw(st.booleans()),
    }


@settings(max_examples=200, derandomize=True, deadline=None, database=None)
@given(small_sets())
def test_small_sets_with_ties(case: dict[str, Any]) -> None:
    features = np.array(case["features"], np.float32)
    pids, camids = np.array(case["pids"]), np.array(case["camids"])
    how = MiningSettings(case["k"], case["ratio"], case["seed"], case["cross_camera"])
    expected = {}
    try:
        split = split_ids(pids[pids >= 0], val_ratio=how.val_ratio, seed=how.seed)
    except InputError:
        split = None
    if split is not None:
        cameras = camids if how.cross_camera else None
        for part, ids in (("train", split.train), ("val", split.val)):
            rows, _ = by_hand(similarities(features), pids, set(ids.tolist()), how.k, cameras)
            expected[part] = rows
    kinds = [{match for _, _, match in rows} for rows in expected.values()]
    if kinds != [{True, False}] * 2:
        with pytest.raises(InputError):
            mine_pairs(features, pids, camids, how)
        return
    found = mine_pairs(features, pids, camids, how)
    assert {part: rows_of(pairs) for part, pairs in found.parts.items()} == expected


def test_equal_images_are_taken_in_order() -> None:
    """However their products are rounded at different places of a tile."""
    random = np.random.default_rng(0)
    shown = random.standard_normal((7, 37)).astype(np.float32)
    which = random.integers(0, 7, 611)
    pids = which % 2 + 2 * (np.arange(611) % 3 == 0)
    found = mine_pairs(shown[which], pids, None, MiningSettings(k=5, val_ratio=0.5))
    similar = similarities(shown)[which][:, which]
    for part, ids in (("train", found.train_ids), ("val", found.val_ids)):
        rows, _ = by_hand(similar, pids, set(ids.tolist()), 5)
        assert rows_of(found.parts[part]) == rows


def test_near_ties_are_ordered_by_more_than_a_product_gives() -> None:
    """Cosines a few 1e-8 apart: float32 products alone would mix them up."""
    random = np.random.default_rng(1)
    base = random.standard_normal(256)
    features = (base + 3e-4 * random.standard_normal((300, 256))).astype(np.float32)
    pids = np.arange(300) % 4
    found = mine_pairs(features, pids, None, MiningSettings(k=6, val_ratio=0.5))
    units = hardest.unit_rows(features).astype(np.float64)
    similar = units @ units.T
    rows, _ = by_hand(similar, pids, set(found.train_ids.tolist()), 6)
    assert rows_of(found.parts["train"]) == rows
    single = units.astype(np.float32)
    mixed, _ = by_hand(single @ single.T, pids, set(found.train_ids.tolist()), 6)
    assert mixed != rows


def test_blocks_decide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    features, pids, camids = people(300, ids=6)
    how = MiningSettings(val_ratio=0.4, random=True)
    whole = mine_pairs(features, pids, camids, how)
    monkeypatch.setattr(hardest, "BLOCK", 7)
    monkeypatch.setattr(hardest, "_CHUNK", 40)
    assert_same(mine_pairs(features, pids, camids, how), whole)


def assert_same(left: Mined, right: Mined) -> None:
    assert left.parts.keys() == right.parts.keys()
    for part, pairs in left.parts.items():
        assert rows_of(pairs) == rows_of(right.parts[part])
        assert pairs.similarity.tolist() == right.parts[part].similarity.tolist()


def test_one_seed_one_outcome() -> None:
    features, pids, _ = people()
    how = MiningSettings(val_ratio=0.3, seed=4, random=True)
    once = mine_pairs(features, pids, None, how)
    assert_same(mine_pairs(features, pids, None, how), once)
    other = mine_pairs(features, pids, None, MiningSettings(val_ratio=0.3, seed=5, random=True))
    assert other.val_ids.tolist() != once.val_ids.tolist()


def test_the_seed_draws_random_pairs_as_well() -> None:
    """Two seeds that split alike."""
    features, pids, _ = people(60, ids=4)
    found: dict[tuple[int, ...], list[Rows]] = {}
    for seed in range(12):
        mined = mine_pairs(features, pids, None, MiningSettings(2, 0.5, seed, random=True))
        drawn = rows_of(mined.parts["random_train"])
        found.setdefault(tuple(mined.val_ids.tolist()), []).append(drawn)
    alike = max(found.values(), key=len)
    assert len(alike) > 1
    assert all(drawn != alike[0] for drawn in alike[1:])


def test_both_images_of_a_pair_are_of_one_side() -> None:
    features, pids, _ = people(400, ids=30)
    found = mine_pairs(features, pids, None, MiningSettings(val_ratio=0.3, random=True))
    sides = {"train": set(found.train_ids.tolist()), "val": set(found.val_ids.tolist())}
    assert sides["train"].isdisjoint(sides["val"])
    assert sides["train"] | sides["val"] == set(pids.tolist())
    for part, pairs in found.parts.items():
        side = sides[part.removeprefix("random_")]
        assert set(pids[pairs.queries].tolist()) == side  # every image is a query
        assert len(np.unique(pairs.queries)) == np.isin(pids, list(side)).sum()
        assert set(pids[pairs.candidates].tolist()) <= side


def test_random_pairs() -> None:
    features, pids, _ = people(400, ids=20)
    found = mine_pairs(features, pids, None, MiningSettings(k=3, val_ratio=0.25, random=True))
    similar = similarities(features)
    for side in ("train", "val"):
        pairs = found.parts[f"random_{side}"]
        rows = rows_of(pairs)
        assert len(set(rows)) == len(rows) == 3 * len(np.unique(pairs.queries))
        assert all(query != candidate for query, candidate, _ in rows)
        assert [match for *_, match in rows] == [pids[q] == pids[c] for q, c, _ in rows]
        expected = similar[pairs.queries, pairs.candidates]
        assert np.allclose(pairs.similarity, expected, atol=1e-6)
        # A pair in so many is of one person, and all places are drawn from.
        assert 0 < pairs.match.mean() < 0.5
        assert len(np.unique(pairs.candidates)) > 0.8 * len(np.unique(pairs.queries))


def test_random_pairs_of_few_images_are_all_the_others() -> None:
    features, pids = np.eye(8, dtype=np.float32), np.array([0, 0, 1, 1, 2, 2, 3, 3])
    found = mine_pairs(features, pids, None, MiningSettings(k=9, val_ratio=0.5, random=True))
    for side in ("train", "val"):
        rows = [(q, c) for q, c, _ in rows_of(found.parts[f"random_{side}"])]
        here = np.unique(found.parts[side].queries).tolist()
        assert sorted(rows) == [(q, c) for q in here for c in here if q != c]


def test_somebody_with_one_image_is_a_negative_only() -> None:
    features = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    pids = np.array([0, 0, 0, 1, 2, 2, 3, 3, 4])
    found = mine_pairs(features, pids, None, MiningSettings(k=2, val_ratio=0.4))
    for pairs in found.parts.values():
        for row in (3, 8):
            own = pairs.queries == row
            assert not pairs.match[own].any()
            assert own.sum() in (0, 2)
    rows = np.concatenate([pairs.queries for pairs in found.parts.values()])
    assert {3, 8} <= set(rows.tolist())


def test_pairs_by_path() -> None:
    pairs = MinedPairs(
        np.array([0, 0]), np.array([2, 1]), np.array([True, False]), np.array([0.5, 0.25])
    )
    assert pairs.named(["a", "b", "c"]) == [Pair("a", "c", True), Pair("a", "b", False)]


def test_progress_reaches_the_end() -> None:
    features, pids, _ = people()
    told: list[tuple[str, int, int]] = []
    found = mine_pairs(
        features, pids, None, MiningSettings(val_ratio=0.3), progress=lambda *x: told.append(x)
    )
    counts = {side: len(np.unique(found.parts[side].queries)) for side in ("train", "val")}
    assert told == [(side, count, count) for side, count in counts.items()]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_precisions_and_lengths(dtype: Any) -> None:
    features, pids, _ = people()
    unit = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(dtype)
    largest = {np.float16: 900, np.float32: 1e38, np.float64: 1e300}[dtype]
    scaled = unit * np.resize(np.array([1, largest], dtype), (len(unit), 1))
    how = MiningSettings(val_ratio=0.3)
    found, expected = (mine_pairs(rows, pids, None, how) for rows in (scaled, unit))
    similar = similarities(unit)
    for part, pairs in found.parts.items():
        assert np.allclose(pairs.similarity, similar[pairs.queries, pairs.candidates], atol=2e-3)
        assert np.allclose(pairs.similarity, expected.parts[part].similarity, atol=2e-3)


def broken() -> Iterator[tuple[dict[str, Any], str]]:
    features, pids, camids = people(40, ids=8)
    nan, infinite, zero = features.copy(), features.copy(), features.copy()
    nan[7, 3], infinite[8, 0], zero[9] = np.nan, -np.inf, 0
    yield {"features": nan}, "features row 7 holds NaN or infinity; leave"
    yield {"features": infinite}, "features row 8 holds NaN"
    yield {"features": zero}, "features row 9 is all zero"
    yield {"features": features[:0], "pids": pids[:0]}, r"shape \[N, D\], got \[0, 16\]"
    yield {"features": features[:, :0]}, r"shape \[N, D\], got \[40, 0\]"
    yield {"features": features[0]}, r"shape \[N, D\], got \[16\]"
    yield {"features": features.astype(int)}, "must be floating point, got int64"
    yield {"pids": pids[:-1]}, r"pids must have shape \[40\], got \[39\]"
    yield {"camids": camids[:-1]}, r"camids must have shape \[40\], got \[39\]"
    yield {"pids": pids * 0}, "the set is of one person, so it has no negative pair$"
    yield {"pids": np.arange(40)}, "nobody of the set has two images, so it has no positive pair$"
    yield {"val_ratio": 0.05}, "0.05 leaves no person of 8 for validation; raise --val-ratio"
    yield {"val_ratio": 0.95}, "0.95 leaves no person of 8 for training; lower --val-ratio"
    yield {"val_ratio": 0.125}, "the val side is of one person.*another --val-ratio or --seed"
    yield {"val_ratio": 0.875}, "the train side is of one person"
    alone = np.r_[np.zeros(10, int), np.arange(1, 31)]
    yield {"pids": alone, "val_ratio": 0.5}, "nobody of the (train|val) side has two images"
    yield {"camids": None, "cross_camera": True}, "cameras of the 40 images are unknown"
    yield {"camids": pids, "cross_camera": True}, "nobody of the set was seen by two cameras"
    two = np.where(pids == pids[0], np.arange(40), 0)
    yield {"camids": two, "cross_camera": True}, "nobody of the (train|val) side was seen by two"


@pytest.mark.parametrize(("change", "message"), list(broken()))
def test_what_cannot_be_mined(change: dict[str, Any], message: str) -> None:
    features, pids, camids = people(40, ids=8)
    given = {"features": features, "pids": pids, "camids": camids, "val_ratio": 0.25, **change}
    how = MiningSettings(
        val_ratio=given["val_ratio"], cross_camera=given.get("cross_camera", False)
    )
    with pytest.raises(InputError, match=message):
        mine_pairs(given["features"], given["pids"], given["camids"], how)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"k": 0}, "--k"),
        ({"val_ratio": 0.0}, "must be above 0 and below 1, got 0"),
        ({"val_ratio": 1.0}, "must be above 0 and below 1, got 1"),
        ({"val_ratio": float("nan")}, "must be above 0 and below 1, got nan"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_settings_out_of_range(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MiningSettings(**values)


def test_the_split_depends_on_ids_and_seed_alone() -> None:
    ids = np.arange(100) * 3
    split = split_ids(ids, val_ratio=0.1, seed=0)
    assert (len(split.train), len(split.val)) == (90, 10)
    assert sorted([*split.train, *split.val]) == ids.tolist()
    again = split_ids(np.repeat(ids[::-1], 2), val_ratio=0.1, seed=0)
    assert again.val.tolist() == split.val.tolist()
    drawn = {tuple(split_ids(ids, val_ratio=0.1, seed=seed).val.tolist()) for seed in range(5)}
    assert len(drawn) == 5
