"""Which pairs a validation asks about, and how many."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from murank import InputError
from murank.pairs.labelled import Pair
from murank_export.adapt.train_settings import TrainSettings
from murank_export.adapt.validation_choice import chosen, validation_size


def pairs_of(queries: int, matches: int, others: int) -> list[Pair]:
    return [
        Pair(f"q{query}", f"{query}-{place}", place < matches)
        for query in range(queries)
        for place in range(matches + others)
    ]


MINED = pairs_of(100, 2, 6)


@pytest.mark.parametrize("size", [2, 8, 40, 120, 799])
def test_both_answers_as_often_as_among_all(size: int) -> None:
    found = chosen(MINED, size, 0)
    assert len(found) == len(set(found)) == size
    assert sum(pair.match for pair in found) == max(1, round(size / 4))
    assert found == sorted(found, key=MINED.index)
    assert found == chosen(MINED, size, 0)
    assert found != chosen(MINED, size, 1)


def test_every_query_before_any_twice() -> None:
    """200 pairs: 50 that match, of 50 queries; 150 that do not, of 100, none more than twice."""
    found = chosen(MINED, 200, 3)
    matching = Counter(pair.query for pair in found if pair.match)
    different = Counter(pair.query for pair in found if not pair.match)
    assert (len(matching), max(matching.values())) == (50, 1)
    assert (len(different), max(different.values())) == (100, 2)


def test_what_is_rare_is_there() -> None:
    rare = [*pairs_of(50, 0, 4), Pair("q0", "same", True)]
    for seed in range(5):
        assert Pair("q0", "same", True) in chosen(rare, 10, seed)
    assert chosen(rare, 201, 0) == chosen(rare, 999, 0) == rare
    with pytest.raises(InputError, match=r"val\.json"):
        chosen(rare, 1, 0)


@pytest.mark.parametrize(
    ("changes", "train", "val", "processes", "size"),
    [
        ({}, 100_000, 10_000, 1, 2000),  # a tenth of an epoch, in two validations: 5,000
        ({}, 20_000, 10_000, 1, 1000),
        ({"epochs": 3}, 20_000, 10_000, 1, 1500),  # 6,000 in four
        ({"eval_every": 1000}, 20_000, 10_000, 1, 200),  # 11 validations: 182
        ({"steps": 1000, "batch_size": 8}, 100_000, 10_000, 1, 400),  # 800 in two
        ({"steps": 1000, "batch_size": 8, "accumulate": 2}, 100_000, 10_000, 2, 1600),
        ({"steps": 40}, 100_000, 10_000, 1, 200),
        ({"steps": 40}, 100_000, 150, 1, 150),
        ({"val_pairs": 5}, 100_000, 10_000, 1, 5),
        ({"val_pairs": 5000}, 100_000, 3000, 1, 3000),
        ({"val_pairs": "all"}, 100, 10_000, 1, 10_000),
    ],
)
def test_a_share_of_the_budget(
    changes: dict[str, Any], train: int, val: int, processes: int, size: int
) -> None:
    settings = TrainSettings(Path("m"), Path("p"), Path("o"), **changes)
    assert validation_size(settings, train, val, processes) == size
