"""Jobs with the shipped engine: the same bytes by whoever works, and whatever is kept."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from made_crops import draw

from murank.cli import main
from murank.engine.memory_cache import KeptImage
from murank.jobs import engine_work as _work
from murank.jobs import score as _scoring

pytest.importorskip("onnxruntime")
ENGINE = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine"
PEOPLE, K = 12, 5


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("crops")
    for folder, camera in (("query", 1), ("gallery", 2)):
        (place / folder).mkdir()
        for person in range(PEOPLE):
            draw(person, camera, 0).save(place / folder / f"{person:04d}_c{camera}s1_000000_00.png")
    return place


def words(crops: Path, out: Path, *options: object) -> list[str]:
    source = ["--query", crops / "query", "--gallery", crops / "gallery"]
    running = ["--candidates", K, "--providers", "cpu", "--threads", 1, "--quiet"]
    return [str(word) for word in ["score", ENGINE, *source, "-o", out, *running, *options]]


def results(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in ("features.npz", "mu.npz")}


def report(out: Path) -> Any:
    return json.loads((out / "job.json").read_text())


@pytest.fixture(scope="module")
def whole(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "job"
    assert main(words(crops, out)) == 0
    told = report(out)
    assert (told["images_embedded"], told["pairs_asked"]) == (2 * PEOPLE, K * PEOPLE)
    assert told["vision_tokens"]["computed"] <= 2 * PEOPLE, "each image is seen once"
    return results(out)


def test_several_processes(crops: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "job"
    assert main(words(crops, out, "--workers", 2)) == 0
    assert results(out) == whole
    assert main(words(crops, out, "--workers", 2, "--overwrite")) == 0
    assert (report(out)["images_embedded"], report(out)["pairs_asked"]) == (0, 0)


def test_a_killed_driver_leaves_nobody_behind(
    crops: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "job"
    command = [sys.executable, "-m", "murank", *words(crops, out, "--workers", 2)]
    path = os.pathsep.join(sys.path)
    driver = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path})
    while not list(out.glob("journal/*.seg")):
        assert driver.poll() is None
        time.sleep(0.02)
    hands = children(driver.pid)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert hands
    end = time.monotonic() + 30
    while any(Path(f"/proc/{hand}").exists() for hand in hands):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert main(words(crops, out)) == 0
    assert results(out) == whole


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_tokens_that_are_kept_no_more(
    crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_scoring, "_QUERIES", 2)
    assert main(words(crops, tmp_path / "kept")) == 0
    forgotten = []

    def as_if(work: Any, digest: Any) -> KeptImage | None:
        """Take every image that was shown for kept."""
        key = work._keys.get(digest)
        forgotten.extend([key] * (key is not None))
        return None if key is None else KeptImage(key)

    monkeypatch.setattr(_work.EngineWork, "_kept", as_if)
    assert main(words(crops, tmp_path / "job", "--vision-cache-mb", 0)) == 0
    assert results(tmp_path / "job") == results(tmp_path / "kept")
    assert forgotten
    seen = [report(tmp_path / name)["vision_tokens"]["computed"] for name in ("kept", "job")]
    assert seen[0] <= 2 * PEOPLE < seen[1]
