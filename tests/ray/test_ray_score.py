"""`murank score --workers ray`: the job folder of a local run, whatever ends."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_nodes import LOOPBACK

ENGINE = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine"
FILES = ("features.npz", "mu.npz")
OTHER_VERSION = """
import sys
from ray_nodes import cluster_of, import_ray
import_ray().__version__ = "2.59.0"
with cluster_of(0) as cluster:
    print(cluster.address, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn") / "crowd"
    size = ["--people", "10", "--distractors", "8", "--seed", "5", "--place", "5"]
    murank("world", "-o", root, "--domain", "crowd", *size)
    return root


@pytest.fixture(scope="module")
def local(crops: Path) -> Path:
    """A job folder that this process's like made alone."""
    folder = crops.with_name("local")
    score(crops, folder, "--threads", 1)
    return folder


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder for temporary files: Ray's sockets bear no long path."""
    with tempfile.TemporaryDirectory(prefix="m") as folder:
        yield Path(folder)


def started(*arguments: object, **variables: object) -> "subprocess.Popen[str]":
    text = {name: str(value) for name, value in variables.items()}
    return subprocess.Popen(
        [sys.executable, "-m", "murank", *map(str, arguments)], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", **text},
    )  # fmt: skip


def murank(*arguments: object, code: int = 0, **variables: object) -> str:
    """Run it; return its stderr."""
    process = started(*arguments, **variables)
    _, said = process.communicate(timeout=150)
    assert process.returncode == code, said
    return said


def arguments(crops: Path, folder: Path, *options: object) -> list[object]:
    source = ["--dataset", "market1501", "--root", crops, "--candidates", 5]
    return ["score", ENGINE, *source, "-o", folder, *options]


def score(crops: Path, folder: Path, *options: object) -> str:
    return murank(*arguments(crops, folder, *options))


def same(one: Path, other: Path) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in FILES)


def until(what: Callable[[], Any], seconds: float = 100) -> Any:
    """Wait for something to be true; return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError("it never came")


def processes(folder: Path) -> list[int]:
    """Which processes have `folder` for temporary files."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it has gone, or is another user's
            variables = (entry / "environ").read_bytes()
            if entry.name.isdecimal() and f"TMPDIR={folder}\0".encode() in variables:
                found.append(int(entry.name))
    return found


def actors(folder: Path) -> list[int]:
    """Which of them are actors that work."""
    names = {pid: Path(f"/proc/{pid}/cmdline") for pid in processes(folder)}
    return [pid for pid, name in names.items() if b"MapWorker" in name.read_bytes()]


def listening(pids: list[int]) -> set[str]:
    """Addresses on which processes listen, as the system writes them."""
    sockets = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                sockets.add(str(link.readlink()))
    rows = []
    for name in ("tcp", "tcp6"):
        rows += [line.split() for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {
        row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets
    }


def asked(progress: Path) -> int:
    """Pairs that were answered, as the progress file tells."""
    lines = progress.read_text().splitlines() if progress.exists() else []
    done = [json.loads(line) for line in lines if line.endswith("}")]
    return max((line["done"] for line in done if line.get("stage") == "mu"), default=0)


def test_a_new_cluster_gives_the_job_of_a_local_run_and_leaves_nothing(
    crops: Path, local: Path, short: Path, tmp_path: Path
) -> None:
    options = ["--workers", "ray", "--progress", tmp_path / "progress"]
    process = started(*arguments(crops, tmp_path / "job", *options), TMPDIR=short, HOME=short)
    until(lambda: actors(short) or process.poll() is not None)
    # 127.0.0.1, also as IPv6 sockets name it.
    assert listening(processes(short)) == {"0100007F", "0000000000000000FFFF00000100007F"}
    os.kill(actors(short)[0], signal.SIGKILL)
    _, said = process.communicate(timeout=150)
    assert process.returncode == 0, said
    stages = ("read", "embed", "candidates", "mu")
    assert all(line.startswith(stages) for line in said.splitlines()), said
    assert same(tmp_path / "job", local)
    until(lambda: not processes(short))
    assert [*short.glob("murank-*")] == []
    report = json.loads((tmp_path / "job" / "job.json").read_text())
    expected = json.loads((local / "job.json").read_text())
    assert report["pairs_asked"] == expected["pairs_asked"]
    assert report["engine"] == expected["engine"]


def test_a_driver_that_is_killed_is_resumed_without_ray(
    crops: Path, local: Path, short: Path, tmp_path: Path
) -> None:
    progress, folder = tmp_path / "progress", tmp_path / "job"
    options = ["--workers", "ray", "--progress", progress]
    process = started(*arguments(crops, folder, *options), TMPDIR=short)
    until(lambda: asked(progress))
    process.kill()
    process.communicate()
    until(lambda: not processes(short))
    score(crops, folder, "--threads", 1)
    assert same(folder, local)
    report = json.loads((folder / "job.json").read_text())
    assert report["images_embedded"] == 0
    assert 0 < report["pairs_asked"] < report["counts"]["num_query"] * 5


def test_an_interrupt_ends_the_cluster(crops: Path, short: Path, tmp_path: Path) -> None:
    progress = tmp_path / "progress"
    options = ["--workers", "ray", "--progress", progress]
    process = started(*arguments(crops, tmp_path / "job", *options), TMPDIR=short)
    until(lambda: asked(progress))
    os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it: to all
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "murank: interrupted"
    until(lambda: not processes(short))
    assert [*short.glob("murank-*")] == []


def test_a_cluster_of_another_version_is_refused(crops: Path, tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    with subprocess.Popen(
        [sys.executable, "-c", OTHER_VERSION], text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": path},
    ) as cluster:  # fmt: skip
        assert cluster.stdout is not None
        address = cluster.stdout.readline().strip()
        options = [*arguments(crops, tmp_path / "job"), "--workers", f"ray:{address}"]
        (said,) = murank(*options, code=3, **LOOPBACK).splitlines()
    assert address in said
    assert "2.59.0" in said
