"""What the service refuses: one sentence, nothing stored, nothing of the request in it."""

from __future__ import annotations

import re
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from service_parts import as_url, crops, filled

from murank.service import shapes
from murank.service.guard import MOST_BYTES

PICTURE = as_url(crops(1)[0])
ANYBODY = "nobody-may-see-this"
MANY = {f"{i}": 1 for i in range(65)}
REFUSED: list[tuple[str, Any, int, str]] = [
    ("/v1/rerank", {"query": PICTURE, "documents": []}, 400, "documents"),
    ("/v1/rerank", {"documents": [PICTURE]}, 400, "query"),
    ("/v1/rerank", {"query": PICTURE}, 400, "documents"),
    ("/v1/rerank", {"query": 3, "documents": [PICTURE]}, 400, "query"),
    ("/v1/rerank", {"query": PICTURE, "documents": [ANYBODY]}, 400, "documents[0]"),
    ("/v1/rerank", {"query": f"http://{ANYBODY}/", "documents": [PICTURE]}, 400, "query"),
    ("/v1/rerank", {"query": f"file:///{ANYBODY}", "documents": [PICTURE]}, 400, "query"),
    ("/v1/rerank", {"query": {"content": []}, "documents": [PICTURE]}, 400, "query"),
    ("/v1/rerank", {"query": {"image": 1}, "documents": [PICTURE]}, 400, "query"),
    ("/v1/rerank", {"query": {"id": ANYBODY}, "documents": [PICTURE]}, 404, "query"),
    ("/v1/rerank", {"query": as_url(b"?"), "documents": [PICTURE]}, 400, "query"),
    ("/v1/rerank", {"query": PICTURE, "documents": [PICTURE, as_url(b"?")]}, 400, "candidates[1]"),
    ("/v1/rerank", {"query": "data:image/png,x", "documents": [PICTURE]}, 400, "query"),
    ("/v1/rerank", {"query": PICTURE, "documents": [PICTURE], "top_n": 0}, 400, "top_n"),
    ("/v1/rerank", {"query": PICTURE, "documents": [PICTURE], "deadline_ms": 0}, 400, "deadline"),
    ("/v1/rerank", {"query": PICTURE, "documents": [PICTURE] * 1001}, 400, "documents"),
    ("/v1/gallery/rows", {"crops": [PICTURE], "time": 0}, 400, "camera"),
    ("/v1/gallery/rows", {"crops": [PICTURE], "camera": -1, "time": 0}, 400, "camera"),
    ("/v1/gallery/rows", {"crops": [PICTURE], "camera": 0, "time": "noon"}, 400, "times"),
    ("/v1/gallery/rows", {"crops": [PICTURE], "camera": 0, "time": "2026-01-01T00:00"}, 400, ""),
    ("/v1/gallery/rows", {"crops": [PICTURE] * 257, "camera": 0, "time": 0}, 400, "crops"),
    ("/v1/gallery/rows", {"camera": 0, "time": 0}, 400, "crops"),
    ("/v1/gallery/rows", {"features": [[1.0]], "camera": 0, "time": 0}, 400, "features"),
    ("/v1/gallery/rows", {"features": [[1.0], []], "camera": 0, "time": 0}, 400, "features"),
    ("/v1/gallery/rows", {"features": [[1e300]], "camera": 0, "time": 0}, 400, "features"),
    ("/v1/gallery/rows", {"crops": [PICTURE], "camera": [0, 1], "time": 0}, 400, "camera"),
    ("/v1/gallery/rows", {"crops": [PICTURE], "camera": 0, "time": 0, "shop": 1}, 400, "shop"),
    ("/v1/gallery/rows", {"crops": [PICTURE], "camera": 0, "time": 0, "id": ".."}, 400, "id"),
    ("/v1/gallery/rows", {"crops": [PICTURE], "camera": 0, "time": 0, "id": "."}, 400, "id"),
    ("/v1/gallery/search", {}, 400, "crop"),
    ("/v1/gallery/search", {"crop": PICTURE, "id": "a"}, 400, "crop"),
    ("/v1/gallery/search", {"crop": []}, 400, "crop"),
    ("/v1/gallery/search", {"id": ANYBODY}, 400, "id"),
    ("/v1/gallery/search", {"crop": PICTURE, "method": ANYBODY}, 400, "method"),
    ("/v1/gallery/search", {"crop": PICTURE, "parameters": {"k9": 1}}, 400, "k9"),
    ("/v1/gallery/search", {"crop": PICTURE, "cameras": "1"}, 400, "cameras"),
    ("/v1/gallery/search", {"crop": PICTURE, "top_k": 0}, 400, "top_k"),
    ("/v1/gallery/search", {"crop": PICTURE, "deadline_ms": -1}, 400, "deadline_ms"),
    ("/v1/gallery/search", {"feature": [1.0]}, 400, "feature"),
    ("/v1/gallery/erase", {}, 400, "ids"),
    ("/v1/gallery/erase", {"ids": ["a"], "track": "b"}, 400, "ids"),
    ("/v1/gallery/erase", {"ids": "a"}, 400, "ids"),
    (
        "/v1/gallery/search",
        {"crop": PICTURE, "attributes": {str(i): 1 for i in range(65)}},
        400,
        "a",
    ),
    ("/v1/gallery/search", {"crop": [PICTURE] * 17}, 400, "crop"),
    ("/v1/gallery/search", {"crop": PICTURE, "top_k": 2001}, 400, "top_k"),
    ("/v1/gallery/search", {"crop": PICTURE, "shortlist": 2001}, 400, "shortlist"),
    ("/v1/gallery/search", {"crop": PICTURE, "shortlist": None}, 400, "shortlist"),
    ("/v1/gallery/search", {"crop": PICTURE, "parameters": {"k1_inter": 101}}, 400, "parameters"),
    ("/v1/gallery/search", {"crop": PICTURE, "parameters": {"k2": 10**30}}, 400, "parameters"),
    ("/v1/gallery/search", {"crop": PICTURE, "cameras": [1] * 1001}, 400, "cameras"),
    ("/nothing", {}, 404, ""),
    ("/healthz", {}, 405, ""),
]


