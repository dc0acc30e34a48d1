import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from murank.calibration.temperature import HIGHEST, LOWEST, class_weights, fit_temperature

Answers = tuple[NDArray[np.float64], NDArray[np.bool_]]


def answers(temperature: float, count: int = 400, seed: int = 0) -> Answers:
    """Labels drawn from probabilities, and log-odds that are `temperature` times too sure."""
    random = np.random.default_rng(seed)
    honest = random.normal(0, 2, count)
    same = random.random(count) > 1 / (1 + np.exp(-honest))
    return honest * temperature, same


def nll(log_odds: NDArray[np.float64], same: NDArray[np.bool_], prior: float, t: float) -> float:
    """Plain and slow: mean over each kind, then of the two."""
    p_no, p_yes = 1 / (1 + np.exp(-log_odds / t)), 1 / (1 + np.exp(log_odds / t))
    of_same, of_others = -np.log(p_yes[same]).mean(), -np.log(p_no[~same]).mean()
    return float(prior * of_same + (1 - prior) * of_others)


@pytest.mark.parametrize("prior", [0.5, 0.1, 0.9])
@pytest.mark.parametrize("true", [0.4, 1.0, 3.0])
def test_the_best_of_a_fine_grid(true: float, prior: float) -> None:
    odds, same = answers(true)
    found = fit_temperature(odds, same, class_weights(same, prior))
    grid = np.geomspace(0.25, 20, 3001)
    best = grid[np.argmin([nll(odds, same, prior, t) for t in grid])]
    assert found == pytest.approx(best, rel=1e-3)
    assert nll(odds, same, prior, found) <= nll(odds, same, prior, best)


def test_the_temperature_that_made_the_answers() -> None:
    odds, same = answers(2.5, count=40_000)
    assert fit_temperature(odds, same, class_weights(same, 0.5)) == pytest.approx(2.5, rel=0.05)


@given(st.floats(0.3, 3), st.integers(0, 50))
def test_scaled_answers_scale_it(scale: float, seed: int) -> None:
    odds, same = answers(1, count=100, seed=seed)
    weights = class_weights(same, 0.5)
    plain = fit_temperature(odds, same, weights)
    if LOWEST < plain < HIGHEST and LOWEST < scale * plain < HIGHEST:
        assert fit_temperature(scale * odds, same, weights) == pytest.approx(scale * plain)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e5])
def test_bounds(size: float) -> None:
    same = np.array([True, True, False, False])
    right = np.array([-1.0, -2.0, 1.0, 3.0]) * size
    weights = class_weights(same, 0.5)
    assert fit_temperature(right, same, weights) == LOWEST
    assert fit_temperature(-right, same, weights) == HIGHEST


@pytest.mark.parametrize("prior", [0.5, 0.2])
def test_how_many_pairs_of_a_kind_there_are_does_not_matter(prior: float) -> None:
    odds, same = answers(2)
    more = np.concatenate([odds, np.tile(odds[same], 4)])
    labels = np.concatenate([same, np.ones(4 * same.sum(), bool)])
    few = fit_temperature(odds, same, class_weights(same, prior))
    assert fit_temperature(more, labels, class_weights(labels, prior)) == pytest.approx(few)
    assert class_weights(labels, prior)[labels].sum() == pytest.approx(prior)
    assert class_weights(labels, prior).sum() == pytest.approx(1)
