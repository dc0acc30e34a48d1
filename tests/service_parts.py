"""A service in this process, on an engine made by hand, and one in a process of its own."""

from __future__ import annotations

import base64
import io
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from search_parts import make_engine, make_images

from murank import Engine, Gallery, Worker
from murank.service.access import Names, Tokens
from murank.service.app import make_app
from murank.service.audit import Audit
from murank.service.service_state import ServiceState

ENGINE = Path(__file__).parents[1] / "benchmarks" / "miniature" / "engine"
HOST = "127.0.0.1"


def crops(count: int, seed: int = 0) -> list[bytes]:
    """Pictures large enough for a gallery, as the bytes of PNG files."""
    found = []
    for one in make_images(count, seed):
        data = io.BytesIO()
        Image.fromarray(np.kron(one, np.ones((8, 8, 1), np.uint8))).save(data, "PNG")
        found.append(data.getvalue())
    return found


def as_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def seeing_engine() -> Engine:
    """An engine with an encoder and an MLLM, both by hand."""
    engine = make_engine()
    engine.encoder_sha256 = "a" * 64
    return engine


@contextmanager
def service(
    folder: Path, *, gallery: bool = True, tokens: Tokens | None = None,
    audit: Path | None = None, queue: int = 32, names: Names | None = None,
) -> Iterator[tuple[Any, ServiceState]]:  # fmt: skip
    """Yield a client of it and its state."""
    import httpx

    engine = seeing_engine()
    opened = Gallery.open(folder / "gallery.db", engine) if gallery else None
    with Worker(engine, opened, queue=queue) as worker:
        state = ServiceState(worker, "engine", tokens, Audit(audit), is_warm=True)
        app = make_app(state, names or Names.of(HOST))
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        client = _Blocking(httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}:8600"))
        yield client, state
    if opened is not None:
        opened.close()


class _Blocking:
    """An asynchronous client, asked from tests that are not."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def request(self, method: str, path: str, **more: Any) -> Any:
        import asyncio

        return asyncio.run(self.client.request(method, path, **more))

    def get(self, path: str, **more: Any) -> Any:
        return self.request("GET", path, **more)

    def post(self, path: str, json: Any = None, **more: Any) -> Any:
        return self.request("POST", path, json=json, **more)

    def delete(self, path: str, **more: Any) -> Any:
        return self.request("DELETE", path, **more)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Process:
    """`murank serve` in a process of its own."""

    def __init__(self, *options: str | Path, port: int | None) -> None:
        words = [str(one) for one in options]
        where = [] if port is None else ["--port", str(port)]
        command = [sys.executable, "-m", "murank", "serve", str(ENGINE), "--providers", "cpu"]
        self.port, self.url = port, f"http://{HOST}:{port}"
        self._out, self._err = (tempfile.TemporaryFile("w+") for _ in "oe")  # noqa: SIM115
        self.popen = subprocess.Popen(
            [*command, *where, *words], stdout=self._out, stderr=self._err,
            env={**os.environ, "PYTHONWARNINGS": "error"},
        )  # fmt: skip

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, list[str], str]:
        """Signal it; return its exit code, its log and what it said on standard error."""
        self.popen.send_signal(number)
        code = self.popen.wait(60)
        out, err = self._said()
        return code, out.splitlines(), err

    def kill(self) -> None:
        """End it, if it has not ended."""
        self.popen.kill()
        self.popen.wait()
        self._out.close()
        self._err.close()

    def _said(self) -> list[str]:
        found = []
        for one in (self._out, self._err):
            one.seek(0)
            found.append(one.read())
        return found

    def wait_until_ready(self, ask: Any) -> None:
        """Ask until it takes work."""
        end = time.monotonic() + 120
        while time.monotonic() < end:
            if self.popen.poll() is not None:
                raise AssertionError(self._said()[1])
            try:
                if ask() == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise AssertionError("it was never ready")


@contextmanager
def running(*options: str | Path) -> Iterator[Process]:
    """Run a service at a free port; it is killed at the end, unless it has ended."""
    import urllib.request

    process = Process(*options, port=free_port())

    def ask() -> int:
        with urllib.request.urlopen(process.url + "/readyz", timeout=5) as answer:  # noqa: S310
            return int(answer.status)

    try:
        process.wait_until_ready(ask)
        yield process
    finally:
        process.kill()


def documents(data: Sequence[bytes]) -> list[str]:
    return [as_url(one) for one in data]


def filled(client: Any, count: int = 12, **more: Any) -> list[bytes]:
    """Add so many people to a gallery; return their pictures."""
    pictures = crops(count)
    body = {
        "crops": documents(pictures), "camera": [i % 3 for i in range(count)],
        "time": [100.0 + i for i in range(count)], "id": [f"shot-{i}" for i in range(count)],
        **more,
    }  # fmt: skip
    answer = client.post("/v1/gallery/rows", body)
    assert answer.status_code == 200, answer.text
    assert [one["status"] for one in answer.json()["results"]] == ["added"] * count
    return pictures
