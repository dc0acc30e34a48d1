"""A gallery whose features lie in Milvus answers as one in memory, of the same rows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gallery_engines import DIM, feature_engine, people

from murank import InputError, MachineError
from murank.gallery import Gallery, GallerySearchResult, Milvus, milvus

FILTERS: list[dict[str, Any]] = [
    {},
    {"cameras": [0, 2]},
    {"cameras": []},
    {"since": 1.7e9 + 10.25, "until": 1.7e9 + 30},
    {"until": -5.5},
    {"exclude_tracks": ["t1", "t7"]},
    {"attributes": {"bag": True}},
    {"attributes": {"bag": True, "hat": "red"}, "cameras": 1},
    {"shortlist": 7, "top_k": 5},
    {"shortlist": None},
]


def lite() -> Any:
    """Return pymilvus, where milvus-lite is beside it; else the test is skipped."""
    pytest.importorskip("milvus_lite")
    return pytest.importorskip("pymilvus")


@pytest.fixture
def where(tmp_path: Path) -> Milvus:
    lite()
    return Milvus(str(tmp_path / "milvus.db"), "people")


@pytest.fixture
def both(tmp_path: Path, where: Milvus) -> Iterator[list[Gallery]]:
    """A gallery in memory, and one in Milvus."""
    with (
        Gallery.open(tmp_path / "a.db", feature_engine(), align_dims=8) as memory,
        Gallery.open(tmp_path / "b.db", feature_engine(), align_dims=8, milvus=where) as elsewhere,
    ):
        yield [memory, elsewhere]


def fill(gallery: Gallery, count: int = 120, seed: int = 0) -> None:
    gallery.add(
        features=people(count // 2, 2, seed=seed), camera=np.arange(count) % 3,
        time=1.7e9 + np.arange(count) / 4, id=[f"{seed}-{i}" for i in range(count)],
        track=[f"t{i // 4}" if i % 8 < 4 else None for i in range(count)],
        subject=[f"s{i % 5}" for i in range(count)],
        attributes=[{"bag": i % 2 == 0, "hat": "red" if i % 3 else "blue"} for i in range(count)],
    )  # fmt: skip


def told(result: GallerySearchResult) -> list[Any]:
    return [
        (m.id, m.camera, m.track, m.first, m.last, m.distance, m.encoder_distance)
        for m in result.matches
    ]


def assert_same(both: list[Gallery]) -> None:
    """To the last bit: the arithmetic is the same."""
    memory, elsewhere = both
    assert memory.stats().tracks == elsewhere.stats().tracks
    for number, query in enumerate(people(4, 1, seed=5)):
        for how in FILTERS:
            wanted = told(memory.search(feature=query, camera=number % 2, **how))
            assert told(elsewhere.search(feature=query, camera=number % 2, **how)) == wanted


def test_the_same_answers(both: list[Gallery]) -> None:
    assert_same(both)  # of nothing
    for change in (
        fill,
        lambda one: fill(one, 60, 3),  # tracks grow
        lambda one: one.align(),
        lambda one: one.erase(ids=["0-3", "0-4", "0-9"]),
        lambda one: one.erase(subject="s2"),
        lambda one: one.purge(1.7e9 + 5),
        lambda one: fill(one, 20, 4),
        lambda one: one.align(),
    ):
        for gallery in both:
            change(gallery)
        assert_same(both)
    wanted, found = (one.search(id="3-50") for one in both)
    assert told(found) == told(wanted)
    assert told(found)


def test_made_anew_from_the_file_and_nothing_is_left_behind(tmp_path: Path, where: Milvus) -> None:
    path, client = tmp_path / "a.db", lite().MilvusClient(where.uri)
    client.create_collection("people_of_others", dimension=4)
    with Gallery.open(path, feature_engine(), milvus=where) as gallery:
        fill(gallery)
        wanted = told(gallery.search(feature=people(1, 1)[0]))
        gallery.align()
        assert len(client.list_collections()) == 2
    assert client.list_collections() == ["people_of_others"]
    client.create_collection("people_murank_of_a_killed_process", dimension=4)
    with Gallery.open(path, feature_engine()) as gallery:
        assert gallery.erase(ids="0-5").complete
    with Gallery.open(path, feature_engine(), milvus=where) as gallery:
        assert len(client.list_collections()) == 2
        found = gallery.search(feature=people(60, 2)[5], top_k=200)
        assert "0-5" not in [match.id for match in found.matches]
        assert wanted
        gallery.close()  # twice is once
    client.close()


def test_an_erasure_says_what_milvus_does_not_promise(tmp_path: Path, where: Milvus) -> None:
    with Gallery.open(tmp_path / "a.db", feature_engine(), milvus=where) as gallery:
        fill(gallery)
        receipt = gallery.erase(subject="s1")
        assert receipt.rows == 24
        assert not receipt.complete
        found = gallery.search(feature=people(60, 2)[1], top_k=200)
        assert not {match.id for match in found.matches} & set(receipt.ids)
        assert gallery.verify(erased=receipt).is_clean  # the file is


def test_a_change_that_did_not_arrive_is_no_answer(tmp_path: Path, where: Milvus) -> None:
    path, client = tmp_path / "a.db", lite().MilvusClient(where.uri)
    with Gallery.open(path, feature_engine(), milvus=where) as gallery:
        fill(gallery)
        (name,) = client.list_collections()
        client.drop_collection(name)
        with pytest.raises(MachineError, match=r"milvus\.db"):
            gallery.erase(ids="0-7")
        for how in ({"feature": people(1, 1)[0]}, {"id": "0-8"}):
            with pytest.raises(MachineError, match="open it again"):
                gallery.search(**how)
    with Gallery.open(path, feature_engine(), milvus=where) as gallery:
        assert gallery.stats().rows == 120
        assert gallery.erase(ids="0-7").rows == 1
    client.close()


def test_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for named, how in {
        "uri": {"uri": "", "collection": "a"},
        "collection": {"uri": "a.db", "collection": "a-b"},
    }.items():
        with pytest.raises(InputError, match=named):
            Milvus(**how)
    assert "secret" not in repr(Milvus("a.db", "a", token="secret"))  # noqa: S106
    where, path = Milvus(str(tmp_path / "milvus.db"), "a"), tmp_path / "a.db"
    Gallery.open(path, feature_engine()).close()
    with pytest.raises(InputError, match="mode='r'"):
        Gallery.open(path, feature_engine(), mode="r", milvus=where)
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(MachineError, match=r"murank\[milvus\]"):
        Gallery.open(path, feature_engine(), milvus=where)
    Gallery.open(path, feature_engine()).close()  # and nobody holds it


def test_no_server(tmp_path: Path) -> None:
    lite()
    where = Milvus("http://127.0.0.1:1", "a")
    with pytest.raises(MachineError, match=r"127\.0\.0\.1"):
        Gallery.open(tmp_path / "a.db", feature_engine(), milvus=where)
    Gallery.open(tmp_path / "a.db", feature_engine()).close()


def test_more_than_an_answer_holds(
    tmp_path: Path, where: Milvus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus, "_MOST", 50)
    with Gallery.open(tmp_path / "a.db", feature_engine(), milvus=where) as gallery:
        fill(gallery)
        assert len(gallery.search(feature=np.ones(DIM), shortlist=50, top_k=50).matches) == 50
        with pytest.raises(InputError, match="shortlist"):
            gallery.search(feature=np.ones(DIM), shortlist=None)
