"""What was hashed is what is used, whatever becomes of the folder meanwhile and afterwards."""

import fcntl
import gc
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from murank import InputError, MachineError, Searcher
from murank.cli import main
from murank.engine import engine as engine_module
from murank.engine.engine import Engine
from murank.folder.contents import EngineFiles
from murank.folder.integrity import check_engine
from murank.folder.manifest import read_manifest

pytest.importorskip("onnxruntime")
MINIATURE = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine"
# Asks once before the folder is changed, and afterwards about images that no cache knows.
ASKED = """
import subprocess, sys
import numpy as np
from murank import Engine
engine = Engine.from_pretrained(sys.argv[1], threads=1)
images = np.random.default_rng(0).integers(0, 256, (5, 80, 40, 3), dtype=np.uint8)
engine.mu(images[0], [images[1]])
if len(sys.argv) > 2:
    subprocess.run(sys.argv[2], shell=True, check=True, cwd=sys.argv[1])
for values in (engine.mu(images[2], list(images[3:])), engine.embed(images[2:])):
    print(values.tobytes().hex())
"""
CHANGES = {
    "cp": "for f in onnx/*; do head -c $(stat -c %s $f) /dev/zero > x; cp x $f; done",
    "truncated": "for f in onnx/*; do : > $f; done",
    "shorter": "for f in onnx/*; do truncate -s 4096 $f; done",
    "removed": "rm -r onnx prompt.safetensors",
}


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MINIATURE, tmp_path / "engine"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def answers(engine: Path, *change: str) -> list[str]:
    command = [sys.executable, "-c", ASKED, str(engine), *change]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr  # SIGBUS is -7
    return done.stdout.split()


def test_changed_in_place_while_it_runs(engine: Path) -> None:
    wanted = answers(MINIATURE)
    assert len(wanted) == 2
    everything = " ; ".join(f"({change})" for change in CHANGES.values())
    for change in (CHANGES["cp"], CHANGES["truncated"], everything):
        copy = Path(shutil.copytree(engine, engine.with_name("copy")))
        assert answers(copy, change) == wanted
        shutil.rmtree(copy)


@pytest.mark.parametrize(
    "name",
    [
        "onnx/encoder.onnx", "onnx/vision.onnx", "onnx/vision.onnx.data", "onnx/decoder.onnx",
        "onnx/decoder.onnx.data", "prompt.safetensors", "golden.safetensors", "parity.json",
    ],
)  # fmt: skip
def test_changed_between_check_and_load(
    engine: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def check(folder: Path, **options: Any) -> object:
        found = check_engine(folder, **options)
        content = bytearray((folder / name).read_bytes())
        content[-1] ^= 1
        (folder / name).write_bytes(content)
        return found

    monkeypatch.setattr(engine_module, "check_engine", check)
    with pytest.raises(InputError, match=Path(name).name.replace(".", r"\.")):
        Engine.from_pretrained(engine, providers="cpu", threads=1)


def test_golden_images_changed_after_the_check(engine: Path) -> None:
    manifest = check_engine(engine)
    (engine / "golden.safetensors").write_bytes(b"other")
    with pytest.raises(InputError, match=r"golden\.safetensors"):
        EngineFiles(engine, manifest).tensors("golden.safetensors")


def test_a_file_that_grew_is_not_read_to_its_end(engine: Path) -> None:
    manifest = read_manifest(engine)
    with (engine / "prompt.safetensors").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match=r"prompt\.safetensors"):
        EngineFiles(engine, manifest).read("prompt.safetensors")


def test_copies_are_private_and_go(engine: Path, place: Path) -> None:
    files = EngineFiles(engine, read_manifest(engine))
    with files.graph("onnx/vision.onnx") as own:
        (folder,) = place.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        for name in ("onnx/vision.onnx", "onnx/vision.onnx.data"):
            assert (folder / name).read_bytes() == (engine / name).read_bytes()
        assert own == folder / "onnx/vision.onnx"
        assert files.read_so_far == {"onnx/vision.onnx", "onnx/vision.onnx.data"}
    assert list(place.iterdir()) == []
    loaded = Engine.from_pretrained(engine, providers="cpu", threads=1)
    assert loaded.encoder is not None
    assert list(place.iterdir()) == []


def test_copies_of_a_failed_load_go(engine: Path, place: Path) -> None:
    (engine / "onnx/decoder.onnx.data").write_bytes(b"x" * 4533504)
    with pytest.raises(InputError, match=r"decoder\.onnx\.data"):
        Engine.from_pretrained(engine, providers="cpu", threads=1)
    assert list(place.iterdir()) == []


