"""Every mistake with an alignment is an InvalidInputError that names the argument."""

from typing import Any

import numpy as np
import pytest

from murank_kernels import CameraAlignment, InvalidInputError, align_cameras

N, D = 200, 6
RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((N, D)).astype(np.float32)
CAMIDS = np.arange(N) % 2
ALIGNMENT = CameraAlignment.fit(ROWS, CAMIDS)
BAD_CAMIDS = [
    None, CAMIDS[:-1], CAMIDS[:, None], CAMIDS.astype(float), 3,
    [str(c) for c in CAMIDS], CAMIDS.astype(bool), CAMIDS.astype(np.uint64) + 2**63,
]  # fmt: skip
NAN_ROW = np.where(np.arange(N)[:, None] == 4, np.nan, ROWS)
BAD_ROWS = [ROWS[0], ROWS[:0], ROWS[:, :0], ROWS.astype(int), NAN_ROW, 0 * ROWS, "rows", None]


@pytest.mark.parametrize("camids", BAD_CAMIDS, ids=range(len(BAD_CAMIDS)))
def test_camids(camids: Any) -> None:
    for call in (CameraAlignment.fit, align_cameras, ALIGNMENT.update):
        with pytest.raises(InvalidInputError, match="camids"):
            call(ROWS, camids)
    if camids is not None:
        with pytest.raises(InvalidInputError, match="camids"):
            ALIGNMENT.apply(ROWS, camids)


def test_no_camera_is_known() -> None:
    for call in (CameraAlignment.fit, align_cameras):
        with pytest.raises(InvalidInputError, match="camids"):
            call(ROWS, CAMIDS - 2)
    with pytest.raises(InvalidInputError, match="camids"):
        align_cameras(ROWS, np.where(np.arange(N) < 5, 1, -1), num_query=5)


@pytest.mark.parametrize("rows", BAD_ROWS, ids=range(len(BAD_ROWS)))
def test_features(rows: Any) -> None:
    camids = CAMIDS[: len(rows)] if isinstance(rows, np.ndarray) else CAMIDS
    for call in (CameraAlignment.fit, align_cameras, ALIGNMENT.update, ALIGNMENT.apply):
        with pytest.raises(InvalidInputError, match="features"):
            call(rows, camids)


def test_features_of_another_width() -> None:
    for call in (ALIGNMENT.update, ALIGNMENT.apply):
        with pytest.raises(InvalidInputError, match=r"5 values a row.*fitted on 6"):
            call(ROWS[:, :5], CAMIDS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("level", "best"), ("level", None), ("level", 1),
        ("prior", -1), ("prior", np.nan), ("prior", np.inf), ("prior", "20"), ("prior", None),
        ("ridge", 0), ("ridge", -1), ("ridge", np.nan), ("ridge", "1"), ("ridge", 1j),
        ("dims", 0), ("dims", D + 1), ("dims", 2.0), ("dims", True), ("dims", "2"),
        ("max_rows", 0), ("max_rows", 1.5), ("max_rows", None),
        ("pairs", [[0, 1, 2]]), ("pairs", [0, 1]), ("pairs", [[0.0, 1.0]]), ("pairs", [[0, N]]),
        ("pairs", [[-1, 2]]), ("pairs", [[3, 3]]), ("pairs", "ab"), ("weights", [1.0]),
    ],
)  # fmt: skip
def test_settings(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError, match=name):
        CameraAlignment.fit(ROWS, CAMIDS, **{name: value})


@pytest.mark.parametrize(
    "weights", [[1.0], [[1.0, 1.0]], [1.0, -1.0], [1.0, np.nan], ["a", "b"], [0, 0]]
)
def test_weights(weights: Any) -> None:
    with pytest.raises(InvalidInputError, match="weights"):
        CameraAlignment.fit(ROWS, CAMIDS, pairs=[[0, 1], [2, 3]], weights=weights)


@pytest.mark.parametrize("num_query", [-1, N, 1.0, True, "1", None])
def test_num_query(num_query: Any) -> None:
    with pytest.raises(InvalidInputError, match="num_query"):
        align_cameras(ROWS, CAMIDS, num_query=num_query)


@pytest.mark.parametrize("half_life", [0, -1, np.nan, np.inf, "7"])
def test_half_life(half_life: Any) -> None:
    before = ALIGNMENT.counts
    with pytest.raises(InvalidInputError, match="half_life"):
        ALIGNMENT.update(ROWS, CAMIDS, half_life=half_life)
    np.testing.assert_array_equal(ALIGNMENT.counts, before)
