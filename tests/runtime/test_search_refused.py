"""What a searcher refuses, before it works."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from search_parts import DIM, FakeClock, make_engine, make_images

from murank import InputError, Searcher
from murank.images import Preprocessing, ReadyImage

GALLERY = make_images(12)
SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"method": "ecn"}, r"method must be one of k-reciprocal, ca-jaccard, simple, none, got 'ecn'"),
    ({"candidates": 0}, "candidates must be"),
    ({"candidates": 13}, "13 candidates a query asked for, but the gallery has 12 images"),
    ({"parameters": {"k3": 1}}, "'k-reciprocal' has no parameter k3: it has k1, k2"),
    ({"method": "simple", "parameters": {"k1": 1}}, "'simple' has no parameter k1: it has alpha"),
    ({"method": "none", "parameters": {"alpha": 0.1}}, "no parameter alpha: it has none"),
    ({"parameters": {"k1": 0}}, "k1 must be a whole number"),
    ({"parameters": {"alpha": 2}}, "alpha must be in"),
    ({"settle_top": 1}, "settle_top needs method='simple', not 'k-reciprocal'"),
    ({"method": "none", "settle_top": 1}, "settle_top needs method='simple', not 'none'"),
    ({"method": "simple", "settle_top": 0}, "settle_top must be"),
]


@pytest.mark.parametrize(("settings", "message"), SETTINGS)
def test_settings(settings: dict[str, Any], message: str) -> None:
    clock = FakeClock()
    with pytest.raises(InputError, match=message):
        Searcher.from_images(make_engine(clock), GALLERY, **settings)
    assert clock.done == {}
    features = np.eye(12, DIM, dtype=np.float32)
    with pytest.raises(InputError, match=message):
        Searcher(make_engine(), features, GALLERY, **settings)


def test_engines_that_lack_a_part() -> None:
    for make in (Searcher.from_images, lambda e, g: Searcher(e, np.eye(12, DIM), g)):
        with pytest.raises(InputError, match="no encoder loaded: run murank export with --encoder"):
            make(make_engine(encoder=False), GALLERY)
    engine = make_engine(scorer=False)
    with pytest.raises(
        InputError, match="'simple' fuses mu-distances, and this engine has no MLLM"
    ):
        Searcher.from_images(engine, GALLERY, method="simple")
    with pytest.raises(InputError, match="no parameter alpha without an MLLM: it has k1"):
        Searcher.from_images(engine, GALLERY, parameters={"alpha": 0.3})


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.ones((12, 5)), r"must have shape \[G,24\].* got \[12, 5\]; embed the gallery"),
        (np.ones(12), r"must have shape \[G,24\]"),
        (np.ones((11, DIM)), "has 11 features and 12 images"),
        (np.zeros((12, DIM), np.float32), "all zero"),
        (np.full((12, DIM), np.nan, np.float32), "NaN"),
    ],
)
def test_features(features: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Searcher(make_engine(), features, GALLERY)


def test_an_empty_gallery() -> None:
    with pytest.raises(InputError, match="the gallery has no image"):
        Searcher.from_images(make_engine(), [])
    with pytest.raises(InputError, match="the gallery has no image"):
        Searcher(make_engine(), np.empty((0, DIM), np.float32), [])


@pytest.mark.parametrize("deadline", [0, -1, float("nan"), True, "5"])
def test_deadlines(deadline: Any) -> None:
    searcher = Searcher.from_images(make_engine(), GALLERY)
    with pytest.raises(InputError, match="deadline_ms"):
        searcher.search(GALLERY[0], deadline_ms=deadline)


def test_top_k_and_indices() -> None:
    searcher = Searcher.from_images(make_engine(), GALLERY)
    for search in (searcher.search, lambda one, top_k: searcher.search_many([one], top_k=top_k)):
        with pytest.raises(InputError, match="top_k"):
            search(GALLERY[0], top_k=0)
    for wrong in (-1, 12):
        with pytest.raises(InputError, match=rf"no gallery image {wrong}: they are 0\.\.11"):
            searcher.warm([0, wrong])


def test_images_that_cannot_be_used(tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"bad\.png"):
        Searcher.from_images(make_engine(), [*GALLERY, bad])
    engine = make_engine()
    features = engine.embed([*GALLERY, GALLERY[0]])
    searcher = Searcher(engine, features, [*GALLERY, bad], candidates=13)
    with pytest.raises(InputError, match=r"bad\.png"):
        searcher.search(GALLERY[0])
    with pytest.raises(InputError, match=r"bad\.png"):
        searcher.search(bad)
    ready = ReadyImage(np.zeros((3, 8, 4), np.uint8), Preprocessing(8, 4))
    with pytest.raises(InputError, match="the query is ready for"):
        searcher.search(ready)


def test_an_answer_that_is_no_number() -> None:
    engine = make_engine()
    searcher = Searcher.from_images(engine, GALLERY, candidates=3)
    decoder = cast("Any", engine.scorer).decoder
    decoder.logits = lambda _prefix, tokens: np.full((*tokens.shape[:2], 2), np.inf, np.float32)
    with pytest.raises(InputError, match=r"query and candidates\[\d\]: .*decoder\.onnx"):
        searcher.search(GALLERY[0])
    with pytest.raises(InputError, match=r"queries\[0\] and candidates\[\d\]: .*decoder\.onnx"):
        searcher.search_many(GALLERY[:3])
