from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from made_features import make_features

import murank_kernels as kernels
from murank import FeatureSet, InputError, MuDistances
from murank.rerank.alignment import Alignment, align
from murank.rerank.comparison import Compared, compare
from murank.rerank.methods import Progress
from murank.rerank.metrics import Metrics

RERANKERS = ("k-reciprocal", "ecn", "ca-jaccard")


@pytest.fixture(scope="module")
def features() -> FeatureSet:
    return make_features(
        num_ids=20, num_cameras=3, images_per_camera=3, num_distractors=40, dim=16, seed=3
    )


def scores(rows: int, columns: int, candidates: int, seed: int) -> MuDistances:
    """Random mu of random gallery images, none of them the row's own number."""
    random = np.random.default_rng(seed)
    chosen = [random.permutation(columns - 1)[:candidates] for _ in range(rows)]
    apart = [row + (row >= number) for number, row in enumerate(chosen)]
    return MuDistances(random.random((rows, candidates)), np.array(apart))


@pytest.fixture(scope="module")
def mu(features: FeatureSet) -> MuDistances:
    return scores(features.num_query, features.num_gallery, 8, 1)


@pytest.fixture(scope="module")
def gallery_mu(features: FeatureSet) -> MuDistances:
    return scores(features.num_gallery, features.num_gallery, 5, 2)


def metrics_of(found: list[Compared]) -> dict[str, Metrics]:
    return {line.label: line.metrics for line in found}


def direct(
    name: str,
    features: FeatureSet,
    mu: MuDistances | None = None,
    gallery_mu: MuDistances | None = None,
    protocol: Literal["market1501", "trapezoid"] = "market1501",
    **weight: float,
) -> Metrics:
    """The metrics of the whole matrix of distances, from the kernels' public functions."""
    given: dict[str, Any] = dict(weight)
    if mu is not None:
        given |= {"mu": mu.mu, "candidates": mu.candidates}
    if gallery_mu is not None:
        given |= {"gallery_mu": gallery_mu.mu, "gallery_candidates": gallery_mu.candidates}
    rows, num_query = features.features, features.num_query
    if name == "encoder":
        distances = kernels.simple(rows, num_query, **given)
    elif name == "k-reciprocal":
        distances = kernels.k_reciprocal(rows, num_query, **given)
    elif name == "ecn":
        distances = kernels.ecn(rows, num_query, **given)
    else:
        assert features.camids is not None
        distances = kernels.ca_jaccard(rows, num_query, features.camids, **given)
    assert features.labels is not None
    assert not isinstance(distances, tuple)
    found = kernels.evaluate_rank(distances, *features.labels.as_arguments(), protocol=protocol)
    ranks = {f"rank-{r}": float(found.cmc[r - 1]) for r in (1, 5, 10)}
    return {"mAP": float(found.mAP), "mINP": float(found.mINP), **ranks}


def agree(found: dict[str, Metrics], expected: dict[str, Metrics]) -> None:
    assert list(found) == list(expected)
    for label, metrics in expected.items():
        assert found[label] == pytest.approx(metrics, abs=1e-6), label


def test_without_mu(features: FeatureSet) -> None:
    found = compare(features)
    assert [(line.name, line.fused) for line in found] == [
        (name, "none") for name in ("encoder", *RERANKERS)
    ]
    agree(metrics_of(found), {name: direct(name, features) for name in ("encoder", *RERANKERS)})


def test_with_mu(features: FeatureSet, mu: MuDistances) -> None:
    found = compare(features, mu)
    assert [line.fused for line in found] == ["none", "mu"] * 4
    expected = {}
    for name in ("encoder", *RERANKERS):
        expected[name] = direct(name, features)
        expected[f"{name} + mu"] = direct(name, features, mu)
        assert expected[name] != expected[f"{name} + mu"]  # or the test would prove nothing
    agree(metrics_of(found), expected)


def test_with_both_kinds_of_mu(
    features: FeatureSet, mu: MuDistances, gallery_mu: MuDistances
) -> None:
    found = compare(features, mu, gallery_mu)
    assert [line.fused for line in found] == ["none", "mu", *["none", "mu", "gallery"] * 3]
    expected = {"encoder": direct("encoder", features)}
    expected["encoder + mu"] = direct("encoder", features, mu)
    for name in RERANKERS:
        expected[name] = direct(name, features)
        expected[f"{name} + mu"] = direct(name, features, mu)
        expected[f"{name} + mu, gallery mu"] = direct(name, features, mu, gallery_mu)
        assert expected[f"{name} + mu"] != expected[f"{name} + mu, gallery mu"]
    agree(metrics_of(found), expected)


def test_with_gallery_mu_alone(features: FeatureSet, gallery_mu: MuDistances) -> None:
    found = compare(features, None, gallery_mu)
    assert [line.fused for line in found] == ["none", *["none", "gallery only"] * 3]
    expected = {"encoder": direct("encoder", features)}
    for name in RERANKERS:
        expected[name] = direct(name, features)
        expected[f"{name} + gallery mu"] = direct(name, features, None, gallery_mu)
    agree(metrics_of(found), expected)


def test_alpha_weighs_both_kinds_of_mu(
    features: FeatureSet, mu: MuDistances, gallery_mu: MuDistances
) -> None:
    found = metrics_of(compare(features, mu, gallery_mu, alpha=0.7))
    for name in ("encoder", *RERANKERS):
        assert found[name] == pytest.approx(direct(name, features), abs=1e-6)
        expected = direct(name, features, mu, alpha=0.7)
        assert found[f"{name} + mu"] == pytest.approx(expected, abs=1e-6)
    for name in RERANKERS:
        expected = direct(name, features, mu, gallery_mu, alpha=0.7)
        assert found[f"{name} + mu, gallery mu"] == pytest.approx(expected, abs=1e-6)
    assert found["encoder + mu"] != metrics_of(compare(features, mu))["encoder + mu"]


