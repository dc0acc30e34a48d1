"""Which pairs are asked, in which order, and what becomes of images that cannot be used."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from murank import Engine, InputError
from murank.calibration import distinct_pairs, score_pairs
from murank.calibration import pair_answers as scoring
from murank.images import Preprocessing
from murank.pairs.labelled import Pair

SHADES = {"a": 10, "b": 50, "c": 90, "d": 200}


class FakeScorer:
    """Logits are the two images' shades; counts the queries it is asked about."""

    def __init__(self) -> None:
        self.part = SimpleNamespace(preprocessing=Preprocessing(4, 2))
        self.calls: list[int] = []

    def logits(
        self, query: NDArray[np.uint8], candidates: Sequence[NDArray[np.uint8]]
    ) -> NDArray[np.float32]:
        self.calls.append(len(candidates))
        rows = [[candidate.mean(), 2 * query.mean()] for candidate in candidates]
        return np.array(rows, np.float32)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, shade in SHADES.items():
        Image.new("RGB", (3, 5), (shade,) * 3).save(tmp_path / f"{name}.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    return tmp_path


def engine() -> Engine:
    return cast("Engine", SimpleNamespace(scorer=FakeScorer()))


def pairs(*texts: str) -> list[Pair]:
    """'abY' is the pair a.png, b.png of one person; 'x' is bad.png, '-' is missing."""
    paths = {**{letter: f"{letter}.png" for letter in SHADES}, "x": "bad.png", "-": "none.png"}
    return [Pair(paths[text[0]], paths[text[1]], text[2] == "Y") for text in texts]


def test_pairs_are_asked_by_query(root: Path) -> None:
    asked = engine()
    given = pairs("abY", "cdN", "adN", "cbY", "acN", "abY")
    shown: list[tuple[str, int, int]] = []
    found = score_pairs(asked, given, root=root, progress=lambda *told: shown.append(told))
    assert found.pairs == tuple(pairs("abY", "adN", "acN", "cdN", "cbY"))
    assert found.log_odds.tolist() == [50 - 20, 200 - 20, 90 - 20, 200 - 180, 50 - 180]
    assert found.same.tolist() == [True, False, False, False, True]
    assert cast("Any", asked.scorer).calls == [3, 2]
    assert shown == [("pairs", 3, 5), ("pairs", 5, 5)]
    assert found.skipped == ()


def test_a_query_of_many_candidates_is_asked_in_parts(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = pairs("abY", "acN", "adN", "bdN")
    whole = score_pairs(engine(), given, root=root)
    monkeypatch.setattr(scoring, "_CANDIDATES", 2)
    asked = engine()
    split = score_pairs(asked, given, root=root)
    assert cast("Any", asked.scorer).calls == [2, 1, 1]
    assert split.pairs == whole.pairs
    np.testing.assert_array_equal(split.log_odds, whole.log_odds)


def test_unusable_images_are_skipped_named_and_counted(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "_CANDIDATES", 2)
    given = pairs("abY", "axN", "cxY", "xaN", "xbN", "xcN", "xxY", "b-N", "-bN", "dxN")
    found = score_pairs(engine(), given, root=root)
    assert found.pairs == tuple(pairs("abY"))
    assert {one.path: one.pairs for one in found.skipped} == {"bad.png": 3 + 4, "none.png": 2}
    assert all(one.path in one.reason for one in found.skipped)
    with pytest.raises(InputError, match=r"bad\.png"):
        score_pairs(engine(), given, root=root, strict=True)


def test_relative_paths_start_here(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    assert score_pairs(engine(), pairs("abY")).log_odds.tolist() == [30]
    absolute = [Pair(str(root / "a.png"), "b.png", True)]
    monkeypatch.chdir("/")
    assert score_pairs(engine(), absolute, root=root).log_odds.tolist() == [30]


def test_nothing_to_score(root: Path) -> None:
    with pytest.raises(InputError, match=r"none\.png"):
        score_pairs(engine(), pairs("a-Y"), root=root)
    with pytest.raises(InputError, match=r"not one pair can be scored$"):
        score_pairs(engine(), [], root=root)
    with pytest.raises(InputError, match="no MLLM loaded"):
        score_pairs(cast("Engine", SimpleNamespace(scorer=None)), pairs("abY"), root=root)


@pytest.mark.parametrize("answer", [(np.nan, 0), (np.inf, 0), (np.inf, np.inf)])
def test_answers_that_are_no_numbers(root: Path, answer: tuple[float, float]) -> None:
    asked = engine()
    scorer = cast("Any", asked.scorer)
    scorer.logits = lambda _query, some: np.full((len(some), 2), answer)
    scorer.decoder = SimpleNamespace(file="decoder.onnx")
    scorer.vision = SimpleNamespace(of=lambda images: np.zeros((len(images), 1, 1, 1)))
    with pytest.raises(InputError, match=r"a\.png and b\.png: .*decoder\.onnx"):
        score_pairs(asked, pairs("abY"), root=root)


def test_distinct_pairs() -> None:
    assert distinct_pairs(pairs("abY", "baY", "abY")) == pairs("abY", "baY")
    with pytest.raises(InputError, match=r"a\.png"):
        distinct_pairs(pairs("abY", "acN", "abN"))
