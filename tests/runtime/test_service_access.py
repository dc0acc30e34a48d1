"""Who may ask the service what: tokens, names, origins, and what it refuses to start with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from service_parts import as_url, crops, service

from murank import InputError
from murank.cli.serve import _duration
from murank.service.access import Names, Tokens, fingerprint
from murank.service.image_values import image_bytes

READ, ADMIN = "r" * 16, "a" * 20
ALL = "0.0.0.0"  # noqa: S104
PICTURE = as_url(crops(1)[0])
# Every route that a token is wanted for, and what the least is.
ROUTES: list[tuple[str, str, Any, str]] = [
    ("POST", "/v1/rerank", {"query": PICTURE, "documents": [PICTURE]}, "read"),
    ("POST", "/rerank", {"query": PICTURE, "documents": [PICTURE]}, "read"),
    ("POST", "/v2/rerank", {"query": PICTURE, "documents": [PICTURE]}, "read"),
    ("POST", "/v1/gallery/search", {"crop": PICTURE}, "read"),
    ("GET", "/v1/gallery/rows/a", None, "read"),
    ("GET", "/v1/gallery/rows/a/crop", None, "read"),
    ("GET", "/v1/gallery/stats", None, "read"),
    ("GET", "/v1/models", None, "read"),
    ("POST", "/v1/gallery/rows", {"crops": [PICTURE], "camera": 0, "time": 0}, "admin"),
    ("POST", "/v1/gallery/erase", {"ids": ["a"]}, "admin"),
    ("DELETE", "/v1/gallery/rows/a", None, "admin"),
]
OPEN = ("/healthz", "/readyz", "/metrics", "/", "/openapi.json")


def token_file(folder: Path, text: str = f"# both\nread {READ}\n\nadmin {ADMIN}\n") -> Path:
    file = folder / "tokens"
    file.write_text(text)
    file.chmod(0o600)
    return file


@pytest.mark.parametrize(("method", "path", "body", "least"), ROUTES)
def test_each_route_wants_its_token(
    tmp_path: Path, method: str, path: str, body: Any, least: str
) -> None:
    with service(tmp_path, tokens=Tokens.read(token_file(tmp_path))) as (client, _):

        def code(header: str | None) -> int:
            headers = {} if header is None else {"authorization": header}
            return int(client.request(method, path, json=body, headers=headers).status_code)

        for header in (None, "", "Bearer", "Bearer ", "Bearer x", f"Basic {ADMIN}", ADMIN):
            assert code(header) == 401, header
        assert (code(f"Bearer {READ}") == 403) is (least == "admin")
        assert code(f"bearer {ADMIN}") in (200, 404)


def test_a_stranger_is_refused_before_the_body_is_read(tmp_path: Path) -> None:
    with service(tmp_path, tokens=Tokens.read(token_file(tmp_path))) as (client, _):
        for content, kind in ((b"{", "application/json"), (b"{}", "text/plain")):
            answer = client.request(
                "POST", "/v1/gallery/rows", content=content, headers={"content-type": kind}
            )
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"


def test_every_route_is_in_that_list_or_open(tmp_path: Path) -> None:
    with service(tmp_path, tokens=Tokens.read(token_file(tmp_path))) as (client, _):
        for path in OPEN:
            assert client.get(path).status_code == 200
        schema = client.get("/openapi.json").json()
    wanted = {(method, path.replace("/a", "/{id}", 1) if "rows/a" in path else path)
              for method, path, _, _ in ROUTES}  # fmt: skip
    for path, operations in schema["paths"].items():
        for method in operations:
            assert (method.upper(), path) in wanted or path in OPEN


def test_without_a_token_file_the_header_is_passed_over(tmp_path: Path) -> None:
    with service(tmp_path) as (client, _):
        answer = client.get("/v1/models", headers={"authorization": "Bearer anything"})
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "no token"), ("# none\n", "no token"), ("read short\n", "line 1"),
        (f"write {READ}\n", "line 1"), (f"read {READ}\nadmin\n", "line 2"), ("\udcff", "tokens"),
    ],
)  # fmt: skip
def test_token_files_that_cannot_be_are_refused(tmp_path: Path, text: str, named: str) -> None:
    file = token_file(tmp_path, "x")
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=named):
        Tokens.read(file)


def test_a_token_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = token_file(tmp_path)
    file.chmod(0o640)
    with pytest.raises(InputError, match="chmod"):
        Tokens.read(file)
    with pytest.raises(InputError, match="none"):
        Tokens.read(tmp_path / "none")


def test_tokens_are_told_apart_and_not_told() -> None:
    one, other = (fingerprint(f"Bearer {token}") for token in (READ, ADMIN))
    assert one is not None
    assert one != other
    assert READ not in one
    assert fingerprint(None) is None


@pytest.mark.parametrize(
    ("host", "header", "allowed"),
    [
        ("127.0.0.1", "127.0.0.1:8600", True), ("127.0.0.1", "localhost", True),
        ("127.0.0.1", "LOCALHOST:8600", True), ("::1", "[::1]:8600", True),
        ("127.0.0.1", "evil.example:8600", False), ("127.0.0.1", "127.0.0.1.evil.example", False),
        ("127.0.0.1", "", False), ("127.0.0.1", None, False), ("127.0.0.1", "10.0.0.1", False),
        ("localhost", "127.0.0.1", True), ("10.0.0.5", "10.0.0.5:8600", True),
        ("10.0.0.5", "localhost", False), (ALL, "10.0.0.5", True),
        (ALL, "[fe80::1]:8600", True), ("::", "10.0.0.5", True),
        (ALL, "evil.example", False), (ALL, "box.shop.example", True),
        (None, "evil.example", True),
    ],
)  # fmt: skip
def test_it_goes_by_its_own_names(host: str | None, header: str | None, allowed: bool) -> None:
    assert Names.of(host, ["box.shop.example"]).allow(header) is allowed


@pytest.mark.parametrize(
    ("asked", "origin", "allowed"),
    [
        ("http 127.0.0.1:8600", "http://127.0.0.1:8600", True),
        ("http 127.0.0.1:8600", "http://127.0.0.1:9999", False),
        ("http 127.0.0.1:8600", "http://127.0.0.1", False),
        ("http 127.0.0.1:8600", "http://localhost:8600", False),
        ("http localhost:9000", "http://localhost:9000", True),  # a port forwarded by ssh
        ("http localhost", "http://localhost", True),
        ("http localhost:80", "http://LOCALHOST", True), ("https [::1]:443", "https://[::1]", True),
        ("http [::1]:8600", "http://[::1]:8601", False),
        ("https localhost:8600", "http://localhost:8600", False),
        # A proxy that keeps the name, one that does not, and pages at another of its ports.
        ("http box.shop.example", "https://box.shop.example", True),
        ("http 127.0.0.1:8600", "https://box.shop.example", True),
        ("http 127.0.0.1:8600", "https://box.shop.example:8443", False),
        ("http 127.0.0.1:8600", "https://box.shop.example:9443", True),
        ("http 127.0.0.1:8600", "https://other.shop.example", False),
        ("http 127.0.0.1:8600", "null", False), ("http 127.0.0.1:8600", "", False),
        ("http 127.0.0.1:8600", "127.0.0.1:8600", False),
        ("http 127.0.0.1:8600", "file://127.0.0.1:8600", False),
        ("http 127.0.0.1:8600", "http://127.0.0.1:8600@evil.example", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("host", ["127.0.0.1", None, ALL])
def test_another_port_is_another_page(
    host: str | None, asked: str, origin: str, allowed: bool
) -> None:
    scheme, _, header = asked.partition(" ")
    names = Names.of(host, ["box.shop.example", "box.shop.example:9443"])
    assert names.allow(header)
    assert names.allow_origin(origin, header, scheme) is allowed


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_other_names_and_other_pages_are_refused(tmp_path: Path, method: str) -> None:
    with service(tmp_path) as (client, _):
        for headers, is_refused in (
            ({"host": "evil.example"}, True),
            ({"origin": "http://evil.example"}, True),
            ({"origin": "http://127.0.0.1:9999"}, True),
            ({"origin": "null"}, True),
            ({"origin": "http://127.0.0.1:8600"}, False),
            ({}, False),
        ):
            answer = client.request(method, "/v1/gallery/rows/none", headers=headers)
            assert (answer.status_code == 403) is is_refused
        preflight = client.request("OPTIONS", "/v1/gallery/erase", headers={
            "origin": "http://evil.example", "access-control-request-method": "POST",
        })  # fmt: skip
        assert preflight.status_code == 403
        assert not any("access-control" in name for name in preflight.headers)


@pytest.mark.parametrize(
    "value", [None, 1, [], {}, "", "%%%", "ftp://x", "javascript:alert(1)", {"image": None},
              {"content": "x"}, {"content": [{"image_url": 1}]}, {"id": 1}, {"image_url": []},
              {"content": [{"image_url": "QQ=="}, {"image_url": "QQ=="}]}, "data:;base64,"],
)  # fmt: skip
def test_what_is_no_image_names_its_place(value: Any) -> None:
    with pytest.raises(InputError, match=r"documents\[3\]"):
        image_bytes(value, "documents[3]", None)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("72h", 259_200), ("1.5d", 129_600)]
)
def test_durations(text: str, seconds: float) -> None:
    assert _duration(text).total_seconds() == seconds
