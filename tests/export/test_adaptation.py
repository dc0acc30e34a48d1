"""The figures of benchmarks/adaptation.py, against sums made pair by pair."""

from itertools import product
from pathlib import Path

import adaptation
import numpy as np
import pytest
from adaptation import DOMAINS, K, _encoder_distances, _opinion, report
from adaptation_settings import (
    ONE_ORDER,
    SETTINGS,
    THE_METHODS,
    VALIDATION,
    calibrated,
    chosen,
)
from adaptation_settings import report as settings_report

from murank_export.world import UNSEEN


@pytest.fixture
def test() -> adaptation.Test:
    random = np.random.default_rng(2)
    queries, gallery = 9, 150
    pids = random.integers(0, 12, queries + gallery)
    camids = random.integers(1, 4, queries + gallery)
    people = random.standard_normal((12, 160))
    raw = people[pids] + 6 * random.standard_normal((queries + gallery, 160))
    return adaptation.Test([Path()] * len(pids), pids, camids, queries, raw.astype(np.float32))


def in_order(one: float, other: float) -> float:
    return (one < other) + 0.5 * (one == other)


def test_opinion_counts_pairs_of_candidates(test: adaptation.Test) -> None:
    mu = np.random.default_rng(3).integers(0, 4, (test.num_query, K)) / 4  # with ties
    distances = _encoder_distances(test)
    matches, others, where_wrong = [], [], []
    for query, row in enumerate(test.candidates[:, :K] + test.num_query):
        same = [test.pids[one] == test.pids[query] for one in row]
        seen = [test.camids[one] == test.camids[query] for one in row]
        ours = [i for i in range(K) if same[i] and not seen[i]]
        rest = [i for i in range(K) if not same[i]]
        matches += [mu[query, i] for i in ours]
        others += [mu[query, i] for i in rest]
        for i, j in product(ours, rest):
            if distances[query, i] > distances[query, j]:
                where_wrong.append(in_order(mu[query, i], mu[query, j]))
    everywhere = [in_order(one, other) for one, other in product(matches, others)]
    assert len(where_wrong) > 20
    wanted = 100 * np.mean(everywhere), 100 * np.mean(where_wrong)
    np.testing.assert_allclose(_opinion(test, mu), wanted)


def test_the_encoder_is_never_right_where_it_is_wrong(test: adaptation.Test) -> None:
    assert _opinion(test, _encoder_distances(test))[1] == 0


def test_a_row_ends_with_the_mean_of_the_unseen_domains() -> None:
    rows = [
        "encoder", "encoder + mu", "k-reciprocal", "k-reciprocal + mu",
        "k-reciprocal + mu, gallery mu", "ECN", "ECN + mu", "CA-Jaccard", "CA-Jaccard + mu",
    ]  # fmt: skip
    seeds = [
        {d: dict.fromkeys(rows, (10.0 * i + seed, 1.0)) for i, d in enumerate(DOMAINS)}
        for seed in range(2)
    ]
    line = next(one for one in report(seeds).splitlines() if one.startswith("| encoder |"))
    mean = np.mean([10.0 * DOMAINS.index(d) + 0.5 for d in UNSEEN])
    assert line.endswith(f"| {mean:.1f} ±0.5 / 1.0 ±0.0 |")


def test_settings_are_chosen_on_the_validation_domains() -> None:
    """Gains of 1 to the last by setting there; on the tests' domains, the other way round."""
    names = ["{} {} {:g}".format(*one) for one in SETTINGS]
    up = {name: (float(i), 2.0 * i) for i, name in enumerate(names, start=1)}
    down = {name: (200.0 - i, 0.0) for i, name in enumerate(names, start=1)}
    rows = {"without mu": (0.0, 0.0)}
    seed = {**dict.fromkeys(VALIDATION, rows | up), **dict.fromkeys(DOMAINS, rows | down)}
    seeds = [seed, seed]
    assert chosen(seeds) == SETTINGS[-1]
    assert chosen(seeds, ONE_ORDER) == ONE_ORDER[-1]
    assert not set(VALIDATION) & set(DOMAINS)
    lines = settings_report(seeds).splitlines()
    best = next(line for line in lines if line.startswith("| best of one order:"))
    number = SETTINGS.index(ONE_ORDER[-1]) + 1
    assert best.split(" | ")[1:3] == [f"+{number}.0 / +{2 * number}.0", f"+{200 - number}.0 / +0.0"]
    number = SETTINGS.index(THE_METHODS) + 1
    method = next(line for line in lines if line.startswith("| the method's:"))
    assert method.split(" | ")[1] == f"+{number}.0 / +{2 * number}.0"


def test_calibrated_mu_has_its_log_odds_divided() -> None:
    mu = np.array([[0, 1e-6, 0.2, 0.5, 0.9, 1]], np.float32)
    found = calibrated(mu, 0.5)
    wanted = [p**2 / (p**2 + (1 - p) ** 2) for p in mu[0].astype(float).tolist()]
    np.testing.assert_allclose(found[0], wanted, rtol=1e-9)
