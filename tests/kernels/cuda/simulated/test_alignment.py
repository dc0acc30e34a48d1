"""Camera alignment of arrays on the GPU: as on the CPU, and they stay there."""

from typing import Any

import numpy as np
import pytest

from murank_kernels import CameraAlignment, InvalidInputError, align_cameras
from murank_kernels.cuda.simulated import SimulatedArray

RNG = np.random.default_rng(0)
CAMIDS = np.repeat([3, 8], 36)
ROWS = RNG.standard_normal((72, 10)) + np.where(CAMIDS[:, None] == 3, 1.0, -0.5)
ROWS[36:] += RNG.standard_normal((36, 10)) * 0.1 + ROWS[:36] - ROWS[36:] - 1.5
# A unit row's rounding, over the 0.2 that centring leaves at least, and sqrt(D + 1) of W.
TOLERANCE = 20 * float(np.finfo(np.float32).eps)


def there(rows: Any = ROWS, dtype: Any = np.float32) -> Any:
    return np.ascontiguousarray(rows, dtype).view(SimulatedArray)


@pytest.mark.parametrize("settings", [{}, {"dims": 4}, {"level": "mean"}])
def test_as_on_the_cpu(settings: Any) -> None:
    here = CameraAlignment.fit(ROWS.astype(np.float32), CAMIDS, **settings)
    gpu = CameraAlignment.fit(there(), CAMIDS, **settings)
    assert (gpu.level, gpu.dims) == (here.level, here.dims)
    np.testing.assert_array_equal(gpu.pairs, here.pairs)
    np.testing.assert_allclose(gpu.weights, here.weights, rtol=0, atol=1e-4)
    expected = here.apply(ROWS.astype(np.float32), CAMIDS)
    actual = gpu.apply(there(), there(CAMIDS, np.int64))
    assert isinstance(actual, SimulatedArray)
    if "dims" in settings:  # directions have no sign
        actual, expected = actual @ actual.T, expected @ expected.T
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=TOLERANCE)


def test_rows_of_unknown_cameras() -> None:
    camids = np.where(np.arange(72) == 32, -1, CAMIDS)  # whose pair is not needed
    gpu, here = (CameraAlignment.fit(rows, camids) for rows in (there(), ROWS.astype(np.float32)))
    assert gpu.level == here.level == "pairs"
    np.testing.assert_array_equal(gpu.pairs, here.pairs)
    gpu.update(there(ROWS[:9]), camids[:9], half_life=4)
    here.update(ROWS[:9].astype(np.float32), camids[:9], half_life=4)
    expected = here.apply(ROWS.astype(np.float32), camids)
    actual = np.asarray(gpu.apply(there(), camids))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE)


def test_pair_shares() -> None:
    gpu = CameraAlignment.fit(there(), CAMIDS)
    here = gpu.pair_shares(ROWS.astype(np.float32), CAMIDS)
    assert here.sum() == pytest.approx(1)
    np.testing.assert_allclose(gpu.pair_shares(there(), CAMIDS), here, rtol=0, atol=TOLERANCE)


def test_one_call_and_a_stranger() -> None:
    expected = align_cameras(ROWS.astype(np.float32), CAMIDS, num_query=3, level="mean")
    actual = align_cameras(there(), CAMIDS, num_query=3, level="mean")
    assert isinstance(actual, SimulatedArray)
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=TOLERANCE)
    alignment = CameraAlignment.fit(there(), CAMIDS, level="mean")
    both = [alignment.apply(rows, [99] * 72) for rows in (there(), ROWS.astype(np.float32))]
    np.testing.assert_allclose(np.asarray(both[0]), both[1], rtol=0, atol=TOLERANCE)


def test_updates() -> None:
    gpu = CameraAlignment.fit(there(), CAMIDS, level="mean")
    here = CameraAlignment.fit(ROWS.astype(np.float32), CAMIDS, level="mean")
    gpu.update(there(ROWS[:9]), CAMIDS[:9], half_life=4)
    here.update(ROWS[:9].astype(np.float32), CAMIDS[:9], half_life=4)
    np.testing.assert_allclose(gpu.counts, here.counts)
    np.testing.assert_allclose(
        np.asarray(gpu.apply(there(), CAMIDS)), here.apply(ROWS.astype(np.float32), CAMIDS),
        rtol=0, atol=TOLERANCE,
    )  # fmt: skip


@pytest.mark.parametrize(
    "rows", [there(0 * ROWS), there(ROWS[0]), there(ROWS, np.int64), there(ROWS * np.nan)]
)
def test_features_that_cannot_be_used(rows: Any) -> None:
    with pytest.raises(InvalidInputError, match="features"):
        CameraAlignment.fit(rows, CAMIDS[: len(rows)])
    with pytest.raises(InvalidInputError, match="features"):
        CameraAlignment.fit(there(), CAMIDS).apply(rows, CAMIDS[: len(rows)])
