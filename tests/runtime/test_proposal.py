"""What the MLLM tells beside the encoder, and what is proposed, against plain loops."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_features import make_features

import murank_kernels as kernels
from murank import FeatureSet, InputError, MuDistances, save_features
from murank.cli import main
from murank.rerank.alignment import Alignment, align
from murank.rerank.intervals import Gain, paired_gain
from murank.rerank.mu_auc import Told, Within, told_among_candidates, told_of
from murank.rerank.mu_worth import gains_line, gains_near
from murank.rerank.proposal import ALPHAS, FOLDS, Proposal, propose

K = 6


@pytest.fixture(scope="module")
def features() -> FeatureSet:
    return make_features(
        num_ids=24, num_cameras=3, images_per_camera=2, num_distractors=30, dim=12, seed=5
    )


def scores(features: FeatureSet, noise: float, right: bool = True) -> MuDistances:
    """Mu of the nearest candidates: who is on them, or the opposite, and noise."""
    candidates = kernels.simple(features.features, features.num_query, top_k=K)[1].astype(int)
    assert features.pids is not None
    people = features.pids[features.num_query :][candidates]
    same = people == features.pids[: features.num_query, None]
    random = np.random.default_rng(2).random(candidates.shape)
    mu = np.where(same == right, 0.1, 0.9)
    return MuDistances(((1 - noise) * mu + noise * random).astype(np.float32), candidates)


def ref_auc(distances: list[float], same: list[bool]) -> float:
    """Over all pairs of pairs."""
    wins = [
        1.0 if one < other else 0.5 if one == other else 0.0
        for one, is_same in zip(distances, same, strict=True) if is_same
        for other, differs in zip(distances, same, strict=True) if not differs
    ]  # fmt: skip
    return sum(wins) / len(wins)


def ref_within(
    told: Sequence[list[float] | None], same: list[bool], queries: list[int]
) -> Within | None:
    """Over all (match, other) of one query."""
    both = [
        (i, j) for i, j in permutations(range(len(same)), 2)
        if queries[i] == queries[j] and same[i] and not same[j]
    ]  # fmt: skip
    if not both:
        return None

    def order(of: list[float], i: int, j: int) -> float:
        return 1.0 if of[i] < of[j] else 0.5 if of[i] == of[j] else 0.0

    def share(of: list[float], some: list[tuple[int, int]]) -> Any:
        return pytest.approx(sum(order(of, i, j) for i, j in some) / len(some), abs=1e-6)

    mu, encoder, aligned = told
    assert mu is not None
    assert encoder is not None
    best = encoder if aligned is None else aligned
    wrong = [(i, j) for i, j in both if order(best, i, j) == 0]
    return Within(
        share(mu, both), share(encoder, both), None if aligned is None else share(aligned, both),
        len(both), len(wrong), share(mu, wrong) if wrong else None,
    )  # fmt: skip


def test_among_candidates(features: FeatureSet) -> None:
    pids = np.asarray(features.pids).copy()
    pids[features.num_query + 3] = pids[1] = -1  # a gallery image and a query of nobody known
    features = replace(features, pids=pids)
    mu = scores(features, 0.7)
    aligned = align(features, Alignment("mean")).features
    assert features.labels is not None
    found = told_among_candidates(mu, features.labels, features, aligned)
    told: list[list[float]] = [[], [], []]
    same: list[bool] = []
    queries: list[int] = []
    camids, first = np.asarray(features.camids), features.num_query
    for query in range(first):
        for column, candidate in enumerate(mu.candidates[query]):
            row = first + int(candidate)
            is_same = bool(pids[query] == pids[row])
            if -1 in (pids[query], pids[row]) or (is_same and camids[query] == camids[row]):
                continue
            same.append(is_same)
            queries.append(query)
            told[0].append(float(mu.mu[query, column]))
            for place, some in enumerate((features, aligned), 1):
                left, right = (some.features[i].astype(float) for i in (query, row))
                cosine = left @ right / np.linalg.norm(left) / np.linalg.norm(right)
                told[place].append(round(1 - cosine, 12))
    assert found is not None
    assert [found.mu, found.encoder, found.aligned] == pytest.approx(
        [ref_auc(one, same) for one in told], abs=1e-6
    )
    assert (found.same, found.different) == (sum(same), len(same) - sum(same))
    assert found.within == ref_within(told, same, queries)
    alone = told_among_candidates(mu, features.labels, features, None)
    assert alone == replace(
        found, aligned=None, within=ref_within([*told[:2], None], same, queries)
    )
    assert found.within is not None
    assert found.within.mu != found.mu, "the test must see both"


def test_one_kind_of_pairs_tells_nothing() -> None:
    values, queries = np.arange(4.0), list("aabb")
    assert told_of(values, values, None, np.zeros(4, bool), queries) is None
    assert told_of(values, values, None, np.ones(4, bool), queries) is None
    assert told_of(values[:0], values[:0], None, np.ones(0, bool), []) is None
    apart = told_of(values, values, None, np.array([True, True, False, False]), queries)
    assert apart is not None
    assert apart.within is None, "no query has both"


@pytest.mark.parametrize("kinds", [2, 3, 9])
def test_within_queries_of_any_order(kinds: int) -> None:
    """Answers with ties, queries that are mixed, of one kind, or the encoder never wrong."""
    random = np.random.default_rng(kinds)
    same, queries = random.random(60) < 0.4, random.integers(0, 12, 60)
    mu, encoder, aligned = (random.integers(0, kinds, 60) / kinds for _ in range(3))
    lists = [one.tolist() for one in (mu, encoder, aligned)]
    found = told_of(mu, encoder, aligned, same, [f"{one}.png" for one in queries])
    assert found is not None
    assert found.within == ref_within(lists, same.tolist(), queries.tolist())
    right = told_of(mu, np.where(same, 0.0, 1.0), None, same, queries)
    assert right is not None
    assert right.within == ref_within(
        [lists[0], [float(not one) for one in same], None], same.tolist(), queries.tolist()
    )
    assert right.within is not None
    assert (right.within.encoder_wrong, right.within.mu_right_there) == (0, None)


@pytest.mark.parametrize(
    ("figures", "less"),
    [((0.7, 0.8, None), True), ((0.7, 0.6, 0.8), True), ((0.7, 0.6, 0.65), False),
     ((0.7, 0.6, None), False), ((0.7, 0.7, 0.7), False)],
)  # fmt: skip
def test_the_sentence(figures: tuple[float, float, float | None], less: bool) -> None:
    lines = Told(*figures, same=30, different=40).lines
    assert sum("tells less" in line for line in lines) == less
    assert len(Told(*figures, same=3, different=40).lines) == 1, "three pairs tell nothing"
    within = Within(*figures, compared=99, encoder_wrong=20, mu_right_there=0.625)
    lines = Told(0.1, 0.9, None, same=30, different=40, within=within).lines
    assert sum("tells less" in line for line in lines) == less, "a ranking is of one query"
    assert any("62.5 %" in line and "20" in line for line in lines)


@pytest.mark.parametrize(
    ("auc", "rows"),
    [(0.0, [0.5]), (0.5, [0.5, 0.6]), (0.75, [0.7, 0.8]), (0.96, [0.95, 1.0]), (1.0, [1.0])],
)
def test_measured_gains_are_those_beside(auc: float, rows: list[float]) -> None:
    assert [one.auc for one in gains_near(auc)] == rows
    assert all(f"of {one:g} " in gains_line(auc) for one in rows)


def ref_proposal(method: str, features: FeatureSet, mu: MuDistances) -> dict[str, Any]:
    """Everything again: a whole matrix for each setting, and lists of people."""
    assert features.labels is not None
    settings = [(0.0, 0), *((alpha, k) for alpha in ALPHAS for k in (1, 2, 5, K))]
    precisions = []
    for alpha, k in settings:
        more = {"alpha": alpha, "mu": mu.mu[:, :k], "candidates": mu.candidates[:, :k]}
        given: dict[str, Any] = more if alpha else {}
        if method == "k-reciprocal":
            distances = kernels.k_reciprocal(features.features, features.num_query, **given)
        else:
            distances = kernels.simple(features.features, features.num_query, **given)
        found = kernels.evaluate_rank(np.asarray(distances), *features.labels.as_arguments())
        precisions.append(found.all_AP.tolist())
    queries = [i for i, value in enumerate(precisions[0]) if not np.isnan(value)]
    pids = features.labels.q_pids.tolist()
    people = sorted({pids[i] for i in queries})
    order = np.random.default_rng(0).permutation(len(people)).tolist()
    fold = {person: order[i] % FOLDS for i, person in enumerate(people)}

    def best(some: list[int]) -> int:
        sums = [math.fsum(one[i] for i in some) for one in precisions]
        return sums.index(max(sums))

    chosen = {f: best([i for i in queries if fold[pids[i]] != f]) for f in range(FOLDS)}
    held_out = [precisions[chosen[fold[pids[i]]]][i] for i in queries]
    plain = [precisions[0][i] for i in queries]
    gain = paired_gain(np.array(plain), np.array(held_out))
    alpha, k = settings[best(queries)] if gain.mean > 0 else (0.0, 0)
    return {"alpha": alpha, "candidates": k, "held_out": gain, "settings": settings}


@pytest.mark.parametrize("method", ["k-reciprocal", "simple"])
@pytest.mark.parametrize(("noise", "right"), [(0.3, True), (0.95, True), (0.3, False)])
def test_proposal(features: FeatureSet, method: str, noise: float, right: bool) -> None:
    mu = scores(features, noise, right)
    assert features.labels is not None
    found = propose(method, features, mu, features.labels, protocol={})
    expected = ref_proposal(method, features, mu)
    assert (found.alpha, found.candidates) == (expected["alpha"], expected["candidates"])
    assert found.held_out == expected["held_out"]
    assert list(found.tried) == expected["settings"]
    assert found.folds == FOLDS
    if noise == 0.3:
        assert (found.alpha > 0) == right, "the test must see both"


def test_people_stay_together(features: FeatureSet) -> None:
    """Mu that is right about one person alone carries to nobody: nothing is proposed."""
    assert features.labels is not None
    mu = scores(features, 1.0)
    useless = MuDistances(np.full_like(mu.mu, 0.5), mu.candidates)
    pids = features.labels.q_pids
    helped, harmed = scores(features, 0.0).mu, scores(features, 0.0, right=False).mu
    one = np.isin(pids, np.unique(pids)[:1])[:, None]
    mixed = MuDistances(np.where(one, helped, harmed).astype(np.float32), useless.candidates)
    found = propose("simple", features, mixed, features.labels, protocol={})
    assert (found.alpha, found.candidates) == (0, 0)
    assert found.held_out.mean <= 0
    assert "--no-mu" in found.lines[0]


def test_one_person_is_too_few(features: FeatureSet) -> None:
    pids = np.where(np.arange(len(features.paths)) < features.num_query + 9, 1, 2)
    one = replace(features, pids=pids)
    assert one.labels is not None
    with pytest.raises(InputError, match="two people"):
        propose("simple", one, scores(features, 0.5), one.labels, protocol={})


def test_lines_name_options() -> None:
    gain = Gain(0.02, 0.01, 0.03, 50)
    proposal = Proposal("ecn", 0.3, 5, gain, {}, people=20, folds=5)
    assert "--alpha 0.3" in proposal.lines[0]
    assert "better" in proposal.lines[1]


@pytest.fixture
def files(features: FeatureSet, tmp_path: Path) -> list[str]:
    mu = scores(features, 0.3)
    save_features(tmp_path / "f.npz", features)
    np.savez(tmp_path / "mu.npz", probs=mu.mu, gallery_indices=mu.candidates)
    return [str(tmp_path / "f.npz"), "--mu", str(tmp_path / "mu.npz")]


def test_cli(files: list[str], features: FeatureSet, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", *files, "--propose", "simple", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert features.labels is not None
    mu = scores(features, 0.3)
    expected = propose("simple", features, mu, features.labels, protocol={})
    assert found["proposal"] == json.loads(json.dumps(expected.to_json()))
    told = told_among_candidates(mu, features.labels, features, None)
    assert told is not None
    assert found["among_candidates"] == told.to_json()
    assert main(["evaluate", *files, "--propose"]) == 0
    text = capsys.readouterr().out
    assert "proposed for k-reciprocal" in text
    assert "held out" in text
    assert main(["evaluate", *files, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["proposal"] is None


def test_cli_refused(
    files: list[str], features: FeatureSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, flag in (
        ([*files[:1], "--propose"], "--propose"),
        ([*files, "--propose", "none"], "--propose"),
    ):
        assert main(["evaluate", *options]) == 2
        assert flag in capsys.readouterr().err
    one = replace(features, pids=np.minimum(np.asarray(features.pids), 1))
    save_features(tmp_path / "f.npz", one, overwrite=True)
    assert main(["evaluate", *files, "--propose"]) == 2
    assert "people" in capsys.readouterr().err
