"""A re-ranking that is killed goes on where it was, and its result is the same to the byte."""

import contextlib
import fcntl
import json
import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults.shim import KILLED, Ended, Shim, in_child

from murank import OutputError
from murank.cli import main
from murank.rerank import resume
from murank.rerank.resume import Memory, resumable, resume_folder

Say = Callable[[str], None]
NUM_QUERY, NUM_ROWS = 130, 1100


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save whenever asked; many small pieces of work."""
    monkeypatch.setattr(resume, "EVERY", 0.0)
    monkeypatch.setattr(resume, "_SHARE", 1e9)
    monkeypatch.setattr("murank_kernels.tiles.search._AT_ONCE", 1)  # of 6
    monkeypatch.setattr("murank_kernels.tiles.distance_blocks.BLOCK_BYTES", 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features with and without labels, and mu."""
    place = tmp_path_factory.mktemp("given")
    rng = np.random.default_rng(0)
    pids = rng.integers(0, 40, NUM_ROWS)
    people = rng.standard_normal((40, 12))
    features = (people[pids] + rng.standard_normal((NUM_ROWS, 12))).astype(np.float32)
    camids = rng.integers(0, 3, NUM_ROWS)
    count = np.array(NUM_QUERY)
    np.savez(place / "labels.npz", features=features, pids=pids, camids=camids, num_query=count)
    np.savez(place / "plain.npz", features=features, num_query=count)
    chosen = np.argsort(rng.random((NUM_QUERY, NUM_ROWS - NUM_QUERY)), axis=1)[:, :5]
    np.savez(place / "mu.npz", probs=rng.random(chosen.shape), gallery_indices=chosen)
    return place


def rerank(source: Path, out: Path, *options: object) -> int:
    words = ["rerank", source, "-o", out, "--json", "--method", *options]
    return main([str(word) for word in words])


def result(out: Path) -> tuple[bytes, dict[str, Any]]:
    summary = json.loads((out / "summary.json").read_text())
    del summary["seconds"]
    return (out / "ranking.npz").read_bytes(), summary


