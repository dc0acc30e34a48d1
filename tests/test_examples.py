"""The programs of examples/ run as they are, on a small drawn place."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from murank import Engine, Gallery
from murank.cli import main as murank
from murank_kernels import AlignmentWarning

EXAMPLES = Path(__file__).parents[1] / "examples"
ENGINE = EXAMPLES.parent / "benchmarks" / "miniature" / "engine"
PLACE = (
    "--domain", "crowd", "--people", "8", "--distractors", "4", "--cameras", "3", "--seen-by", "3",
)  # fmt: skip


def example(name: str) -> Callable[..., Any]:
    """The main of a program."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    main: Callable[..., Any] = module.main
    return main


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "people"
    assert murank(["world", "-o", str(folder), *PLACE, "--quiet"]) == 0
    return folder


def test_all_are_named_in_their_readme() -> None:
    named = re.findall(r"^\| `(\w+\.\w+)`", (EXAMPLES / "README.md").read_text(), re.M)
    files = [path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".sh", ".cpp")]
    assert sorted(named) == sorted(files)


def test_rank_candidates(people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("rank_candidates")(people)
    found = [float(mu) for mu in re.findall(r"mu ([0-9.]+)", capsys.readouterr().out)]
    assert len(found) == 5
    assert found == sorted(found)


def test_search_in_time(people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("search_in_time")(people)
    out = capsys.readouterr().out
    assert len(re.findall(r"^\S+\.jpg: (\S+\.jpg, ){2}\S+\.jpg \(", out, re.M)) == 5


def test_your_features_are_what_arrays_are_re_ranked_from(
    people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "features.npz"
    example("your_features")(people, file)
    assert murank(["rerank", str(file), "--method", "ecn", "--quiet"]) == 0
    capsys.readouterr()
    with pytest.warns(AlignmentWarning, match="means"):  # so few people
        example("rerank_arrays")(file)
    assert len(re.findall(r"mAP +[0-9.]+  rank-1", capsys.readouterr().out)) == 4


def test_keep_and_erase(people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("keep_and_erase")(people, tmp_path / "kept")
    kept, without, cleared = map(int, re.findall(r": (\d+)", capsys.readouterr().out))
    assert kept - without == 1
    assert cleared == kept - 5


def test_appliance(people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("appliance")(people, tmp_path / "appliance.db")
    out = capsys.readouterr().out
    assert len(re.findall(r"^\d\. c\d-\d{4}, mu 0\.", out, re.M)) == 3
    rows, complete, clean = re.findall(r"erased (\d+) rows, complete: (\w+)\nclean: (\w+)", out)[0]
    assert (int(rows) > 0, complete, clean) == (True, "True", "True")


@pytest.fixture(scope="module")
def socket_file(people: Path) -> Iterator[Path]:
    """Where a service with an empty gallery listens."""
    pytest.importorskip("fastapi")
    from served import served

    path = people.parent / "s"  # a socket's path must be short
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    with (
        Engine.from_pretrained(ENGINE, providers="cpu") as engine,
        Gallery.open(people.parent / "served.db", engine) as gallery,
        served(engine, gallery, listener),
    ):
        yield path


def test_service_client(
    people: Path, socket_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example("service_client")(people, socket_file)
    out = capsys.readouterr().out
    stored, erased = map(int, re.findall(r"^(?:stored|erased): (\d+)", out, re.M))
    assert stored == erased > 5
    assert len(re.findall(r"^\d\. \d{4}_c\S+, mu \S+: a candidate match$", out, re.M)) == 3


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_without_arguments_they_say_how_they_are_called(name: str, tmp_path: Path) -> None:
    """And on what is not there one sentence; never a traceback."""
    none = [tmp_path / "none"] * (2 if name in TAKES_TWO else 1)
    for arguments, said in (([], "usage: "), (none, "none")):
        command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


TAKES_TWO = ("keep_and_erase.py", "service_client.py", "your_features.py")


def test_clients_without_a_service_say_so(people: Path, tmp_path: Path) -> None:
    crop, path = min((people / "query").glob("*.jpg")), tmp_path / "none"
    clients = {"service_client.py": (sys.executable, people), "service_curl.sh": ("/bin/sh", crop)}
    for name, (program, first) in clients.items():
        command = [program, str(EXAMPLES / name), str(first), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stdout) == (2, "")
        assert [str(path) in line for line in done.stderr.splitlines()] == [True]


def test_curl_without_arguments_says_how_it_is_called(tmp_path: Path) -> None:
    for arguments, said in (([], "usage: "), ([tmp_path / "none", tmp_path], "none")):
        command = ["/bin/sh", str(EXAMPLES / "service_curl.sh"), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_service_curl(people: Path, socket_file: Path) -> None:
    crop = min((people / "query").glob("*.jpg"))
    command = ["/bin/sh", str(EXAMPLES / "service_curl.sh"), str(crop), str(socket_file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    ready, added, found, ranked, erased = map(json.loads, done.stdout.splitlines())
    assert ready["ready"]
    assert added["results"] == [{"id": "curl-1", "status": "added", "reason": None}]
    assert [match["id"] for match in found["matches"]] == ["curl-1"]
    assert ranked["results"][0]["mu"] == pytest.approx(found["matches"][0]["mu"], abs=1e-6)
    assert erased["ids"] == ["curl-1"]


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_service_client_in_cpp(people: Path, socket_file: Path, tmp_path: Path) -> None:
    program, source = tmp_path / "service_client", str(EXAMPLES / "service_client.cpp")
    strict = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", source]
    probe = ["g++", "-E", "-x", "c++", "-include", "curl/curl.h", "/dev/null", "-o", "/dev/null"]
    if subprocess.run(probe, capture_output=True).returncode:  # no headers of libcurl
        (tmp_path / "curl").mkdir()
        (tmp_path / "curl" / "curl.h").write_text(CURL)
        subprocess.run([*strict, "-fsyntax-only", "-I", str(tmp_path)], check=True)
        return
    subprocess.run([*strict, "-o", str(program), "-lcurl"], check=True)
    crops = sorted((people / "query").glob("*.jpg"))[:3]  # sizes with other ends of base64
    none = tmp_path / "none"
    for words in ([], [none, crops[0]], [socket_file, none]):
        done = subprocess.run(
            [program, *map(str, words)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (2, "")
    for crop in crops:
        call = [str(program), str(socket_file), str(crop)]
        code, _, body = subprocess.check_output(call, text=True).partition(" ")
        assert (code, json.loads(body)["matches"]) == ("200", [])  # the gallery is empty


CURL = """
enum CURLcode { CURLE_OK };
enum { CURLOPT_UNIX_SOCKET_PATH, CURLOPT_URL, CURLOPT_HTTPHEADER, CURLOPT_POSTFIELDSIZE };
enum { CURLOPT_POSTFIELDS, CURLOPT_WRITEFUNCTION, CURLOPT_WRITEDATA, CURLINFO_RESPONSE_CODE };
struct CURL; struct curl_slist;
CURL* curl_easy_init(); void curl_easy_cleanup(CURL*); CURLcode curl_easy_perform(CURL*);
CURLcode curl_easy_setopt(CURL*, int, ...); CURLcode curl_easy_getinfo(CURL*, int, ...);
curl_slist* curl_slist_append(curl_slist*, const char*); void curl_slist_free_all(curl_slist*);
const char* curl_easy_strerror(CURLcode);
"""
