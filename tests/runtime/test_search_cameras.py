"""A search that knows cameras: the gallery aligned, the query as the gallery, CA-Jaccard."""

from typing import Any

import numpy as np
import pytest
from search_parts import make_engine, make_images

from murank import InputError, Searcher
from murank_kernels import CameraAlignment, OnlineCaJaccard, OnlineKReciprocal

GALLERY, QUERIES = make_images(120), make_images(3, seed=1)
CAMIDS = np.arange(120) % 2 * 4


def searcher(**options: Any) -> Searcher:
    engine = make_engine()
    assert engine.encoder is not None
    return Searcher(engine, engine.embed(GALLERY), GALLERY, camids=CAMIDS, candidates=4, **options)


def found(result: Any) -> list[tuple[int, float]]:
    return [(match.corpus_id, match.distance) for match in result.matches]


@pytest.mark.parametrize("camid", [0, 4, 9, None])
@pytest.mark.parametrize("method", ["k-reciprocal", "ca-jaccard", "simple", "none"])
def test_the_query_is_aligned_as_the_gallery(method: Any, camid: int | None) -> None:
    options = {"align_cameras": "mean", "align_dims": 5}
    if method == "ca-jaccard":
        options |= {"shortlist": 50, "parameters": {"k2": 3}}
    subject = searcher(method=method, **options)
    features = subject.engine.embed(GALLERY)
    alignment = CameraAlignment.fit(features, CAMIDS, level="mean", dims=5)
    rows = alignment.apply(features, CAMIDS)
    feature = subject.engine.embed([QUERIES[0]])
    (row,) = alignment.apply(feature, None if camid is None else [camid])
    if method == "ca-jaccard":
        cameras = OnlineCaJaccard(rows, CAMIDS, shortlist=50, k2=3)
        query: Any = cameras.query(row, camid)
    else:
        query = OnlineKReciprocal(rows).query(row)
    result = subject.search(QUERIES[0], camid=camid, top_k=9)
    if method != "none":
        candidates = query.nearest(4)[1]
        mu = subject.engine.mu(QUERIES[0], [GALLERY[i] for i in candidates])
        query = query.fused(mu, candidates)
    reranked = method in ("k-reciprocal", "ca-jaccard")
    distances, indices = (query.reranked_top if reranked else query.nearest)(9)
    assert found(result) == list(zip(indices.tolist(), distances.tolist(), strict=True))
    (together,) = subject.search_many([QUERIES[0]], camids=[camid], top_k=9)
    assert [one for one, _ in found(together)] == indices.tolist()


def test_auto() -> None:
    """50 gallery images of two cameras: pairs, or means where there are too few pairs."""
    assert searcher().alignment.level in ("pairs", "mean")
    assert searcher(align_cameras="off").alignment.level == "off"
    engine = make_engine()
    features = engine.embed(GALLERY)
    few = Searcher(engine, features, GALLERY, camids=np.arange(120) // 40)
    assert (few.alignment.level, "50" in str(few.alignment.note)) == ("off", True)
    unknown = Searcher(engine, features, GALLERY)
    assert unknown.alignment.level == "off"


@pytest.mark.parametrize("method", ["k-reciprocal", "ca-jaccard"])
def test_gallery_images_of_unknown_cameras(method: Any) -> None:
    """They are ranked, with the common mean, and keep nobody else from being aligned."""
    camids = np.where(np.arange(120) % 17, CAMIDS, -1)
    engine = make_engine()
    features = engine.embed(GALLERY)
    options: dict[str, Any] = {"method": method, "candidates": 4, "align_cameras": "mean"}
    subject = Searcher(engine, features, GALLERY, camids=camids, **options)
    known = camids >= 0
    taught = CameraAlignment.fit(features[known], camids[known], level="mean")
    given = Searcher(engine, features, GALLERY, camids=camids, method=method, candidates=4,
                     alignment=taught)  # fmt: skip
    assert subject.alignment.level == "mean"
    assert str((~known).sum()) in str(subject.alignment.note)
    for camid in (4, None):
        one, other = (some.search(QUERIES[0], camid=camid, top_k=120) for some in (subject, given))
        assert len(one.matches) == 120
        np.testing.assert_allclose(sorted(found(one)), sorted(found(other)), rtol=0, atol=1e-5)


def test_from_images_is_the_same() -> None:
    engine = make_engine()
    options: dict[str, Any] = {
        "camids": CAMIDS, "align_cameras": "mean", "align_dims": 6, "method": "ca-jaccard",
        "shortlist": 20,
    }  # fmt: skip
    first = Searcher.from_images(engine, GALLERY, **options)
    second = Searcher(engine, engine.embed(GALLERY), GALLERY, **options)
    for query in QUERIES:
        assert found(first.search(query, camid=4)) == found(second.search(query, camid=4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"camids": CAMIDS[1:]}, "camids"),
        ({"camids": CAMIDS * 1.0}, "camids"),
        ({"camids": [[0], 4, *CAMIDS[2:]]}, "camids"),
        ({"camids": None, "method": "ca-jaccard"}, "camids"),
        ({"camids": None, "align_cameras": "mean"}, "camids"),
        ({"camids": CAMIDS - 99, "align_cameras": "mean"}, "camids"),
        ({"align_cameras": "mean", "align_dims": 10**6}, "dims"),
        ({"shortlist": 30}, "shortlist"),
        ({"method": "ca-jaccard", "shortlist": 0}, "shortlist"),
        ({"method": "ca-jaccard", "parameters": {"squared": True}}, "squared"),
        ({"method": "ca-jaccard", "parameters": {"k1_intra": 0}}, "k1_intra"),
        ({"align_cameras": "best"}, "align_cameras"),
        ({"align_dims": 0}, "align_dims"),
        ({"align_dims": "most"}, "align_dims"),
    ],
)
def test_what_cannot_be_used(options: dict[str, Any], message: str) -> None:
    engine = make_engine()
    features = engine.embed(GALLERY)
    with pytest.raises(InputError, match=message):
        Searcher(engine, features, GALLERY, **{"camids": CAMIDS, **options})


@pytest.mark.parametrize("method", ["k-reciprocal", "ca-jaccard"])
def test_a_query_of_an_unknown_camera(method: Any) -> None:
    """Below 0 is None, also where gallery images are of such a camera."""
    engine = make_engine()
    camids = np.where(np.arange(120) % 17, CAMIDS, -1)
    subject = Searcher(engine, engine.embed(GALLERY), GALLERY, camids=camids, method=method,
                       align_cameras="mean", candidates=4)  # fmt: skip
    expected = found(subject.search(QUERIES[0]))
    assert found(subject.search(QUERIES[0], camid=-1)) == expected
    (together, _) = subject.search_many(QUERIES[:2], camids=np.array([-3, 4]))
    assert [one for one, _ in found(together)] == [one for one, _ in expected]


@pytest.mark.parametrize("camid", [1.0, "0", True, 1 << 63])
def test_cameras_of_queries(camid: Any) -> None:
    subject = searcher(align_cameras="mean")
    with pytest.raises(InputError, match="camid"):
        subject.search(QUERIES[0], camid=camid)
    with pytest.raises(InputError, match="camids"):
        subject.search_many(QUERIES, camids=[0, 4, camid])
    with pytest.raises(InputError, match="camids"):
        subject.search_many(QUERIES, camids=[0, 4])
    with pytest.raises(InputError, match="camids"):
        subject.search_many(QUERIES, camids=4)  # type: ignore[arg-type]
