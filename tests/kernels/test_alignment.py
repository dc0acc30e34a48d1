"""Camera alignment against the same thing written down densely, in float64, pair by pair."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from real_data import REAL

from murank_kernels import (
    AlignmentWarning,
    CameraAlignment,
    InvalidInputError,
    align_cameras,
    ca_jaccard_blocks,
    evaluate_rank,
)

PRIOR, RIDGE, LENGTH, SOFTNESS = 20, 1.0, 3, 0.06
EPS = float(np.finfo(np.float32).eps)
# Rounding of unit rows, over the 0.4 of its length that centring leaves of a row here, times
# sqrt(D + 1) = 5 that the condition of W cannot exceed, times 10 for the gap between the variance
# of directions that are kept and left out.
TOLERANCE = 125 * EPS
CUHK01, NUM_QUERY = REAL / "osnet_cuhk01.npz", 1942
Rows = NDArray[np.floating[Any]]
Ids = NDArray[np.int64]


def unit(rows: Rows) -> Rows:
    scaled: Rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled


def seen_by_cameras(
    people: int = 40, cameras: int = 3, images: int = 2, dim: int = 24, seed: int = 0
) -> tuple[Rows, Ids, Ids]:
    """Features [N,D] that carry the camera more than the person, with camids and pids [N]."""
    rng = np.random.default_rng(seed)
    pids = np.repeat(np.arange(people), cameras * images)
    camids = np.tile(np.repeat(np.arange(cameras) * 7 + 1, images), people)
    bias = 3 * rng.standard_normal((cameras * 7 + 1, dim))
    stretch = np.r_[np.full(dim // 4, 2.5), np.full(dim - dim // 4, 0.3)]
    noise = rng.standard_normal((len(pids), dim)) * stretch
    return rng.standard_normal((people, dim))[pids] + bias[camids] + noise, camids, pids


def ref_offsets(rows: Rows, camids: Ids) -> dict[int, Rows]:
    """A camera below 0 is none: its rows say nothing, and get the common mean."""
    common = rows[camids >= 0].mean(axis=0)
    offsets = {-1: common}
    for camera in np.unique(camids[camids >= 0]):
        own = rows[camids == camera]
        offsets[int(camera)] = (own.sum(axis=0) + PRIOR * common) / (len(own) + PRIOR)
    return offsets


def ref_centred(rows: Rows, camids: Ids, offsets: dict[int, Rows]) -> Rows:
    return np.stack(
        [r - offsets.get(int(c), offsets[-1]) for r, c in zip(rows, camids, strict=True)]
    )


def ref_pairs(centred: Rows, camids: Ids) -> dict[tuple[int, int], float]:
    """Each pair's weight: every two cameras, every row against every row."""
    z, found = unit(centred), []
    cameras = np.unique(camids[camids >= 0])
    for a, first in enumerate(cameras):
        for second in cameras[a + 1 :]:
            rows, columns = np.flatnonzero(camids == first), np.flatnonzero(camids == second)
            gap = 1 - z[rows] @ z[columns].T
            for i, near in enumerate(gap):
                for j in np.argsort(near, kind="stable")[:LENGTH]:
                    if i in np.argsort(gap[:, j], kind="stable")[:LENGTH]:
                        beyond = max(near[j] - near.min(), near[j] - gap[:, j].min())
                        found.append((int(rows[i]), int(columns[j]), near[j], beyond))
    scale = SOFTNESS * np.median([distance for *_, distance, beyond in found if beyond == 0])
    return {(i, j): float(np.exp(-beyond / scale)) for i, j, _, beyond in found}


def ref_aligned(rows: Rows, camids: Ids, num_query: int, level: str, dims: int | None) -> Rows:
    rows = unit(rows)
    gallery, cameras = rows[num_query:], camids[num_query:]
    offsets = ref_offsets(gallery, cameras)
    centred = ref_centred(gallery, cameras, offsets)
    root = np.eye(rows.shape[1])
    if level == "pairs":
        weights = ref_pairs(centred, cameras)
        total = np.zeros_like(root)
        for (i, j), weight in weights.items():
            gap = centred[i] - centred[j]
            total += weight * np.outer(gap, gap)
        spread = total / (2 * sum(weights.values()))
        rows_each = np.mean([(cameras == camera).sum() for camera in cameras if camera >= 0])
        ridge = RIDGE * max(1, 400 / rows_each)
        values, vectors = np.linalg.eigh(spread + ridge * np.trace(spread) / len(spread) * root)
        root = vectors @ np.diag(values**-0.5) @ vectors.T
    out = ref_centred(rows, camids, offsets) @ root
    if dims is not None:
        _, vectors = np.linalg.eigh(np.einsum("ij,ik->jk", out[num_query:], out[num_query:]))
        out = out @ vectors[:, ::-1][:, :dims]
    return unit(out)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("level", ["mean", "pairs"])
