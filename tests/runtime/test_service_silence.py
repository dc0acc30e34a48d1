"""Clients that are slow or silent lose their connection; nobody else notices."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest

pytest.importorskip("fastapi")

import uvicorn

from murank.service import listening
from murank.service.listening import ImpatientProtocol, listen_at
from murank.service.server import _Server

LARGE = 64 << 20  # more than the buffers of two sockets
HEAD = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n"


async def _echo(scope: object, receive: object, send: object) -> None:
    large = scope["path"] == "/large"  # type: ignore[index]
    body = b"ok" if not large else bytes(LARGE)
    while (await receive()).get("more_body"):  # type: ignore[operator]
        pass
    for message in (
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-length", str(len(body)).encode()),
            ],
        },
        {"type": "http.response.body", "body": body},
    ):
        await send(message)  # type: ignore[operator]


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(listening, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(listening, "BODY_SECONDS", 0.3)
    monkeypatch.setattr(listening, "READ_SECONDS", 0.3)
    monkeypatch.setattr(listening, "MOST_CONNECTIONS", 4)
    listener = listen_at("127.0.0.1", 0)
    server = _Server(uvicorn.Config(
        _echo, http=ImpatientProtocol, ws="none", lifespan="off", log_config=None,
        timeout_keep_alive=60, timeout_graceful_shutdown=1,
    ))  # fmt: skip
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    yield int(listener.getsockname()[1])
    server.should_exit = True
    thread.join(30)


def connected(port: int, *sent: bytes) -> socket.socket:
    one = socket.create_connection(("127.0.0.1", port), timeout=30)
    for part in sent:
        one.sendall(part)
    return one


def is_answered(one: socket.socket) -> bool:
    """Read one answer."""
    data = b""
    while not data.endswith(b"ok"):
        data += one.recv(1000) or b"ok"
    return b" 200 " in data


def is_closed(one: socket.socket) -> bool:
    """Read until the other side has left: a test that waits for more fails by its timeout."""
    try:
        while one.recv(1000):
            pass
    except ConnectionResetError:
        pass
    return True


@pytest.mark.parametrize(
    "sent", [(), (b"POST /a",), (HEAD,), (HEAD, b"\r\n", b"ab")],
    ids=["nothing", "half a line", "half a head", "half a body"],
)  # fmt: skip
def test_silence_costs_the_connection(port: int, sent: tuple[bytes, ...]) -> None:
    with connected(port, *sent) as slow:
        assert is_closed(slow)


def test_a_second_request_must_come_to_the_point_too(port: int) -> None:
    with connected(port, HEAD, b"\r\nabcd") as client:
        assert is_answered(client)
        threading.Event().wait(0.6)  # longer than a head may take: nothing has begun
        client.sendall(HEAD + b"\r\nabcd")
        assert is_answered(client)
        client.sendall(b"POST /a")
        assert is_closed(client)


def test_connections_beyond_the_bound_are_closed(port: int) -> None:
    held = [connected(port, HEAD, b"\r\nabcd") for _ in range(4)]
    try:
        for one in held:
            assert is_answered(one)
        with connected(port) as fifth:
            assert is_closed(fifth)
    finally:
        for one in held:
            one.close()


def test_a_body_behind_another_request_must_come_too(port: int) -> None:
    with connected(port, b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n" + HEAD + b"\r\nab") as client:
        assert is_closed(client)


def test_an_answer_that_nobody_reads_is_given_up(port: int) -> None:
    with connected(port, b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n") as slow:
        threading.Event().wait(1.0)
        read = 0
        try:
            while data := slow.recv(1 << 20):
                read += len(data)
        except ConnectionResetError:
            pass
        assert read < LARGE