def test_mu_without_weight_changes_nothing(features: FeatureSet, mu: MuDistances) -> None:
    found = metrics_of(compare(features, mu, alpha=0))
    for name in ("encoder", *RERANKERS):
        assert found[f"{name} + mu"] == found[name]


def test_mu_that_knows_the_answer(features: FeatureSet) -> None:
    assert features.labels is not None
    q_pids, g_pids, _, _ = features.labels.as_arguments()
    candidates = np.tile(np.arange(features.num_gallery), (features.num_query, 1))
    known = MuDistances((q_pids[:, None] != g_pids[None]).astype(np.float64), candidates)
    found = metrics_of(compare(features, known, alpha=1))
    assert found["encoder + mu"]["mAP"] == 1
    assert (found["encoder"]["mAP"] or 0) < 0.9


def test_protocols(features: FeatureSet, mu: MuDistances) -> None:
    found = metrics_of(compare(features, mu, protocol={"protocol": "trapezoid"}))
    assert found["ecn + mu"] == pytest.approx(direct("ecn", features, mu, protocol="trapezoid"))
    assert found["ecn + mu"]["mAP"] != metrics_of(compare(features, mu))["ecn + mu"]["mAP"]
    draws = [
        compare(features, protocol={"protocol": "cuhk03", "num_repeats": 2, "seed": seed})
        for seed in (1, 1, 2)
    ]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


def watcher(labels: list[str]) -> Callable[[str], Progress]:
    def start(label: str) -> Progress:
        labels.append(label)
        return lambda _stage, _done, _total: None

    return start


def test_progress_of_every_line(
    features: FeatureSet, mu: MuDistances, gallery_mu: MuDistances
) -> None:
    labels: list[str] = []
    found = compare(features, mu, gallery_mu, progress=watcher(labels))
    assert labels == [line.label for line in found]


def test_progress_is_that_of_the_kernels(features: FeatureSet) -> None:
    calls: dict[str, list[tuple[str, int, int]]] = {}
    compare(
        features,
        progress=lambda label: lambda *call: calls.setdefault(label, []).append(call),
    )
    assert {"k-reciprocal", "ecn", "ca-jaccard"} <= set(calls)
    for made in calls.values():
        assert all(0 <= done <= total for _, done, total in made)
        assert made[-1][1] == made[-1][2]


def test_a_set_smaller_than_the_neighbourhoods() -> None:
    random = np.random.default_rng(0)
    tiny = FeatureSet(
        random.standard_normal((6, 4)).astype(np.float32), np.array(list("abcdef")),
        np.array([1, 2, 1, 2, 1, 2]), np.array([0, 0, 1, 1, 2, 2]), 2,
    )  # fmt: skip
    for line in compare(tiny):
        assert 0 < (line.metrics["mAP"] or 0) <= 1
        assert line.metrics["rank-5"] is None  # of a gallery of four


@pytest.mark.parametrize("missing", ["pids", "camids"])
def test_features_without_labels(features: FeatureSet, missing: str) -> None:
    changes: dict[str, Any] = {missing: None}
    with pytest.raises(InputError, match=missing):
        compare(replace(features, **changes))


def test_nothing_to_find(features: FeatureSet) -> None:
    assert features.camids is not None
    for changes in (
        {"pids": np.arange(len(features.paths))},
        {"camids": np.zeros_like(features.camids)},
    ):
        with pytest.raises(InputError, match="a query with a match"):
            compare(replace(features, **changes))


def refused(message: str, features: FeatureSet, *mu: MuDistances | None, **options: Any) -> None:
    """Before any line was begun."""
    labels: list[str] = []
    with pytest.raises(InputError, match=message):
        compare(features, *mu, progress=watcher(labels), **options)
    assert labels == []


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_a_weight_out_of_range(features: FeatureSet, mu: MuDistances, alpha: float) -> None:
    refused("alpha", features, mu, alpha=alpha)


def test_mu_that_does_not_fit(
    features: FeatureSet, mu: MuDistances, gallery_mu: MuDistances
) -> None:
    short = MuDistances(mu.mu[:-1], mu.candidates[:-1])
    beyond = MuDistances(mu.mu, mu.candidates + features.num_gallery)
    own = MuDistances(gallery_mu.mu, np.tile(np.arange(5), (features.num_gallery, 1)))
    refused("mu must have shape", features, short)
    refused("candidates", features, beyond)
    refused("gallery_mu", features, mu, mu)
    refused("gallery", features, mu, own)
    refused("gallery", features, None, own)


def test_what_mu_does_is_told_with_an_interval(features: FeatureSet, mu: MuDistances) -> None:
    found = {(line.name, line.fused): line for line in compare(features, mu)}
    for (name, fused), line in found.items():
        if fused == "none":
            assert line.gain is None
            assert line.verdict is None
            continue
        assert line.gain is not None
        before, after = found[name, "none"].metrics["mAP"], line.metrics["mAP"]
        assert line.gain.mean == pytest.approx(after - before)  # type: ignore[operator]
        assert line.gain.low <= line.gain.mean <= line.gain.high
        assert "mu makes" in str(line.verdict)
        assert name in str(line.verdict)


def test_aligned_lines_are_those_of_aligned_features(features: FeatureSet, mu: MuDistances) -> None:
    aligned = align(features, Alignment("mean"))
    found = metrics_of(compare(features, mu, aligned=aligned))
    plain = {
        label.replace("encoder", "aligned (mean, 16)"): metrics
        for label, metrics in metrics_of(compare(aligned.features, mu)).items()
    }
    agree(found, {"encoder": direct("encoder", features), **plain})
