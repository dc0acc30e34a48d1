"""Error rates against counting by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from murank.calibration.det import probit, thinned
from murank.calibration.rates import Curve, Rate, curve, equal_error_rate
from murank.rerank.mu_auc import auc

Mu = NDArray[np.float64]
Labels = NDArray[np.bool_]


@st.composite
def labelled(draw: st.DrawFn) -> tuple[Mu, Labels]:
    """Mu with many ties, both kinds there."""
    mu = draw(st.lists(st.sampled_from(np.linspace(0, 1, 8).tolist()), min_size=2, max_size=30))
    same = draw(st.lists(st.booleans(), min_size=len(mu), max_size=len(mu)))
    return np.array(mu), np.array([True, False, *same[2:]])


def count(mu: Mu, same: Labels, threshold: float) -> tuple[int, int]:
    """False matches and false non-matches, one pair after the other."""
    pairs = list(zip(mu.tolist(), same.tolist(), strict=True))
    return (
        sum(1 for value, one in pairs if value <= threshold and not one),
        sum(1 for value, one in pairs if value > threshold and one),
    )


@given(labelled())
def test_every_threshold_is_counted_right(data: tuple[Mu, Labels]) -> None:
    mu, same = data
    found = curve(mu, same)
    assert found.thresholds.tolist() == sorted(set(mu.tolist()))
    counted = [count(mu, same, threshold) for threshold in found.thresholds]
    assert list(zip(found.false_matches, found.false_non_matches, strict=True)) == counted
    assert (found.same, found.different) == (sum(same), sum(~same))


@given(labelled())
def test_fmr_never_falls_and_fnmr_never_rises(data: tuple[Mu, Labels]) -> None:
    found = curve(*data)
    assert (np.diff(found.fmr) >= 0).all()
    assert (np.diff(found.fnmr) <= 0).all()
    assert (found.fmr[-1], found.fnmr[-1]) == (1, 0)


@given(labelled(), st.floats(0.01, 0.99))
def test_operating_points_are_the_best_allowed(data: tuple[Mu, Labels], most: float) -> None:
    mu, same = data
    found = curve(mu, same)
    by_threshold = {t: count(mu, same, t) for t in set(mu.tolist())}
    allowed = [t for t, (errors, _) in by_threshold.items() if errors / sum(~same) <= most]
    point = found.at_fmr(most)
    assert (None if point is None else point.threshold) == max(allowed, default=None)
    allowed = [t for t, (_, errors) in by_threshold.items() if errors / sum(same) <= most]
    assert found.at_fnmr(most).threshold == min(allowed)
    apart = {t: abs(fm / sum(~same) - fnm / sum(same)) for t, (fm, fnm) in by_threshold.items()}
    equal = found.at_equal()
    assert apart[equal.threshold] == min(apart.values())
    assert equal.threshold == min(t for t in apart if apart[t] == min(apart.values()))
    assert equal_error_rate(found) == (equal.fmr.value + equal.fnmr.value) / 2


def test_a_target_that_is_met_exactly() -> None:
    mu = np.concatenate([np.arange(100) / 100, [0.005]])
    same = np.array([False] * 100 + [True])
    point = curve(mu, same).at_fmr(0.29)  # 0.29 * 100 is 28.999999999999996
    assert point is not None
    assert (point.threshold, point.fmr) == (0.28, Rate(29, 100))
    assert point.fnmr == Rate(0, 1)


def test_no_threshold_is_strict_enough() -> None:
    assert curve(np.array([0.1, 0.1, 0.2]), np.array([False, True, False])).at_fmr(0.4) is None


@given(labelled())
def test_auc_is_the_share_of_pairs_of_pairs_in_order(data: tuple[Mu, Labels]) -> None:
    mu, same = data
    won = [
        1.0 if one < other else 0.5 if one == other else 0.0
        for one in mu[same]
        for other in mu[~same]
    ]
    assert auc(mu, same) == pytest.approx(np.mean(won))


@pytest.mark.parametrize(
    ("errors", "pairs", "low", "high"),
    [  # newcombe 1998, table I, method 3, and the closed form at the ends
        (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718), (20, 20, 0.8389, 1.0),
    ],
)  # fmt: skip
def test_wilson_intervals(errors: int, pairs: int, low: float, high: float) -> None:
    assert Rate(errors, pairs).interval == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_intervals_hold_their_rate(pairs: int, share: float) -> None:
    rate = Rate(round(pairs * share), pairs)
    low, high = rate.interval
    assert 0 <= low <= rate.value <= high <= 1


def test_probit() -> None:
    values = probit(np.array([0.0, 0.025, 0.5, 0.975, 1.0]), 1000)
    np.testing.assert_allclose(values, [-3.2905, -1.95996, 0, 1.95996, 3.2905], atol=1e-4)


def test_a_thinned_curve_keeps_its_ends_and_its_shape() -> None:
    random = np.random.default_rng(0)
    mu = np.concatenate([random.normal(0.3, 0.1, 900), random.normal(0.7, 0.1, 3000)])
    same = np.arange(len(mu)) < 900
    whole = curve(mu, same)
    few = thinned(whole, 50)
    assert 40 < len(few.thresholds) <= 50
    assert (few.same, few.different) == (900, 3000)
    for place in (0, -1):
        assert few.point(place) == whole.point(place)
    places = np.searchsorted(whole.thresholds, few.thresholds)
    np.testing.assert_array_equal(whole.false_matches[places], few.false_matches)
    np.testing.assert_array_equal(whole.false_non_matches[places], few.false_non_matches)
    assert whole.fmr[places][few.fmr > 0].min() < 2e-3  # the corner of few errors is not cut off
    assert steps(few).max() < 3 * steps(few).mean()
    assert thinned(few, 50) is few


def steps(found: Curve) -> NDArray[np.float64]:
    rows = probit(found.fmr, found.different), probit(found.fnmr, found.same)
    found_steps: NDArray[np.float64] = np.hypot(*np.diff(rows))
    return found_steps
