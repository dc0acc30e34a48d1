"""What is dropped from rankings, against a loop that looks at one pair after the other."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from murank_kernels import InvalidInputError, RankEvaluator, evaluate_rank, simple_blocks
from murank_kernels.evaluation import rank_evaluator
from murank_kernels.evaluation.drop_rule import RULES, DropRule

Pair = Callable[[int, int], bool]
GROUPS = [(2, 3)]  # of SYSU-MM01


@dataclass(frozen=True)
class Made:
    """Random labels: few of each kind, so that every case occurs."""

    distances: Any
    labels: dict[str, Any]
    times: tuple[Any, Any]

    def same(self, what: str, i: int, j: int) -> bool:
        return bool(self.labels[f"q_{what}"][i] == self.labels[f"g_{what}"][j])

    def is_unknown(self, i: int, j: int) -> bool:
        return bool(self.labels["q_clothes"][i] < 0 or self.labels["g_clothes"][j] < 0)

    def is_near(self, i: int, j: int) -> bool:
        return bool(abs(self.times[0][i] - self.times[1][j]) < 3)

    def mask(self, queries: Any) -> Any:
        return np.abs(self.times[0][queries, None] - self.times[1]) < 3


def made(seed: int, num_query: int = 40, num_gallery: int = 90) -> Made:
    random = np.random.default_rng(seed)

    def drawn(low: int, high: int) -> dict[str, Any]:
        return {
            "q": random.integers(low, high, num_query), "g": random.integers(low, high, num_gallery)
        }  # fmt: skip

    kinds = {"pids": drawn(0, 40), "camids": drawn(1, 5), "clothes": drawn(-1, 3)}
    labels = {f"{side}_{name}": kinds[name][side] for name in kinds for side in "qg"}
    distances = random.integers(0, 9, (num_query, num_gallery)).astype(np.float32)  # many ties
    times = drawn(0, 12)
    return Made(distances, labels, (times["q"], times["g"]))


def same_place(case: Made, i: int, j: int) -> bool:
    cameras = {int(case.labels["q_camids"][i]), int(case.labels["g_camids"][j])}
    return len(cameras) == 1 or cameras == {2, 3}


# Name -> the arguments, and what they drop, spelled out pair by pair.
CASES: dict[str, tuple[dict[str, Any], Callable[[Made], Pair]]] = {
    "same-camera": (
        {}, lambda case: lambda i, j: case.same("pids", i, j) and case.same("camids", i, j)
    ),
    "same-clothes": (
        {"drop": "same-clothes"},
        lambda case: lambda i, j: case.same("pids", i, j)
        and (case.same("camids", i, j) or case.is_unknown(i, j) or case.same("clothes", i, j)),
    ),
    "other-clothes": (
        {"drop": "other-clothes"},
        lambda case: lambda i, j: case.same("pids", i, j)
        and (case.same("camids", i, j) or case.is_unknown(i, j) or not case.same("clothes", i, j)),
    ),
    "whole-camera": (
        {"drop": "whole-camera"}, lambda case: lambda i, j: case.same("camids", i, j)
    ),
    "none": ({"drop": "none"}, lambda _case: lambda _i, _j: False),
    "groups": (
        {"camera_groups": GROUPS},
        lambda case: lambda i, j: case.same("pids", i, j) and same_place(case, i, j),
    ),
    "groups, whole": (
        {"drop": "whole-camera", "camera_groups": GROUPS},
        lambda case: lambda i, j: same_place(case, i, j),
    ),
    "mask": ({}, lambda case: case.is_near),
    "callable": ({}, lambda case: case.is_near),
}  # fmt: skip


def arguments(name: str, case: Made) -> dict[str, Any]:
    masks = {"mask": case.mask(np.arange(len(case.times[0]))), "callable": case.mask}
    return {**CASES[name][0], **({"drop": masks[name]} if name in masks else {})}


@dataclass
class Looped:
    """What a loop over queries finds."""

    all_AP: list[float]  # noqa: N815 - as evaluate_rank calls it
    all_INP: list[float]  # noqa: N815
    cmc: Any
    num_valid: int
    num_emptied: int


def looped(case: Made, is_dropped: Pair, *, of_people: bool = False) -> Looped:
    q_pids, g_pids = (case.labels[name].tolist() for name in ("q_pids", "g_pids"))
    found = Looped([], [], np.zeros(50), 0, 0)
    for i, row in enumerate(case.distances.tolist()):
        order = sorted(range(len(row)), key=lambda j: (row[j], j))
        kept = [g_pids[j] for j in order if not is_dropped(i, j)]
        places = [place for place, pid in enumerate(kept, 1) if pid == q_pids[i]]
        if not places:
            found.num_emptied += q_pids[i] in g_pids
            found.all_AP.append(np.nan)
            found.all_INP.append(np.nan)
            continue
        found.num_valid += 1
        found.all_AP.append(sum(n / place for n, place in enumerate(places, 1)) / len(places))
        found.all_INP.append(len(places) / places[-1])
        people = list(dict.fromkeys(kept))
        first = people.index(q_pids[i]) + 1 if of_people else places[0]
        found.cmc[first - 1 :] += 1
    found.cmc /= found.num_valid
    return found


def check(found: Any, wanted: Looped) -> None:
    assert (found.num_valid, found.num_emptied) == (wanted.num_valid, wanted.num_emptied)
    for name in ("all_AP", "all_INP", "cmc"):
        assert_allclose(getattr(found, name), getattr(wanted, name), rtol=0, atol=1e-12)
    assert found.mAP == pytest.approx(np.nanmean(wanted.all_AP), abs=1e-12)
    assert found.mINP == pytest.approx(np.nanmean(wanted.all_INP), abs=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_rules(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_evaluator, "_PAIRS_AT_ONCE", 90 * 7)  # so that masks come in parts
    for seed in range(3):
        case = made(seed)
        wanted = looped(case, CASES[name][1](case))
        assert 0 < wanted.num_valid < 40
        assert (wanted.num_emptied > 0) == (name != "none")
        check(evaluate_rank(case.distances, **case.labels, **arguments(name, case)), wanted)


@pytest.mark.parametrize("name", CASES)
def test_people_are_counted(name: str) -> None:
    case = made(5)
    found = evaluate_rank(case.distances, **case.labels, protocol="sysu", **arguments(name, case))
    check(found, looped(case, CASES[name][1](case), of_people=True))


def test_sysu_mm01() -> None:
    """Of a query of camera 3, the evaluation code of SYSU-MM01 drops all of camera 2."""
    case = made(6)
    random = np.random.default_rng(0)
    case.labels["q_camids"] = random.choice([3, 6], 40)
    case.labels["g_camids"] = random.choice([1, 2, 4, 5], 90)
    q_camids, g_camids = case.labels["q_camids"], case.labels["g_camids"]
    wanted = looped(case, lambda i, j: q_camids[i] == 3 and g_camids[j] == 2, of_people=True)
    found = evaluate_rank(
        case.distances, **case.labels, protocol="sysu", drop="whole-camera", camera_groups=GROUPS
    )
    check(found, wanted)


def test_dropped_items_are_never_drawn() -> None:
    """With one of two items a person left, single-gallery-shot draws that one."""
    case = made(7, num_gallery=80)
    case.labels["g_pids"] = np.arange(80) // 2
    case.labels["g_camids"] = np.random.default_rng(1).permuted([[1, 2]] * 40, axis=1).ravel()
    case.labels["q_camids"] = np.arange(40) % 2 + 1
    by_camera = case.labels["q_camids"][:, None] == case.labels["g_camids"]
    for drop in ("whole-camera", by_camera, lambda queries: by_camera[queries]):
        rule: Any = {"drop": drop}
        desired = evaluate_rank(case.distances, **case.labels, **rule)
        drawn = evaluate_rank(case.distances, **case.labels, **rule, protocol="cuhk03")
        assert_array_equal(drawn.cmc, desired.cmc)


@pytest.mark.parametrize("name", ["same-clothes", "groups, whole", "mask", "callable"])
@pytest.mark.parametrize("protocol", ["market1501", "trapezoid", "cuhk03", "sysu"])
def test_junk_and_a_rule(name: str, protocol: Any) -> None:
    """Left out, junk was never there, whatever else is dropped."""
    case = made(8)
    case.labels["g_pids"][::7] = -1
    case.labels["q_pids"][3] = -1
    query, gallery = (case.labels[f"{side}_pids"] != -1 for side in "qg")
    times = case.times[0][query], case.times[1][gallery]
    sides = {"q": query, "g": gallery}
    labels = {key: values[sides[key[0]]] for key, values in case.labels.items()}
    rest = Made(case.distances[query][:, gallery], labels, times)
    given: Any = {"protocol": protocol, "seed": 3}
    actual = evaluate_rank(
        case.distances, **case.labels, **arguments(name, case), junk="drop", **given
    )
    desired = evaluate_rank(rest.distances, **labels, **arguments(name, rest), **given)
    assert_array_equal(actual.cmc, desired.cmc)
    assert (actual.mAP, actual.mINP) == (desired.mAP, desired.mINP)
    assert actual.num_emptied == desired.num_emptied


def test_no_cameras() -> None:
    case = made(9)
    labels = {name: case.labels[name] for name in ("q_pids", "g_pids")}
    found = evaluate_rank(case.distances, **labels, drop="none")
    check(found, looped(case, lambda _i, _j: False))
    check(evaluate_rank(case.distances, **labels, drop=case.mask), looped(case, case.is_near))
    for drop in ("same-camera", "whole-camera"):
        with pytest.raises(InvalidInputError, match="q_camids"):
            evaluate_rank(case.distances, **labels, drop=drop)


def test_blocks_are_dropped_from_as_they_come() -> None:
    features = np.random.default_rng(1).standard_normal((60, 5)).astype(np.float32)
    case = made(2, 20, 40)
    blocks = simple_blocks(features, 20)
    whole = evaluate_rank(blocks.dense(), **case.labels, drop=case.mask)
    assert_array_equal(evaluate_rank(blocks, **case.labels, drop=case.mask).all_AP, whole.all_AP)
    evaluator = RankEvaluator(**case.labels, drop=case.mask)
    for start in (10, 0):
        evaluator.update(start, blocks.dense()[start : start + 10])
    assert_array_equal(evaluator.result().all_AP, whole.all_AP)


@pytest.mark.parametrize("name", CASES)
def test_pairs_are_as_rows(name: str) -> None:
    case = made(4)
    labels = case.labels
    pids, camids, clothes = (
        (labels[f"q_{key}"], labels[f"g_{key}"]) for key in ("pids", "camids", "clothes")
    )
    given = {"drop": "same-camera", **arguments(name, case)}
    rule = DropRule.of(given.pop("drop"), pids, camids, clothes, **given)
    rows = rule.rows(np.arange(40), np.arange(90))
    queries, items = np.random.default_rng(0).integers(0, (40, 90), (500, 2)).T
    assert_array_equal(rule.pairs(queries, items), rows[queries, items])
    assert rule.of_anyone or not (rows & (pids[0][:, None] != pids[1])).any()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"drop": "same-cloth"}, "drop"),
        ({"drop": "same-clothes", "g_clothes": None}, "g_clothes"),
        ({"drop": "other-clothes", "q_camids": None}, "q_camids"),
        ({"q_clothes": [1, 2]}, "q_clothes"),
        ({"drop": np.zeros((90, 40), bool)}, "drop"),
        ({"drop": np.zeros((40, 90))}, "drop"),
        ({"drop": lambda queries: np.zeros((len(queries), 3), bool)}, "drop"),
        ({"drop": np.ones((40, 90), bool)}, "the mask"),
        ({"drop": "none", "camera_groups": GROUPS}, "camera_groups"),
        ({"drop": np.zeros((40, 90), bool), "camera_groups": GROUPS}, "camera_groups"),
        ({"camera_groups": [(2, 7)]}, "7"),
        ({"camera_groups": [(1, 2), (2, 3)]}, "2 again"),
        ({"camera_groups": [(2, 2)]}, "camera_groups"),
        ({"camera_groups": [(2,)]}, "camera_groups"),
        ({"camera_groups": (2, 3)}, "camera_groups"),
        ({"camera_groups": ["23"]}, "camera_groups"),
        ({"camera_groups": "23"}, "camera_groups"),
        ({"camera_groups": None}, "camera_groups"),
        ({"drop": None}, "same-clothes"),
        ({"drop": {"a": 1}}, "drop"),
        ({"drop": lambda _queries: None}, "drop"),
        ({"protocol": "sysumm"}, "protocol"),
    ],
)  # fmt: skip
def test_refused(given: dict[str, Any], named: str) -> None:
    case = made(1)
    with pytest.raises(InvalidInputError, match=named):
        evaluate_rank(case.distances, **{**case.labels, **given})


def test_what_is_like_an_array_is_one() -> None:
    """A list of lists, a set, a tensor."""
    case = made(3)
    mask = arguments("mask", case)["drop"]
    wanted = evaluate_rank(case.distances, **case.labels, drop=mask).all_AP
    masks: list[Any] = [mask.tolist(), lambda queries: mask[queries].tolist()]
    if (torch := sys.modules.get("torch")) is not None:
        masks += [torch.as_tensor(mask), lambda queries: torch.as_tensor(mask)[queries]]
    for one in masks:
        assert_array_equal(evaluate_rank(case.distances, **case.labels, drop=one).all_AP, wanted)
    groups: list[Any] = [[{2, 3}], [range(2, 4)], np.array([[2, 3]]), ((2, 3),)]
    found = [evaluate_rank(case.distances, **case.labels, camera_groups=one) for one in groups]
    assert len({one.mAP for one in found}) == 1


def test_rules_have_words() -> None:
    assert {name for name in CASES if name in RULES} == set(RULES)