@pytest.mark.parametrize(("path", "body", "code", "name"), REFUSED)
def test_bad_requests_are_told_and_nothing_is_stored(
    served: Any, path: str, body: Any, code: int, name: str
) -> None:
    client, _ = served
    answer = client.post(path, body)
    assert answer.status_code == code, answer.text
    problem = answer.json()
    assert set(problem) == {"message", "type", "request_id"}
    assert name in problem["message"]
    assert ANYBODY not in problem["message"] or path == "/v1/gallery/search"
    assert client.get("/v1/gallery/stats").json()["rows"] == 0


@pytest.mark.parametrize(
    ("content", "kind", "code"),
    [
        (b"{", "application/json", 400),
        (b"[1]", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"query": "\\ud800", "documents": ["\\ud800"]}', "application/json", 400),
        (b"{}", "text/plain", 415),
        (b"{}", "multipart/form-data; boundary=x", 415),
        (b"{}", "", 415),
        (b"{}" + b" " * MOST_BYTES, "application/json", 413),
    ],
)
def test_bodies_that_are_none(served: Any, content: bytes, kind: str, code: int) -> None:
    client, _ = served
    for path in ("/v1/rerank", "/v1/gallery/rows", "/v1/gallery/search", "/v1/gallery/erase"):
        answer = client.request("POST", path, content=content, headers={"content-type": kind})
        assert answer.status_code == code, answer.text
        assert len(answer.json()["message"]) < 300


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/v1/rerank", f'{{"query": "{PICTURE}", "documents": ["{PICTURE}"], "model": "\\ud800"}}'),
        ("/v1/gallery/search", '{"id": "shot-1", "attributes": {"a": "\\ud800"}}'),
        ("/v1/gallery/search", f'{{"id": "shot-1", "parameters": {{"alpha": {"9" * 400}}}}}'),
    ],
    ids=["model", "attributes", "parameters"],
)  # fmt: skip
def test_values_that_cannot_be_are_no_bugs(served: Any, path: str, text: str) -> None:
    client, _ = served
    filled(client)
    answer = client.request(
        "POST", path, content=text.encode(), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400, answer.text


WRONG: list[Any] = [
    None,
    True,
    -1,
    10**30,
    1.5,
    "",
    "x" * 1001,
    [],
    [1, "1"],
    [[]],
    {},
    {"x": {}},
    [None] * 9,
]
BODIES: list[tuple[str, Any, Any]] = [
    ("/v1/rerank", shapes.RerankBody, {"query": PICTURE, "documents": [PICTURE]}),
    ("/v1/gallery/rows", shapes.AddBody, {"crops": [PICTURE], "camera": 0, "time": 0}),
    ("/v1/gallery/search", shapes.SearchBody, {"crop": PICTURE}),
    ("/v1/gallery/erase", shapes.EraseBody, {"ids": ["a"]}),
]


@pytest.mark.parametrize(("path", "shape", "body"), BODIES)
def test_sentences_name_the_field_and_are_ours(
    served: Any, path: str, shape: Any, body: dict[str, Any]
) -> None:
    client, _ = served
    told = 0
    for name, field in shape.model_fields.items():
        assert field.description, name
        without = {key: one for key, one in body.items() if key != name}
        for sent in (without, *({**body, name: value} for value in WRONG)):
            answer = client.post(path, sent)
            assert answer.status_code in (200, 400), answer.text
            if answer.status_code == 400:
                message = answer.json()["message"]
                assert not THEIRS.search(message), message
                is_ours = field.description in message
                told += is_ours
                # The others are the gallery's, which may name another argument first.
                assert name in message or not is_ours
    assert told >= len(shape.model_fields)


THEIRS = re.compile(r"Input should|Field required|Extra inputs|valid |validation|permitted")


def test_what_is_not_there_is_said_in_our_words(served: Any) -> None:
    client, _ = served
    for method, path, content in (
        ("GET", "/nothing", b""), ("PUT", "/v1/models", b""), ("POST", "/v1/rerank", b"\xff"),
        ("POST", "/v1/rerank", b"[" * 100_000), ("POST", "/v1/rerank", b"{"),
        ("POST", "/v1/rerank", b"[1]"),
    ):  # fmt: skip
        headers = {"content-type": "application/json"}
        answer = client.request(method, path, content=content, headers=headers)
        message = answer.json()["message"]
        assert answer.status_code in (400, 404, 405)
        assert message[0].islower(), message  # a sentence of ours, and no title of theirs


def test_a_body_that_grows_beyond_what_its_head_said_is_stopped(served: Any) -> None:
    client, _ = served
    sent = []

    async def parts() -> Any:
        for _ in range(64):
            sent.append(1)
            yield b" " * (1 << 20)

    answer = client.request(
        "POST", "/v1/rerank", content=parts(), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 413


@pytest.mark.parametrize("length", ["9" * 5000, str(MOST_BYTES + 1)])
def test_a_length_that_is_too_large_is_refused_unread(served: Any, length: str) -> None:
    client, _ = served
    answer = client.request(
        "POST", "/v1/rerank", content=b"{}",
        headers={"content-type": "application/json", "content-length": length},
    )  # fmt: skip
    assert answer.status_code == 413
