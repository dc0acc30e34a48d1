"""The service: what neighbours ask and get, in this process, on an engine made by hand."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import inspect
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from runtime.test_worker import held
from service_parts import as_url, crops, documents, filled, seeing_engine, service

from murank import Gallery
from murank.gallery import gallery_result
from murank.service import shapes
from murank.service.server import _relate
from murank.worker.rounds import Rounds

PICTURE = as_url(crops(1)[0])
ANYBODY = "nobody-may-see-this"


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_rerank_orders_as_the_engine_does(served: Any, path: str) -> None:
    client, _ = served
    pictures = crops(7)
    answer = client.post(path, {"query": as_url(pictures[0]), "documents": documents(pictures[1:])})
    expected = seeing_engine().rank(pictures[0], pictures[1:])
    body = answer.json()
    assert [one["index"] for one in body["results"]] == [one.corpus_id for one in expected]
    assert [one["relevance_score"] for one in body["results"]] == [one.score for one in expected]
    assert [one["mu"] for one in body["results"]] == [one.mu for one in expected]
    assert body["meta"] == {"partial": False, "scored": 6}
    assert (body["model"], body["id"]) == ("engine", answer.headers["x-request-id"])


def test_an_image_may_come_in_each_of_its_forms(served: Any) -> None:
    client, _ = served
    pictures = filled(client, 6)
    url, bare = as_url(pictures[1]), base64.b64encode(pictures[1]).decode()
    part = {"type": "image_url", "image_url": {"url": url}}
    forms: list[Any] = [
        url, bare, {"image": url}, {"image": bare}, {"content": [part]}, part,
        {"content": [{"type": "text", "text": "a person"}, {**part, "image_url": bare}]},
    ]  # fmt: skip
    answer = client.post("/v1/rerank", {"query": forms[0], "documents": forms, "model": "any"})
    assert answer.json()["model"] == "any"
    assert len({one["mu"] for one in answer.json()["results"]}) == 1
    stored = client.post("/v1/rerank", {"query": {"id": "shot-1"}, "documents": [{"id": "shot-1"}]})
    assert stored.status_code == 200


def test_the_best_are_returned_with_their_documents_where_wanted(served: Any) -> None:
    client, _ = served
    pictures = crops(6)
    body: dict[str, Any] = {"query": as_url(pictures[0]), "documents": documents(pictures[1:])}
    found = client.post("/v1/rerank", {**body, "top_n": 2, "return_documents": True}).json()
    assert len(found["results"]) == 2
    for one in found["results"]:
        assert one["document"] == {"image": body["documents"][one["index"]]}
    assert client.post("/v1/rerank", body).json()["results"][0]["document"] is None


def test_what_the_deadline_left_out_comes_last(served: Any) -> None:
    client, state = served
    pictures = crops(5)
    body = {"query": as_url(pictures[0]), "documents": documents(pictures[1:]), "deadline_ms": 1}

    async def ask() -> Any:
        with held(state.worker):
            asked = asyncio.create_task(client.client.post("/v1/rerank", json=body))
            while not state.worker.stats().waiting:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)  # its deadline passes
        return await asked

    answer = asyncio.run(ask())
    assert answer.status_code == 200
    assert answer.json()["meta"] == {"partial": True, "scored": 0}
    assert [one["index"] for one in answer.json()["results"]] == [0, 1, 2, 3]
    assert {(one["mu"], one["relevance_score"]) for one in answer.json()["results"]} == {(None, 0)}
    assert "murank_partial_total 1.0" in client.get("/metrics").text


def test_rows_come_are_found_and_are_erased(served: Any) -> None:
    client, state = served
    pictures = filled(client, subject="guest", attributes={"hat": True})
    row = client.get("/v1/gallery/rows/shot-4").json()
    assert row == {
        "id": "shot-4", "camera": 1, "time": 104.0, "track": None, "subject": "guest",
        "attributes": {"hat": True}, "has_picture": True,
    }  # fmt: skip
    crop = client.get("/v1/gallery/rows/shot-4/crop")
    assert crop.headers["content-type"] == "image/jpeg"
    assert crop.content == state.gallery.crop("shot-4")

    query = {"crop": as_url(pictures[4]), "cameras": [0, 1], "since": 101.0, "top_k": 5}
    found = client.post("/v1/gallery/search", query).json()
    expected = state.gallery.search(pictures[4], cameras=[0, 1], since=101.0, top_k=5)
    assert found["matches"] == [vars(one) for one in expected.matches]
    assert (found["scored"], found["partial"]) == (expected.scored, False)
    by_id = client.post("/v1/gallery/search", {"id": "shot-4", "method": "none"}).json()
    assert "shot-4" not in [one["id"] for one in by_id["matches"]]

    assert client.get("/v1/gallery/stats").json()["rows"] == 12
    receipt = client.delete("/v1/gallery/rows/shot-4").json()
    assert (receipt["ids"], receipt["complete"]) == (["shot-4"], True)
    assert client.get("/v1/gallery/rows/shot-4").status_code == 404
    assert client.delete("/v1/gallery/rows/shot-4").status_code == 404
    assert client.post("/v1/gallery/erase", {"subject": "guest"}).json()["rows"] == 11
    assert client.get("/v1/gallery/stats").json()["rows"] == 0


def test_any_id_that_is_stored_is_read_and_erased_by_its_path(served: Any) -> None:
    client, state = served
    ids = [
        "x", "x/crop", "x/crop/crop", "/", "a/b", "a//b/", "100%", "%41", "A", "a b", "a+b", "é人",
        "?q=1#f", "...", "./x", "../x", "\n\t", "crop", "rows/x/crop", "a\\b",
    ]  # fmt: skip
    pictures = filled(client, len(ids), id=ids)
    assert len({*pictures}) == len(ids)
    for one in ids:
        path = "/v1/gallery/rows/" + quote(one, safe="")
        assert client.get(path).json()["id"] == one
        assert client.get(path + "/crop").content == state.gallery.crop(one)
    assert client.get("/v1/gallery/rows/a/b").json()["id"] == "a/b"  # as it is, where it is clear
    for left, one in enumerate(ids, 1):
        receipt = client.delete("/v1/gallery/rows/" + quote(one, safe="")).json()
        assert receipt["ids"] == [one]
        assert client.get("/v1/gallery/stats").json()["rows"] == len(ids) - left


def test_a_path_is_decoded_once(served: Any) -> None:
    client, _ = served
    filled(client, 2, id=["A", "%41"])
    for path in ("/v1/gallery/rows/%2541", "/v1/gallery/rows/%2541/crop"):
        assert client.get(path).status_code == 200
    assert client.delete("/v1/gallery/rows/%2541").json()["ids"] == ["%41"]
    assert client.delete("/v1/gallery/%72ows/%2541").status_code == 404
    assert client.get("/v1/gallery/rows/A").status_code == 200
    answer = client.get("/v1/gallery/rows/%ff")
    assert (answer.status_code, "id" in answer.json()["message"]) == (400, True)


def test_features_and_times_with_zones_are_taken(served: Any) -> None:
    client, state = served
    dim = state.gallery.dim
    rows = np.random.default_rng(0).standard_normal((3, dim)).round(3)
    body = {
        "features": rows.tolist(), "camera": 0, "id": ["a", "b", "c"],
        "time": "1970-01-01T01:00:00+01:00", "track": [None, "7", 8],
    }  # fmt: skip
    assert client.post("/v1/gallery/rows", body).status_code == 200
    assert client.get("/v1/gallery/rows/a").json()["time"] == 0.0
    assert client.get("/v1/gallery/rows/c").json()["track"] == "8"
    found = client.post("/v1/gallery/search", {"feature": rows[1].tolist(), "top_k": 1}).json()
    assert found["matches"][0]["id"] == "b"


def test_what_is_wrong_with_an_item_is_its_status(served: Any) -> None:
    client, _ = served
    pictures = crops(2)
    body = {
        "crops": [as_url(pictures[0]), as_url(b"no image"), as_url(pictures[1])],
        "camera": 0, "time": 1.0, "id": ["a", "b", "c"],
    }  # fmt: skip
    results = client.post("/v1/gallery/rows", body).json()["results"]
    assert [one["status"] for one in results] == ["added", "refused", "added"]


def test_without_a_gallery_its_paths_say_so(tmp_path: Path) -> None:
    with service(tmp_path, gallery=False) as (client, _):
        for answer in (
            client.get("/v1/gallery/stats"), client.get("/v1/gallery/rows/a"),
            client.delete("/v1/gallery/rows/a"), client.post("/v1/gallery/search", {"id": "a"}),
            client.post("/v1/gallery/erase", {"ids": ["a"]}),
            client.post("/v1/rerank", {"query": {"id": "a"}, "documents": [PICTURE]}),
        ):  # fmt: skip
            assert answer.status_code == 404
            assert "gallery" in answer.json()["message"]
        assert client.get("/readyz").status_code == 200


def test_load_is_refused_with_a_time_to_come_back(tmp_path: Path) -> None:
    with service(tmp_path, queue=1) as (client, state), held(state.worker):
        state.worker.do(lambda: None)
        for path, body in (
            ("/v1/rerank", {"query": PICTURE, "documents": [PICTURE]}),
            ("/v1/gallery/search", {"crop": PICTURE}),
            ("/v1/gallery/rows", {"crops": [PICTURE], "camera": 0, "time": 0}),
        ):
            answer = client.post(path, body)
            assert (answer.status_code, answer.json()["type"]) == (429, "overloaded")
            assert int(answer.headers["retry-after"]) >= 1


def test_a_full_disk_is_507_and_nothing_is_stored(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = served

    def full(*_: Any, **__: Any) -> Any:
        from murank import OutputError

        raise OutputError("cannot write gallery.db: database or disk is full")

    monkeypatch.setattr("murank.gallery.state.State.store", full)
    answer = client.post("/v1/gallery/rows", {"crops": [PICTURE], "camera": 0, "time": 0})
    assert (answer.status_code, answer.json()["type"]) == (507, "insufficient_storage")


def test_a_gallery_open_for_reading_is_a_conflict(tmp_path: Path) -> None:
    with service(tmp_path) as (client, state):
        filled(client, 2)
        gallery = cast("Any", state.gallery)
        gallery._writer.release()
        gallery._writer = None
        for answer in (
            client.post("/v1/gallery/rows", {"crops": [PICTURE], "camera": 0, "time": 0}),
            client.post("/v1/gallery/erase", {"ids": ["shot-0"]}),
        ):
            assert (answer.status_code, answer.json()["type"]) == (409, "conflict")


def test_a_bug_is_500_and_tells_the_caller_nothing(
    served: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    client, _ = served

    def broken(_self: Gallery) -> Any:
        raise ZeroDivisionError(ANYBODY)

    monkeypatch.setattr(Gallery, "stats", broken)
    answer = client.get("/v1/gallery/stats")
    assert (answer.status_code, answer.json()["type"]) == (500, "internal")
    assert ANYBODY not in answer.text
    assert ANYBODY in capfd.readouterr().err


def test_a_client_that_leaves_cancels_its_work(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, state = served
    begun: list[Any] = []
    monkeypatch.setattr(Rounds, "begin", lambda _self, work: begun.append(work))
    pictures = crops(5)
    body = {"query": as_url(pictures[0]), "documents": documents(pictures[1:])}

    async def leave() -> None:
        with held(state.worker):
            asked = asyncio.create_task(client.client.post("/v1/rerank", json=body))
            await asyncio.sleep(0.05)
            asked.cancel()
            await asyncio.sleep(0.05)

    asyncio.run(leave())
    state.worker.do(lambda: None).result(30)
    assert begun == []


def test_the_page_is_served_and_may_load_nothing_from_elsewhere(served: Any) -> None:
    client, _ = served
    answer = client.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert answer.headers["x-frame-options"] == "DENY"
    assert not any("access-control" in name for name in answer.headers)


def test_tracks_are_related_while_nobody_asks(served: Any) -> None:
    client, state = served
    filled(client)
    assert client.get("/v1/gallery/stats").json()["tracks_to_relate"] == 12
    state.relates = True

    async def idle() -> None:
        task = asyncio.create_task(_relate(state))
        while state.gallery.stats().tracks_to_relate:
            await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(asyncio.wait_for(idle(), 60))
    assert client.get("/v1/gallery/stats").json()["pairs"] > 0


def test_the_schema_is_complete(served: Any) -> None:
    client, _ = served
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) == {
        "/v1/rerank", "/v1/gallery/rows", "/v1/gallery/rows/{id}", "/v1/gallery/rows/{id}/crop",
        "/v1/gallery/search", "/v1/gallery/erase", "/v1/gallery/stats", "/v1/models", "/healthz",
        "/readyz", "/metrics",
    }  # fmt: skip
    for path, methods in schema["paths"].items():
        for operation in methods.values():
            assert "422" not in operation["responses"], path


@pytest.mark.parametrize(
    ("shape", "result"),
    [
        (shapes.AddedItem, gallery_result.AddResult), (shapes.Erased, gallery_result.Erasure),
        (shapes.StoredRow, gallery_result.GalleryRow), (shapes.Stats, gallery_result.GalleryStats),
        (shapes.Found, gallery_result.GallerySearchResult),
        (shapes.FoundItem, gallery_result.GalleryMatch),
    ],
)  # fmt: skip
def test_answers_have_what_the_gallerys_have(shape: Any, result: Any) -> None:
    assert set(shape.model_fields) == {field.name for field in dataclasses.fields(result)}


@pytest.mark.parametrize(
    ("shape", "method"),
    [(shapes.AddBody, Gallery.add), (shapes.SearchBody, Gallery.search),
     (shapes.EraseBody, Gallery.erase)],
)  # fmt: skip
def test_bodies_have_the_arguments_of_the_gallery(shape: Any, method: Any) -> None:
    parameters = inspect.signature(method).parameters
    assert set(shape.model_fields) == set(parameters) - {"self"}
    for name, field in shape.model_fields.items():
        default = parameters[name].default
        if not field.is_required() and default != ():
            assert field.default == default, name