CASES: dict[str, Callable[[Path], list[object]]] = {
    "all steps": lambda at: [
        at / "labels.npz", "k-reciprocal", "--mu", at / "mu.npz", "--align-cameras", "pairs",
        "--align-dims", 6,
    ],
    "cameras": lambda at: [at / "labels.npz", "ca-jaccard", "--protocol", "cuhk03"],
        "no labels": lambda at: [at / "plain.npz", "ecn"],
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_kills_until_finished(
    case: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, *options = CASES[case](files)
    fresh, out = tmp_path / "fresh", tmp_path / "place" / "out"
    assert rerank(Path(str(source)), fresh, *options) == 0
    capsys.readouterr()
    out.parent.mkdir()
    kill_at = random.Random(case)  # noqa: S311
    ends: list[Ended] = []
    while not ends or ends[-1].code == KILLED:
        shim = Shim(out.parent, kill_at.randrange(20, 130), kill=True)
        ends.append(in_child(lambda: rerank(Path(str(source)), out, *options), shim))
        assert len(ends) < 60
    assert ends[-1].code == 0, ends[-1].err
    assert len(ends) > 1
    assert "goes on" in ends[-1].err
    assert result(out) == result(fresh)
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_killed_once_at_any_step(files: Path, tmp_path: Path) -> None:
    """Every step of the first savings, and the last ones, where results take their place."""
    out, options = tmp_path / "place" / "out", ["none", "--quiet"]
    source = files / "plain.npz"
    assert rerank(source, tmp_path / "fresh", *options) == 0
    out.parent.mkdir()
    whole = in_child(lambda: rerank(source, out, *options), Shim(out.parent))
    count = len(whole.steps)
    for at in (*range(0, 18, 2), *range(count - 14, count)):
        (out / "summary.json").unlink()
        (out / "ranking.npz").unlink()
        out.rmdir()
        killed = in_child(lambda: rerank(source, out, *options), Shim(out.parent, at, kill=True))
        assert killed.code == KILLED, at
        done = (out / "summary.json").exists()
        assert rerank(source, out, *options, *(["--overwrite"] if done else [])) == 0, at
        assert result(out) == result(tmp_path / "fresh"), at
        assert [path.name for path in out.parent.iterdir()] == ["out"], at


def test_a_full_disk_stops_nothing(files: Path, tmp_path: Path) -> None:
    out, options = tmp_path / "place" / "out", ["k-reciprocal"]
    source = files / "labels.npz"
    assert rerank(source, tmp_path / "fresh", *options, "--quiet") == 0
    out.parent.mkdir()
    for at in range(9):
        done = in_child(
            lambda: rerank(source, out, *options, "--overwrite"), Shim(resume_folder(out), at)
        )
        assert (done.code, done.err.count("cannot be gone on with")) == (0, 1), at
        assert result(out) == result(tmp_path / "fresh")
        assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_short_work_leaves_and_hashes_nothing(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "EVERY", 10.0)
    monkeypatch.setattr(resume, "fingerprint_of", None)
    monkeypatch.setattr(resume, "write_files", None)
    assert rerank(files / "labels.npz", tmp_path / "out", "k-reciprocal", "--quiet") == 0


def test_other_work_is_not_gone_on_with(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of another method, another parameter, another list length, features that changed."""
    changed = dict(np.load(files / "labels.npz"))
    changed["features"][7] *= -1
    np.savez(tmp_path / "changed.npz", **changed)
    first = files / "labels.npz"
    others: list[list[object]] = [
        [first, "ecn"], [first, "k-reciprocal", "--top-k", 9],
        [tmp_path / "changed.npz", "k-reciprocal"],
        [first, "k-reciprocal", "--mu", files / "mu.npz"],
    ]  # fmt: skip
    for number, (source, *options) in enumerate(others):
        out = tmp_path / f"place{number}" / "out"
        out.parent.mkdir()
        shim = Shim(out.parent, 60, kill=True)
        assert in_child(partial(rerank, first, out, "k-reciprocal"), shim).code == KILLED
        assert resume_folder(out).is_dir()
        capsys.readouterr()
        assert rerank(Path(str(source)), out, *options, "--overwrite") == 0
        assert "goes on" not in capsys.readouterr().err
        assert rerank(Path(str(source)), tmp_path / "fresh", *options, "--overwrite") == 0
        assert result(out)[0] == result(tmp_path / "fresh")[0]
        assert not resume_folder(out).exists()


def test_another_run_at_work_is_not_disturbed(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    folder = resume_folder(out)
    folder.mkdir(mode=0o700)
    lock = os.open(folder, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert rerank(files / "plain.npz", out, "none", "--quiet") == 2
    assert str(folder) in capsys.readouterr().err
    assert not out.exists()
    os.close(lock)
    assert rerank(files / "plain.npz", out, "none", "--quiet") == 0


def memory(place: Path, said: list[str], fingerprint: str = "f") -> Any:
    return resumable(place / "out", lambda: fingerprint, said.append)


STATE = {
    "a": np.arange(12.0).reshape(3, 4), "empty": np.empty((3, 0), np.int32),
    "one": np.array(5), "text": np.array("ä"),
}  # fmt: skip


def keep(place: Path) -> Path:
    """As an interrupted run leaves it."""
    with contextlib.suppress(KeyError), memory(place, []) as kept:
        kept.part("p").save(STATE)
        raise KeyError
    return resume_folder(place / "out") / "p.part"


def all_equal(found: dict[str, Any]) -> bool:
    return found.keys() == STATE.keys() and all(
        (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        and np.array_equal(found[name], array)
        for name, array in STATE.items()
    )


@pytest.mark.parametrize("name", ["o" * 240, "\udcff" * 200, "a b\n", ".", "in/../other", "/"])
def test_outputs_with_odd_names(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """All of it beside the output, or one sentence; no traceback."""
    place = tmp_path / "place" / "here"
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    code = rerank(files / "plain.npz", Path(name), "none", "--quiet")
    assert code == (2 if name == "/" else 0)
    assert name == "/" or (Path(name) / "summary.json").exists()
    left = [path.name for path in (*place.parent.iterdir(), *place.iterdir())]
    assert not [one for one in left if one.startswith(".murank")]


def test_a_link_to_an_output_is_the_same_output(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "round").symlink_to("round")
    assert resume_folder(tmp_path / "link") == resume_folder(tmp_path / "real")
    assert not resume.is_unfinished(tmp_path / "round")


def test_what_was_kept_is_had_again(tmp_path: Path) -> None:
    file = keep(tmp_path)
    assert file.stat().st_mode & 0o077 == 0
    assert file.parent.stat().st_mode & 0o077 == 0
    said: list[str] = []
    with memory(tmp_path, said) as kept:
        found = kept.part("p").load()
        assert kept.part("other").load() is None
    assert all_equal(found)
    assert len(said) == 1
    assert not file.parent.exists()


def test_damage_anywhere_is_as_if_nothing_were_there(tmp_path: Path) -> None:
    file = keep(tmp_path)
    whole = file.read_bytes()
    damaged = [whole[:cut] for cut in (0, 1, 40, len(whole) // 2, len(whole) - 1)] + [whole + b"x"]
    damaged += [
        whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        for place in range(0, len(whole), 7)
    ]
    for content in damaged:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        with memory(tmp_path, []) as kept:
            found = kept.part("p").load()
        assert found is None or all_equal(found)  # "=f8" is "<f8"
    file = keep(tmp_path)
    with memory(tmp_path, [], "another") as kept:
        assert kept.part("p").load() is None


@pytest.mark.parametrize("kind", ["file", "link", "foreign file"])
def test_what_is_not_ours_stays(tmp_path: Path, kind: str) -> None:
    folder, elsewhere = resume_folder(tmp_path / "out"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    if kind == "file":
        folder.write_text("mine")
    elif kind == "link":
        folder.symlink_to(elsewhere)
    else:
        folder.mkdir()
        (folder / "mine").write_text("mine")
    said: list[str] = []
    with memory(tmp_path, said) as kept:
        kept.part("p").save(STATE)
        kept.part("p").save(STATE)
    assert len(said) == (kind != "foreign file")
    assert list(elsewhere.iterdir()) == []
    assert kind != "file" or folder.read_text() == "mine"
    assert kind != "foreign file" or [path.name for path in folder.iterdir()] == ["mine"]


def test_two_that_began_at_once(tmp_path: Path) -> None:
    """The second to save goes on without."""
    said: list[str] = []
    with memory(tmp_path, said) as late:
        file = keep_open(tmp_path)
        late.part("p").save({"a": np.zeros(1)})
        assert len(said) == 1
        with pytest.raises(OutputError), memory(tmp_path, []):
            pass
        os.close(file)
    assert (resume_folder(tmp_path / "out") / "p.part").exists()


def keep_open(place: Path) -> int:
    keep(place)
    lock = os.open(resume_folder(place / "out"), os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def test_saving_takes_a_small_share_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(resume, "EVERY", 10.0)
    monkeypatch.setattr(resume, "_SHARE", 0.01)
    monkeypatch.setattr("murank.rerank.resume.time.monotonic", lambda: clock[0])

    def slow(*_: object) -> None:
        clock[0] += 0.5

    monkeypatch.setattr(resume, "write_files", slow)
    with memory(tmp_path, []) as kept:
        assert isinstance(kept, Memory)
        due = []
        for _ in range(1000):
            clock[0] += 1
            if kept.due():
                due.append(clock[0])
                kept.part("p").save(STATE)
    assert due[0] == 10
    assert np.diff(due).min() >= 50


def test_a_fingerprint_tells_arrays_apart() -> None:
    a, b = np.zeros((2, 3)), np.zeros((3, 2))
    prints = [
        resume.fingerprint_of({"k": 1}, {"x": a}), resume.fingerprint_of({"k": 2}, {"x": a}),
        resume.fingerprint_of({"k": 1}, {"x": b}), resume.fingerprint_of({"k": 1}, {"y": a}),
        resume.fingerprint_of({"k": 1}, {"x": a, "y": None}),
        resume.fingerprint_of({"k": 1}, {"x": a.astype(np.float32)}),
    ]  # fmt: skip
    assert len(set(prints)) == len(prints)
    assert resume.fingerprint_of({"k": 1}, {"x": np.zeros((3, 2)).T}) == prints[0]
