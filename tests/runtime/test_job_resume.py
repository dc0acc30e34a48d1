import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_job import NUM_IMAGES, NUM_QUERY, FakeEngine, ImageJob, change_crop
from numpy.typing import NDArray

from murank import MachineError
from murank.files.atomic import write_files
from murank.folder.contents import EngineFiles
from murank.folder.graph_hash import encoder_sha256
from murank.folder.manifest import read_manifest

K = 3
PAIRS = K * NUM_QUERY
OPTIONS = ("--candidates", K)


def distances(job: ImageJob) -> NDArray[np.float32]:
    return job.ranking().distances


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NDArray[np.float32]]:
    """Results of whole runs, by order; what is ranked is the same in each job."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        job = ImageJob(tmp_path_factory.mktemp("whole"), patch)
        for order in ("given", "both"):
            assert job.run("-o", job.out, *OPTIONS, "--order", order, "--quiet", "--overwrite") == 0
            found[order] = distances(job)
    return found


def test_killed_while_embedding(
    job: ImageJob,
    uninterrupted: dict[str, NDArray[np.float32]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    job.stop_at = ("embed", 9)  # two a unit: four are there
    assert job.run("-o", job.out, *OPTIONS) == 130
    assert job.names() == {".murank-batch"}
    job.stop_at = None
    assert job.run("-o", job.out, *OPTIONS) == 0
    assert job.done == {"embed": NUM_IMAGES - 8, "given": PAIRS}
    assert f"features.npz: goes on, 8 of {NUM_IMAGES} images known\n" in capsys.readouterr().err
    assert job.names() == {"features.npz", "mu.npz", "job.json"}
    wanted = encoder_sha256(EngineFiles(job.engine, read_manifest(job.engine)))
    assert str(job.arrays("features.npz")["encoder_sha256"]) == wanted
    np.testing.assert_array_equal(distances(job), uninterrupted["given"])


@pytest.mark.parametrize("order", ["given", "both"])
def test_killed_while_scoring(
    job: ImageJob,
    uninterrupted: dict[str, NDArray[np.float32]],
    capsys: pytest.CaptureFixture[str],
    order: str,
) -> None:
    options = ["-o", job.out, *OPTIONS, "--order", order]
    job.stop_at = ("given", 3 * K - 1)  # a query a unit
    assert job.run(*options) == 130
    assert job.names() == {".murank-batch", "features.npz"}
    job.stop_at = None
    assert job.run(*options) == 0
    halves = {"given", "swapped"} if order == "both" else {"given"}
    assert job.done == dict.fromkeys(halves, PAIRS - 2 * K)
    err = capsys.readouterr().err
    assert "features.npz: reused\n" in err
    assert f"mu.npz: goes on, {2 * K} of {PAIRS} pairs known\n" in err
    np.testing.assert_array_equal(distances(job), uninterrupted[order])


def test_killed_between_the_two_orders(
    job: ImageJob, uninterrupted: dict[str, NDArray[np.float32]]
) -> None:
    options = ["-o", job.out, *OPTIONS, "--order", "both"]
    job.stop_at = ("swapped", 2 * K)
    assert job.run(*options) == 130
    job.stop_at = None
    assert job.run(*options) == 0
    assert job.done == {"given": PAIRS - 2 * K, "swapped": PAIRS - 2 * K}
    np.testing.assert_array_equal(distances(job), uninterrupted["both"])


@pytest.mark.parametrize("file", ["features.npz", "mu.npz", "job.json"])
def test_killed_while_a_file_is_put_into_place(
    job: ImageJob,
    uninterrupted: dict[str, NDArray[np.float32]],
    monkeypatch: pytest.MonkeyPatch,
    file: str,
) -> None:
    replace = Path.replace

    def stop(path: Path, target: Path) -> Path:
        if target == job.out / file:
            raise KeyboardInterrupt
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stop)
        assert job.run("-o", job.out, *OPTIONS) == 130
    assert file not in job.names()
    assert job.run("-o", job.out, *OPTIONS) == 0
    assert job.done == {} if file == "job.json" else "embed" not in job.done
    np.testing.assert_array_equal(distances(job), uninterrupted["given"])


def test_killed_before_anything_was_finished(job: ImageJob) -> None:
    job.stop_at = ("embed", 1)
    assert job.run("-o", job.out) == 130
    assert not job.out.exists()


@pytest.mark.parametrize("how", ["torn", "flipped"])
def test_a_damaged_record_is_made_again(job: ImageJob, how: str) -> None:
    job.stop_at = ("embed", 12)
    assert job.run("-o", job.out, *OPTIONS) == 130
    (segment,) = (job.out / "journal").glob("*.seg")
    raw = bytearray(segment.read_bytes())
    if how == "torn":
        del raw[-30:]
    else:
        raw[len(raw) // 2] ^= 4
    segment.write_bytes(raw)
    job.stop_at = None
    assert job.run("-o", job.out, *OPTIONS) == 0
    assert job.done["embed"] in (NUM_IMAGES - 10, NUM_IMAGES - 12), "one record, of two images"


def test_an_image_that_changes_is_embedded_anew(job: ImageJob) -> None:
    job.stop_at = ("embed", 12)
    assert job.run("-o", job.out, *OPTIONS) == 130
    change_crop(sorted(job.query.iterdir())[0])
    job.stop_at = None
    assert job.run("-o", job.out, *OPTIONS) == 0
    assert job.done["embed"] == NUM_IMAGES - 11


def test_a_machine_that_fails_while_scoring(
    job: ImageJob,
    uninterrupted: dict[str, NDArray[np.float32]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ask = FakeEngine.mu_many

    def fail(engine: FakeEngine, *images: Any, **options: Any) -> NDArray[np.float32]:
        if job.done["given"] == 2 * K:
            raise MachineError("no memory left")
        return ask(engine, *images, **options)

    with monkeypatch.context() as patch:
        patch.setattr(FakeEngine, "mu_many", fail)
        assert job.run("-o", job.out, *OPTIONS) == 3
    assert capsys.readouterr().err.endswith(": no memory left\n")
    assert job.names() == {".murank-batch", "features.npz"}
    assert job.run("-o", job.out, *OPTIONS) == 0
    assert job.done == {"given": PAIRS - 2 * K}
    np.testing.assert_array_equal(distances(job), uninterrupted["given"])


@pytest.mark.parametrize(
    "options",
    [
        ["--candidates", 2],
        ["--candidates", K, "--order", "both"],
        ["--no-mu"],
    ],
)
def test_an_unfinished_folder_of_another_job_is_refused(
    job: ImageJob, capsys: pytest.CaptureFixture[str], options: list[object]
) -> None:
    job.stop_at = ("given", 2 * K)
    assert job.run("-o", job.out, *OPTIONS) == 130
    job.stop_at = None
    capsys.readouterr()
    assert job.run("-o", job.out, *options) == 2
    err = capsys.readouterr().err
    assert "unfinished run of another job" in err
    assert ("--order" in err) == (options[0] == "--no-mu" or "both" in options)
    assert job.run("-o", job.out, *options, "--overwrite") == 0
    assert "embed" not in job.done
    assert ".murank-batch" not in job.names()


def test_files_of_others_in_an_unfinished_folder(
    job: ImageJob, capsys: pytest.CaptureFixture[str]
) -> None:
    job.stop_at = ("embed", 8)
    assert job.run("-o", job.out, *OPTIONS) == 130
    (job.out / "mine.txt").write_text("mine")
    (job.out / ".murank-0123456789abcdef-mu.npz").write_text("left by a killed process")
    job.stop_at = None
    assert job.run("-o", job.out, *OPTIONS) == 2
    assert "mine.txt" in capsys.readouterr().err
    assert job.run("-o", job.out, *OPTIONS, "--overwrite") == 0
    assert job.names() == {"features.npz", "mu.npz", "job.json", "mine.txt"}


def test_two_runs_do_not_share_a_folder(job: ImageJob, capsys: pytest.CaptureFixture[str]) -> None:
    write_files(job.out, {})
    code = (
        "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX); "
        "print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, job.out], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        other.stdout.readline()
        assert job.run("-o", job.out) == 2
        assert f"at work in {job.out}" in capsys.readouterr().err
        other.stdin.close()
    assert job.run("-o", job.out) == 0
