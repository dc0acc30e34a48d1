"""`murank serve` in a process of its own, asked by the clients that people have."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("onnxruntime")
pytest.importorskip("httpx")

import httpx
from made_crops import draw
from service_parts import ENGINE, HOST, Process, as_url, free_port, running

from murank import Engine, Gallery


def picture(person: int, shot: int = 0) -> bytes:
    """A drawn person, as the bytes of a PNG file."""
    data = io.BytesIO()
    draw(person, shot, 0).save(data, "PNG")
    return data.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
def process(folder: Path) -> Iterator[Process]:
    """One for all tests; CI is unset, as at a user's, and connections that it opens are heard."""
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "def hear(event, given):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.sendto'):\n"
        f"        open({str(folder / 'heard')!r}, 'a').write(f'{{event}} {{given}}\\n')\n"
        "sys.addaudithook(hear)\n"
    )
    path = [str(folder), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(path))
        patch.delenv("CI", raising=False)
        started = running("--gallery", folder / "gallery.db")
        one = started.__enter__()
    try:
        answer = httpx.post(one.url + "/v1/gallery/rows", json={
            "crops": [as_url(picture(i // 2, i % 2)) for i in range(12)], "camera": 0, "time": 1.0,
            "id": [f"shot-{i}" for i in range(12)],
        }, timeout=60)  # fmt: skip
        assert [row["status"] for row in answer.json()["results"]] == ["added"] * 12
        yield one
    finally:
        started.__exit__(None, None, None)


def test_it_answers_as_the_engine_does(process: Process) -> None:
    query, candidates = picture(0), [picture(i // 2, i % 2) for i in range(1, 8)]
    body = {"query": as_url(query), "documents": [as_url(one) for one in candidates]}
    found = httpx.post(process.url + "/v1/rerank", json=body, timeout=60).json()["results"]
    with Engine.from_pretrained(ENGINE, providers="cpu") as engine:
        expected = engine.rank(query, candidates)
    # The service asks a few at a time, and runs of other sizes may round otherwise.
    assert [one["index"] for one in found] == [one.corpus_id for one in expected]
    for one, match in zip(found, expected, strict=True):
        assert one["mu"] == pytest.approx(match.mu, abs=1e-5)


@pytest.mark.parametrize("version", ["Client", "ClientV2"])
def test_the_sdk_of_a_reranking_service(process: Process, version: str) -> None:
    cohere = pytest.importorskip("cohere")
    with httpx.Client() as http:
        client = getattr(cohere, version)(
            api_key="any", base_url=process.url, httpx_client=http, client_name="test"
        )
        found = client.rerank(
            model="any", query=as_url(picture(0)), top_n=2,
            documents=[as_url(picture(person)) for person in range(4)],
        )  # fmt: skip
    assert len(found.results) == 2
    assert found.results[0].index == 0
    assert found.results[0].relevance_score >= found.results[1].relevance_score


def test_one_persons_answer_never_has_anothers_in_it(process: Process) -> None:
    people = [picture(person) for person in range(4)]
    bodies = [
        {"query": as_url(one), "documents": [as_url(people[(i + k) % 4]) for k in range(4)]}
        for i, one in enumerate(people)
    ]

    def ask(number: int) -> Any:
        body = bodies[number % 4]
        found = httpx.post(process.url + "/v1/rerank", json=body, timeout=60).json()["results"]
        return [(one["index"], round(one["mu"], 4)) for one in found]

    alone = [ask(number) for number in range(4)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(24))) == alone * 6


def test_connections_that_say_nothing_or_too_much_cost_the_service_nothing(
    process: Process,
) -> None:
    assert process.port is not None
    silent = [socket.create_connection((HOST, process.port)) for _ in range(600)]
    try:
        for one in silent[:50]:
            one.sendall(b"POST /v1/rerank HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        # Those beyond the bound were closed: the place of one is needed to ask.
        for one in silent[:100]:
            one.close()
        time.sleep(0.5)
        assert httpx.get(process.url + "/healthz", timeout=10).status_code == 200
    finally:
        for one in silent:
            one.close()
    huge = (
        b"POST /v1/rerank HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: 1073741824\r\n\r\n"
    )
    with socket.create_connection((HOST, process.port)) as one:
        one.sendall(huge + b" " * 1000)
        assert b" 413 " in one.recv(100)
    for text in (b"\x00\x01\x02\r\n\r\n", b"GET " + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n"):
        with socket.create_connection((HOST, process.port)) as one:
            one.settimeout(10)
            one.sendall(text)
            assert b" 400 " in one.recv(100)
    assert httpx.get(process.url + "/readyz", timeout=10).status_code == 200


def test_schemathesis_finds_no_5xx_and_no_code_that_is_not_in_the_schema(
    process: Process, tmp_path: Path
) -> None:
    command = Path(
        shutil.which("schemathesis") or Path(__import__("sys").executable).parent / "schemathesis"
    )
    if not command.exists():
        pytest.skip("needs schemathesis")
    run = subprocess.run(
        [command, "run", process.url + "/openapi.json", "--checks",
         "not_a_server_error,status_code_conformance,content_type_conformance,"
         "response_schema_conformance", "--max-examples", "6", "--seed", "1", "--workers", "1",
         "--phases", "examples,coverage,fuzzing"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-6000:]


def test_a_socket_file_is_its_owners_and_asked_by_curl(tmp_path: Path) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("needs curl")
    path = tmp_path / "murank.sock"
    left_over = socket.socket(socket.AF_UNIX)
    left_over.bind(str(path))
    left_over.close()
    process = Process("--uds", path, port=None)

    def ask(route: str = "/readyz", *more: str) -> Any:
        where = ["--unix-socket", str(path), f"http://box{route}"]
        command = [curl, "-s", "-w", "\n%{http_code}", *where, *more]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        return answer.stdout.rsplit("\n", 1)

    try:
        process.wait_until_ready(lambda: int(ask()[1]))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        body = {"query": as_url(picture(0)), "documents": [as_url(picture(1))]}
        text, code = ask(
            "/v1/rerank", "-H", "Content-Type: application/json", "-d", json.dumps(body)
        )
        assert code == "200"
        assert json.loads(text)["meta"]["scored"] == 1
        ended, _, err = process.stop(signal.SIGINT)
        assert ended == 0, err
        assert not path.exists()
    finally:
        process.kill()


def test_stopped_under_load_it_ends_what_it_began_and_loses_no_row(tmp_path: Path) -> None:
    file = tmp_path / "gallery.db"
    acknowledged: list[str] = []
    codes: list[int] = []
    stop = threading.Event()
    with running("--gallery", file) as process:

        def add(thread: int) -> None:
            for turn in range(10_000):
                name = f"{thread}-{turn}"
                body = {"crops": [as_url(picture(thread, turn % 4))], "camera": 0, "time": 1.0}
                try:
                    answer = httpx.post(
                        process.url + "/v1/gallery/rows", json={**body, "id": name}, timeout=60
                    )
                except httpx.HTTPError:
                    return
                codes.append(answer.status_code)
                if answer.status_code == 200:
                    acknowledged.append(name)
                if stop.is_set() and answer.status_code != 200:
                    return

        threads = [threading.Thread(target=add, args=(one,)) for one in range(4)]
        for one in threads:
            one.start()
        while len(acknowledged) < 8:
            time.sleep(0.01)
        stop.set()
        code, log, err = process.stop(signal.SIGTERM)
        for one in threads:
            one.join()
    assert code == 0, err
    assert set(codes) <= {200, 503, 429}
    assert all(json.loads(line)["code"] in (200, 429, 503) for line in log)
    assert not file.with_name("gallery.db-wal").exists()
    with Gallery.open(file, None, mode="r") as gallery:
        assert None not in gallery.get(acknowledged)
        assert gallery.verify().is_clean


def test_what_hangs_at_the_end_is_ended_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, time\n"
        "if sys.argv[-1].endswith('gallery.db'):\n"
        "    from murank import Gallery\n"
        "    from murank.service import server\n"
        "    Gallery.close = lambda self: time.sleep(600)\n"
        "    server._AT_LAST = 0.5\n"
    )
    path = [str(tmp_path), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(path))
        with running("--grace", "0.1", "--gallery", tmp_path / "gallery.db") as process:
            code, _, err = process.stop()
    assert code == 143
    assert "did not end" in err


def test_stopped_while_it_compiles_it_ends_at_once(tmp_path: Path) -> None:
    """Nobody was answered as yet; a kernel that is being compiled cannot be interrupted."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, time\n"
        "if sys.argv[-1].endswith('gallery.db'):\n"
        "    from murank.service import server\n"
        "    server._compile = lambda: time.sleep(600)\n"
    )
    path = [str(tmp_path), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(path))
        process = Process("--gallery", tmp_path / "gallery.db", port=free_port())
    signal.signal(signal.SIGINT, before)
    try:
        process.wait_until_ready(lambda: 200 if status_of(process) == 503 else 0)
        code, _, err = process.stop(signal.SIGINT)
    finally:
        process.kill()
    assert code == 130
    assert err.endswith("murank: interrupted\n")


def status_of(process: Process) -> int:
    """Return how ready it says it is; 0 while it does not answer."""
    try:
        return httpx.get(process.url + "/readyz").status_code
    except httpx.TransportError:
        return 0


def test_it_connected_to_nobody(process: Process, folder: Path) -> None:
    """The last test: what Python code of the service opened meanwhile was heard."""
    assert httpx.get(process.url + "/healthz", timeout=10).status_code == 200
    lines = (folder / "heard").read_text().splitlines()
    assert all(line.startswith("socket.getaddrinfo") and HOST in line for line in lines), lines