def test_all_directions(level: Any, dtype: Any) -> None:
    rows, camids, _ = seen_by_cameras()
    rows = rows.astype(dtype)
    actual = align_cameras(rows, camids, num_query=30, level=level)
    assert actual.dtype == np.float32
    expected = ref_aligned(rows.astype(np.float64), camids, 30, level, None)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("level", ["mean", "pairs"])
def test_some_directions(level: Any) -> None:
    """Angles between rows, as directions have no sign."""
    rows, camids, _ = seen_by_cameras()
    actual = align_cameras(rows, camids, num_query=30, level=level, dims=6)
    assert actual.shape == (len(rows), 6)
    expected = ref_aligned(rows, camids, 30, level, 6)
    np.testing.assert_allclose(actual @ actual.T, expected @ expected.T, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("level", ["mean", "pairs"])
@pytest.mark.parametrize("dims", [None, 6])
def test_rows_of_unknown_cameras_teach_nothing(level: Any, dims: int | None) -> None:
    """Below 0, whatever the number: in no mean and no pair, and given the common mean."""
    rows, camids, _ = seen_by_cameras()
    camids[::9], camids[4::9] = -1, -(1 << 60)
    actual = align_cameras(rows, camids, num_query=30, level=level, dims=dims)
    expected = ref_aligned(rows, camids, 30, level, dims)
    np.testing.assert_allclose(actual @ actual.T, expected @ expected.T, rtol=0, atol=TOLERANCE)
    alignment = CameraAlignment.fit(rows, camids, level=level, dims=dims)
    assert alignment.camids.tolist() == np.unique(camids[camids >= 0]).tolist()
    assert (camids[alignment.pairs] >= 0).all()
    unknown = camids < 0
    np.testing.assert_array_equal(
        alignment.apply(rows[unknown], camids[unknown]), alignment.apply(rows[unknown])
    )


def test_pairs_and_weights() -> None:
    rows, camids, pids = seen_by_cameras()
    alignment = CameraAlignment.fit(rows, camids)
    offsets = ref_offsets(unit(rows), camids)
    expected = ref_pairs(ref_centred(unit(rows), camids, offsets), camids)
    assert {tuple(pair) for pair in alignment.pairs.tolist()} == set(expected)
    given = [expected[i, j] for i, j in alignment.pairs.tolist()]
    np.testing.assert_allclose(alignment.weights, given, rtol=0, atol=TOLERANCE)
    first, second = alignment.pairs.T
    assert (camids[first] != camids[second]).all()
    right = np.average(pids[first] == pids[second], weights=alignment.weights)
    assert right > 3 / 40, "no better than chance"


def test_tiles_change_nothing() -> None:
    """More rows of a camera than a tile, and than a task, has."""
    rng = np.random.default_rng(1)
    camids = np.r_[np.zeros(1100, np.int64), np.ones(700, np.int64), np.full(30, 9)]
    rng.shuffle(camids)
    rows = rng.standard_normal((len(camids), 8)) + camids[:, None]
    alignment = CameraAlignment.fit(rows, camids)
    centred = unit(ref_centred(unit(rows), camids, ref_offsets(unit(rows), camids)))
    pairs = {tuple(pair) for pair in alignment.pairs.tolist()}
    expected = ref_pairs(centred, camids)
    assert len(pairs ^ set(expected)) <= len(expected) // 1000  # two distances that round alike


def test_a_camera_with_many_rows_is_sampled() -> None:
    rows, camids, _ = seen_by_cameras(people=60, images=4)
    alignment = CameraAlignment.fit(rows, camids, max_rows=50)
    for camera in np.unique(camids):
        members = np.flatnonzero(camids == camera)
        used = np.unique(alignment.pairs[camids[alignment.pairs] == camera])
        assert set(used) <= set(members[np.linspace(0, 239, 50).astype(int)])


def test_cameras_are_names_not_numbers() -> None:
    rows, camids, _ = seen_by_cameras()
    renamed = 10**12 + 3 * camids
    np.testing.assert_array_equal(align_cameras(rows, camids), align_cameras(rows, renamed))


def test_given_pairs() -> None:
    """Found ones given again change nothing, and a pair of weight 0 is as good as absent."""
    rows, camids, _ = seen_by_cameras()
    found = CameraAlignment.fit(rows, camids)
    again = CameraAlignment.fit(rows, camids, pairs=found.pairs, weights=found.weights)
    np.testing.assert_array_equal(again.apply(rows, camids), found.apply(rows, camids))
    more = np.vstack([found.pairs, [[0, 1], [2, 5]]])
    weights = np.r_[found.weights, 0, 0]
    ignored = CameraAlignment.fit(rows, camids, pairs=more, weights=weights)
    np.testing.assert_array_equal(ignored.apply(rows, camids), found.apply(rows, camids))
    even = CameraAlignment.fit(rows, camids, pairs=found.pairs)
    assert not np.array_equal(even.apply(rows, camids), found.apply(rows, camids))


def test_pair_shares() -> None:
    """Against the traces of two covariances: of all pairs, and of all but one."""
    rows, camids, _ = seen_by_cameras()
    found = CameraAlignment.fit(rows, camids)
    centred = ref_centred(unit(rows), camids, ref_offsets(unit(rows), camids))
    first, second = found.pairs.T
    squared = ((centred[first] - centred[second]) ** 2).sum(axis=1)
    expected = found.weights * squared / (found.weights * squared).sum()
    actual = found.pair_shares(rows, camids)
    # A float32 difference of two rows of length 1 at most, squared.
    np.testing.assert_allclose(actual, expected, rtol=0, atol=16 * EPS)
    assert actual.sum() == pytest.approx(1)
    assert CameraAlignment.fit(rows, camids, level="mean").pair_shares(rows, camids).shape == (0,)
    with pytest.raises(InvalidInputError, match="rows"):
        found.pair_shares(rows[:9], camids[:9])


def test_a_camera_never_seen_gets_the_common_mean() -> None:
    rows, camids, _ = seen_by_cameras()
    alignment = CameraAlignment.fit(rows, camids, level="mean")
    expected = unit(unit(rows) - unit(rows).mean(axis=0))
    for strangers in (None, np.full(len(rows), 4)):
        actual = alignment.apply(rows, strangers)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE)
    mixed = np.where(np.arange(len(rows)) % 2, camids, 10**15)
    both = np.where(mixed[:, None] == camids[:, None], alignment.apply(rows, camids), expected)
    np.testing.assert_allclose(alignment.apply(rows, mixed), both, rtol=0, atol=TOLERANCE)


