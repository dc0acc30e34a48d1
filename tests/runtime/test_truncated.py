from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from murank import InputError, Labels, Ranking, evaluate_truncated


def ref_evaluation(order: NDArray[Any], labels: Labels) -> tuple[list[float], list[int | None]]:
    """Average precision and place of the first match of each valid query, by plain loops."""
    precisions, firsts = [], []
    _, _, q_camids, g_camids = labels.as_arguments()
    assert q_camids is not None
    assert g_camids is not None
    for q, listed in enumerate(order):
        same = [g for g, pid in enumerate(labels.g_pids) if pid == labels.q_pids[q]]
        wanted = [g for g in same if g_camids[g] != q_camids[q]]
        if not wanted:
            continue
        listed = [g for g in listed if g in wanted or g not in same]
        hits = [place for place, g in enumerate(listed, 1) if g in wanted]
        precisions.append(sum(n / place for n, place in enumerate(hits, 1)) / len(wanted))
        firsts.append(hits[0] if hits else None)
    return precisions, firsts


def make(k: int, seed: int = 0) -> tuple[Ranking, Labels]:
    random = np.random.default_rng(seed)
    labels = Labels(
        random.integers(0, 6, 15),
        random.integers(0, 7, 40),
        random.integers(0, 3, 15),
        random.integers(0, 3, 40),
    )
    order = random.random((15, 40)).argsort(axis=1)[:, :k]
    names = (np.array(["q"] * 15), np.array(["g"] * 40))
    return Ranking(order, np.zeros(order.shape, np.float32), *names, *labels.as_arguments()), labels


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 4, 12, 40])
def test_equals_plain_loops(k: int, seed: int) -> None:
    ranking, labels = make(k, seed)
    found = evaluate_truncated(ranking)
    precisions, firsts = ref_evaluation(ranking.indices, labels)
    assert found.num_valid == len(firsts)
    assert found.complete == (k == 40)
    assert found.mAP == pytest.approx(np.mean(precisions))
    for rank, share in enumerate(found.cmc, 1):
        assert share == np.mean([first is not None and first <= rank for first in firsts])


@pytest.mark.parametrize("k", [1, 4, 12])
def test_cmc_is_that_of_the_whole_ranking(k: int) -> None:
    (short, _), (whole, _) = make(k), make(40)
    found, wanted = evaluate_truncated(short), evaluate_truncated(whole)
    np.testing.assert_array_equal(found.cmc, wanted.cmc[: len(found.cmc)])
    assert found.mAP <= wanted.mAP


def test_equals_the_evaluator_when_complete() -> None:
    from murank_kernels import evaluate_rank

    ranking, labels = make(40)
    distances = np.empty((15, 40), np.float32)
    np.put_along_axis(distances, ranking.indices, np.arange(40, dtype=np.float32)[None], axis=1)
    wanted = evaluate_rank(distances, *labels.as_arguments(), max_rank=20)
    found = evaluate_truncated(ranking, max_rank=20)
    np.testing.assert_allclose(found.cmc, wanted.cmc)
    assert found.mAP == pytest.approx(wanted.mAP)


def test_without_labels_or_matches() -> None:
    ranking, _ = make(4)
    bare = Ranking(ranking.indices, ranking.distances, ranking.query_paths, ranking.gallery_paths)
    with pytest.raises(InputError, match="no pids"):
        evaluate_truncated(bare)
    arrays = {**vars(ranking), "q_pids": np.full(15, 99)}
    with pytest.raises(InputError, match="no query"):
        evaluate_truncated(Ranking(**arrays))
