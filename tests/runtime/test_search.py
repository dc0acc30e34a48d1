"""One query at a time: ranks as a joint call of the kernels has them; what is done how often."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from search_parts import DIM, SIZE, FakeClock, forget, make_engine, make_images

from murank import Engine, Searcher, SearchResult
from murank.images import Preprocessing, prepare
from murank.search import SearchMethod
from murank.search import query as query_module
from murank_kernels import k_reciprocal, simple

GALLERY, QUERIES = make_images(40), make_images(6, seed=1)
PARAMETERS = {"k1": 6, "k2": 3, "alpha": 0.4}


def joint(
    engine: Engine, query: Any, method: str, num_candidates: int, top_k: int
) -> tuple[NDArray[np.float32], NDArray[np.int32], dict[int, float]]:
    """Distances and indices by the batch kernels, and mu of each candidate."""
    features = engine.embed([query, *GALLERY])
    apart = np.linalg.norm(features[1:] - features[0], axis=1)
    candidates = np.argsort(apart, kind="stable")[:num_candidates]
    mu = engine.mu(query, [GALLERY[i] for i in candidates])
    fusion: dict[str, Any] = {"mu": mu[None], "candidates": candidates[None], "alpha": 0.4}
    if method == "k-reciprocal":
        found = k_reciprocal(features, 1, k1=6, k2=3, top_k=top_k, **fusion)
    else:
        found = simple(features, 1, top_k=top_k, **(fusion if method == "simple" else {}))
    known = dict(zip(candidates.tolist(), mu.tolist(), strict=True))
    return found[0][0], found[1][0], known if method != "none" else {}


def same(one: SearchResult, other: SearchResult) -> None:
    """Equal but for the seconds and for rounding."""
    assert [m.corpus_id for m in one.matches] == [m.corpus_id for m in other.matches]
    for name in ("scored", "candidates", "partial", "settled"):
        assert getattr(one, name) == getattr(other, name)
    for a, b in zip(one.matches, other.matches, strict=True):
        assert a.distance == pytest.approx(b.distance, abs=1e-5)
        assert a.mu == pytest.approx(b.mu, abs=1e-5)


@pytest.mark.parametrize("method", ["k-reciprocal", "simple", "none"])
def test_same_as_the_batch_kernels(method: SearchMethod) -> None:
    engine = make_engine()
    parameters = {
        "k-reciprocal": PARAMETERS, "simple": {"alpha": 0.4}, "none": {}
    }[method]  # fmt: skip
    searcher = Searcher.from_images(
        engine, GALLERY, candidates=9, method=method, parameters=parameters
    )
    for query in QUERIES:
        found = searcher.search(query, top_k=15)
        distances, indices, mu = joint(engine, query, method, 9, 15)
        assert [match.corpus_id for match in found.matches] == indices.tolist()
        np.testing.assert_allclose([m.distance for m in found.matches], distances, atol=1e-6)
        assert [m.mu for m in found.matches] == pytest.approx(
            [mu.get(i) for i in indices.tolist()], abs=1e-6
        )
        assert (found.partial, found.settled) == (False, False)
        assert found.scored == found.candidates == (0 if method == "none" else 9)


def test_the_encoders_distances_are_those_before_fusion() -> None:
    engine = make_engine()
    found = Searcher.from_images(engine, GALLERY, method="simple").search(QUERIES[0])
    apart = np.linalg.norm(engine.embed(GALLERY) - engine.embed(QUERIES[:1]), axis=1)
    assert len(found.matches) == len(GALLERY)
    for match in found.matches:
        assert match.encoder_distance == pytest.approx(apart[match.corpus_id], abs=1e-6)
        if match.mu is not None:
            fused = 0.8 * match.encoder_distance + 0.4 * match.mu
            assert match.distance == pytest.approx(fused, abs=1e-6)


def test_without_an_mllm_the_method_goes_by_the_encoder() -> None:
    searcher = Searcher.from_images(
        make_engine(scorer=False), GALLERY, parameters={"k1": 6, "k2": 3}
    )
    found = searcher.search(QUERIES[0], top_k=5, deadline_ms=1)
    features = make_engine().embed([QUERIES[0], *GALLERY])
    _, indices = k_reciprocal(features, 1, k1=6, k2=3, top_k=5)
    assert [match.corpus_id for match in found.matches] == indices[0].tolist()
    assert (found.scored, found.candidates, found.partial) == (0, 0, False)
    assert {match.mu for match in found.matches} == {None}
    searcher.warm()  # nothing to do


@pytest.mark.parametrize("method", ["k-reciprocal", "simple", "none"])
@pytest.mark.parametrize("max_pairs", [32, 8, 3])
def test_several_at_once_are_the_same(method: SearchMethod, max_pairs: int) -> None:
    engine = make_engine(max_pairs=max_pairs)
    searcher = Searcher.from_images(engine, GALLERY, candidates=4, method=method)
    wanted = [searcher.search(query, top_k=7) for query in QUERIES]
    found = searcher.search_many(QUERIES, top_k=7)
    for one, other in zip(found, wanted, strict=True):
        same(one, other)
    same(searcher.search_many(QUERIES[:1], top_k=7)[0], wanted[0])
    assert searcher.search_many([]) == []


def test_several_queries_share_a_run_of_the_decoder() -> None:
    engine = make_engine(max_pairs=12)
    searcher = Searcher.from_images(engine, GALLERY, candidates=4)
    found = searcher.search_many(QUERIES[:5])
    assert cast("Any", engine.scorer).decoder.runs == [(3, 4), (2, 4)]
    assert all(one.seconds == found[0].seconds for one in found)
    assert {"decode", "embed", "retrieve", "vision", "prefill", "score"} <= found[0].seconds.keys()


def test_what_was_seen_is_not_computed_or_decoded_again(tmp_path: Path) -> None:
    clock = FakeClock()
    paths = []
    for number, pixels in enumerate(GALLERY):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(paths[-1])
    engine = make_engine(clock)
    searcher = Searcher.from_images(engine, paths, candidates=5)
    first = searcher.search(QUERIES[0])
    assert (clock.done["vision"], clock.done["prefill"]) == (6, 1)
    for path in paths:
        path.unlink()
    second = searcher.search(QUERIES[0])
    same(second, first)
    assert (clock.done["vision"], clock.done["prefill"]) == (6, 1)
    assert "vision" not in second.seconds
    assert "prefill" not in second.seconds


def test_forgotten_tokens_are_computed_anew() -> None:
    clock = FakeClock()
    engine = make_engine(clock)
    searcher = Searcher.from_images(engine, GALLERY, candidates=5)
    first = searcher.search(QUERIES[0])
    forget(engine)
    same(searcher.search(QUERIES[0]), first)
    assert (clock.done["vision"], clock.done["prefill"]) == (12, 2)


def test_an_image_that_stands_twice_in_the_gallery_is_computed_once() -> None:
    clock = FakeClock()
    searcher = Searcher.from_images(make_engine(clock), [*GALLERY, *GALLERY], candidates=8)
    searcher.warm()
    assert clock.done["vision"] == len(GALLERY)


def test_warm() -> None:
    clock = FakeClock()
    engine = make_engine(clock)
    searcher = Searcher.from_images(engine, GALLERY, candidates=5)
    told: list[tuple[str, int, int]] = []
    searcher.warm([3, 5], progress=lambda *what: told.append(what))
    assert clock.done["vision"] == 2
    searcher.warm([])
    searcher.warm(progress=lambda *what: told.append(what))
    assert clock.done["vision"] == 40
    shown = [(2, 2), *((done, 40) for done in (4, 8, 12, 16, 24, 32, 40))]
    assert told == [("vision tokens", *numbers) for numbers in shown]
    searcher.search(QUERIES[0])
    assert clock.done["vision"] == 41


def test_a_query_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine()
    cast("Any", engine.scorer).part.preprocessing = Preprocessing(4, 2, resample="nearest")
    searcher = Searcher.from_images(engine, GALLERY, candidates=5)
    calls: list[object] = []
    load: Any = vars(query_module)["decoded"]

    def counted(source: Any, **options: Any) -> Any:
        calls.append(source)
        return load(source, **options)

    monkeypatch.setattr(query_module, "decoded", counted)
    large = np.random.default_rng(3).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    found = searcher.search(large, top_k=1)
    assert len(calls) == 1
    nearest = found.matches[0].corpus_id
    if found.matches[0].mu is not None:  # resized for each model in its own way
        wanted = engine.mu(large, [GALLERY[nearest]])[0]
        assert found.matches[0].mu == pytest.approx(wanted, abs=1e-6)


def test_ready_images_serve_where_both_models_want_the_same() -> None:
    searcher = Searcher.from_images(make_engine(), [prepare(one, SIZE) for one in GALLERY])
    same(searcher.search(prepare(QUERIES[0], SIZE)), searcher.search(QUERIES[0]))


def test_settings_show_what_holds() -> None:
    searcher = Searcher.from_images(make_engine(), GALLERY[:7], parameters={"alpha": 0.5})
    assert searcher.settings.num_candidates == 7  # a small gallery's default
    assert (searcher.num_gallery, searcher.settings.alpha) == (7, 0.5)
    features = np.eye(30, DIM, dtype=np.float32) + 1
    assert Searcher(make_engine(), features, GALLERY[:30]).settings.num_candidates == 20


def test_threads_share_a_searcher() -> None:
    engine = make_engine()
    searcher = Searcher.from_images(engine, GALLERY, candidates=6)
    wanted = [searcher.search(query) for query in QUERIES]
    forget(engine)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(searcher.search, QUERIES * 4))
    for one, other in zip(found, wanted * 4, strict=True):
        same(one, other)


def test_progress_of_embedding() -> None:
    told: list[tuple[str, int, int]] = []
    images = make_images(70)
    Searcher.from_images(make_engine(), images, progress=lambda *what: told.append(what))
    shown = [(done, total) for stage, done, total in told if stage == "images"]
    assert shown == [(32, 70), (64, 70), (70, 70)]