def test_what_killed_processes_left_is_swept(engine: Path, place: Path) -> None:
    dead, held = (place / f".murank-{digit * 16}-graph" for digit in "ab")
    for folder in (dead, held, place / "somebody-elses"):
        folder.mkdir()
        (folder / "decoder.onnx.data").write_bytes(b"")
    lock = os.open(held, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with EngineFiles(engine, read_manifest(engine)).graph("onnx/encoder.onnx"):
            pass
    finally:
        os.close(lock)
    assert sorted(place.iterdir()) == [held, place / "somebody-elses"]


@contextmanager
def most_bytes(count: int) -> Iterator[None]:
    """Let no file be larger, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_no_room_for_copies(engine: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with most_bytes(1 << 20), pytest.raises(MachineError, match="TMPDIR"):
        Engine.from_pretrained(engine, providers="cpu", threads=1)
    assert list(place.iterdir()) == []
    place.rmdir()
    tempfile.tempdir = str(place)
    assert main(["inspect", "--verify", "--quiet", str(engine)]) == 3
    assert "TMPDIR" in capsys.readouterr().err


def test_what_this_process_made_is_not_copied(engine: Path, place: Path) -> None:
    with EngineFiles(engine).graph("onnx/vision.onnx") as file:
        assert file == engine / "onnx/vision.onnx"
    assert list(place.iterdir()) == []


def test_external_data_that_is_not_listed(engine: Path) -> None:
    entries = dict(read_manifest(engine).files)
    del entries["onnx/vision.onnx.data"]
    files = EngineFiles(engine, replace(read_manifest(engine), files=entries))
    with (
        pytest.raises(InputError, match=r"vision\.onnx: .*manifest\.json does not list"),
        files.graph("onnx/vision.onnx"),
    ):
        pass
    with pytest.raises(InputError, match=r"vision\.onnx: .*manifest\.json does not list"):
        files.graph_files("onnx/vision.onnx")


def test_a_copy_in_use_is_not_swept(engine: Path, place: Path) -> None:
    files = EngineFiles(engine, read_manifest(engine))
    with files.graph("onnx/encoder.onnx") as first, files.graph("onnx/vision.onnx"):
        assert first.exists()
    assert list(place.iterdir()) == []


def test_sizes_alone_are_looked_at_where_that_is_asked_for(engine: Path, place: Path) -> None:
    place.chmod(0o500)  # nothing is copied
    image = np.full((64, 32, 3), 128, np.uint8)
    loaded = Engine.from_pretrained(engine, providers="cpu", threads=1, check="sizes")
    place.chmod(0o700)
    hashed = Engine.from_pretrained(engine, providers="cpu", threads=1)
    np.testing.assert_array_equal(loaded.mu(image, [image]), hashed.mu(image, [image]))
    assert (loaded.sha256, loaded.encoder_sha256) == (hashed.sha256, hashed.encoder_sha256)
    weights = engine / "onnx/vision.onnx.data"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    Engine.from_pretrained(engine, providers="cpu", threads=1, check="sizes")
    weights.write_bytes(content + b"more")
    with pytest.raises(InputError, match=weights.name):
        Engine.from_pretrained(engine, providers="cpu", threads=1, check="sizes")
    with pytest.raises(InputError, match="check"):
        Engine.from_pretrained(engine, check="nothing")  # type: ignore[arg-type]


def test_a_closed_engine_frees_its_graphs_and_says_so() -> None:
    images = list(np.random.default_rng(0).integers(0, 256, (4, 64, 32, 3), np.uint8))
    with Engine.from_pretrained(MINIATURE, providers="cpu", threads=1) as engine:
        searcher = Searcher.from_images(engine, images)
        searcher.search(images[0])
        sessions = [weakref.ref(one._session) for one in engine._sessions().values()]  # type: ignore[attr-defined]
    gc.collect()
    assert [one() for one in sessions] == [None] * 3
    for ask in (
        lambda: engine.embed(images), lambda: engine.mu(images[0], images), engine.__enter__,
        lambda: engine.rank(images[0], images), lambda: engine.predict([(images[0], images[1])]),
        lambda: searcher.search(images[1]), lambda: Searcher.from_images(engine, images),
    ):  # fmt: skip
        with pytest.raises(InputError, match="closed"):
            ask()
    engine.close()
    assert engine.providers == {}