def test_a_row_alone_is_as_in_a_crowd() -> None:
    rows, camids, _ = seen_by_cameras()
    alignment = CameraAlignment.fit(rows, camids, dims=8)
    together = alignment.apply(rows, camids)
    alone = np.vstack([alignment.apply(rows[i : i + 1], camids[i : i + 1]) for i in range(20)])
    np.testing.assert_allclose(alone, together[:20], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("level", ["mean", "pairs"])
def test_one_camera_is_centred_and_said(level: Any) -> None:
    rows, camids, _ = seen_by_cameras()
    one = np.full_like(camids, 5)
    if level == "pairs":
        with pytest.warns(AlignmentWarning, match="one camera"):
            alignment = CameraAlignment.fit(rows, one)
    else:
        alignment = CameraAlignment.fit(rows, one, level="mean")
    assert alignment.level == "mean"
    expected = unit(unit(rows) - unit(rows).mean(axis=0))
    np.testing.assert_allclose(alignment.apply(rows, one), expected, rtol=0, atol=TOLERANCE)


def test_too_few_pairs_are_said() -> None:
    rows, camids, _ = seen_by_cameras(people=9, cameras=2)
    with pytest.warns(AlignmentWarning, match="pairs"):
        actual = align_cameras(rows, camids)
    np.testing.assert_array_equal(actual, align_cameras(rows, camids, level="mean"))


def test_cameras_of_one_row_do_not_switch_pairs_off() -> None:
    """The ridge goes by how many rows most rows have beside them."""
    rows, camids, _ = seen_by_cameras(people=80)
    odd = camids.copy()
    odd[:4] = 100 + np.arange(4)
    both = CameraAlignment.fit(rows, camids), CameraAlignment.fit(rows, odd)
    angles = np.sum(both[0].apply(rows, camids)[4:] * both[1].apply(rows, camids)[4:], axis=1)
    assert angles.min() > 0.98


def test_the_same_images_in_two_cameras() -> None:
    """Pairs of equal rows say nothing of what differs."""
    rows, camids, _ = seen_by_cameras(cameras=1)
    twice, cameras = np.vstack([rows, rows]), np.r_[camids, camids + 1]
    for dims in (None, 5):
        with pytest.warns(AlignmentWarning, match="same"):
            alignment = CameraAlignment.fit(twice, cameras, dims=dims)
        assert alignment.level == "mean"
        assert np.isfinite(alignment.apply(twice, cameras)).all()


def test_many_cameras() -> None:
    """120 of them: 7,140 times two."""
    rows, _, _ = seen_by_cameras(people=1200, cameras=1)
    camids = np.arange(len(rows)) % 120
    assert CameraAlignment.fit(rows, camids).level == "pairs"


def test_cameras_of_few_rows_are_in_no_pair() -> None:
    """Whoever they show is nearest in them."""
    rows, camids, _ = seen_by_cameras()
    camids[:19] = 50
    used = CameraAlignment.fit(rows, camids).pairs
    assert 50 not in camids[used]
    camids[:20] = 50
    assert 50 in camids[CameraAlignment.fit(rows, camids).pairs]


def test_quiet() -> None:
    rows, camids, _ = seen_by_cameras()
    one = CameraAlignment.fit(rows, np.zeros_like(camids), quiet=True)
    assert "one camera" in str(one.fell_back)
    assert CameraAlignment.fit(rows, camids).fell_back is None


def test_a_camera_of_equal_rows() -> None:
    """As a frozen stream gives: finite unit rows, the others unharmed."""
    rows, camids, _ = seen_by_cameras()
    rows[camids == 8] = rows[camids == 8][0]
    for level in ("mean", "pairs"):
        actual = align_cameras(rows, camids, level=level)
        np.testing.assert_allclose(np.linalg.norm(actual, axis=1), 1, rtol=0, atol=4 * EPS)


def test_nothing_but_equal_rows() -> None:
    """Every row is its camera's mean and keeps its direction."""
    rows = np.ones((4, 9), np.float32)
    actual = align_cameras(rows, np.zeros(4, np.int64), level="mean")
    np.testing.assert_allclose(actual, rows / 3, rtol=0, atol=4 * EPS)


def test_more_directions_than_rows() -> None:
    rows, camids, _ = seen_by_cameras(people=20, dim=400)
    actual = align_cameras(rows, camids, num_query=3)
    expected = ref_aligned(rows, camids, 3, "pairs", None)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.skipif(not CUHK01.exists(), reason="the real features are not here")
def test_real_features() -> None:
    """OSNet trained elsewhere, on CUHK01: the figures without alignment are 50.1, 54.8."""
    stored = np.load(CUHK01)
    features, camids = stored["features"], stored["camids"]
    aligned = align_cameras(features, camids, num_query=NUM_QUERY)
    assert mean_ap(aligned, stored, None) > 0.652
    assert mean_ap(aligned, stored, "ca-jaccard") > 0.689
    few = align_cameras(features, camids, num_query=NUM_QUERY, dims=128)
    assert mean_ap(few, stored, "ca-jaccard") > 0.696
    mean = align_cameras(features, camids, num_query=NUM_QUERY, level="mean")
    assert mean_ap(mean, stored, "ca-jaccard") == pytest.approx(0.650, abs=1e-3)


def mean_ap(rows: Rows, stored: Any, method: str | None) -> float:
    pids, camids = stored["pids"], stored["camids"]
    parts = [pids[:NUM_QUERY], pids[NUM_QUERY:], camids[:NUM_QUERY], camids[NUM_QUERY:]]
    if method is None:
        return evaluate_rank(1 - rows[:NUM_QUERY] @ rows[NUM_QUERY:].T, *parts).mAP
    return evaluate_rank(ca_jaccard_blocks(rows, NUM_QUERY, camids), *parts).mAP
