from pathlib import Path

import numpy as np
import pytest

from murank.files.atomic import write_files
from murank.jobs.stage import Parts, batches, fingerprint, read_stage, signature, stage_writer

RECORD = {"fingerprint": "f", "skipped": [[3, "why"]], "providers": {"encoder": ["CPU"]}}


def write(file: Path, **arrays: object) -> None:
    write_files(file.parent, {file.name: stage_writer(arrays, RECORD)})


def test_a_stage_is_read_as_it_was_written(tmp_path: Path) -> None:
    write(tmp_path / "s.npz", a=np.arange(3), b=np.empty((0, 4), np.float32), c=np.array(7))
    stage = read_stage(tmp_path / "s.npz")
    assert stage is not None
    assert stage.record == RECORD
    assert {name: array.shape for name, array in stage.arrays.items()} == {
        "a": (3,), "b": (0, 4), "c": (),
    }  # fmt: skip


@pytest.mark.parametrize("change", ["value", "dtype", "name", "record", "no record", "no digest"])
def test_a_stage_that_was_changed_is_none(tmp_path: Path, change: str) -> None:
    file = tmp_path / "s.npz"
    write(file, a=np.arange(3))
    with np.load(file) as archive:
        arrays = dict(archive)
    if change == "value":
        arrays["a"][0] = 9
    elif change == "dtype":
        arrays["a"] = arrays["a"].astype(np.uint64)
    elif change == "name":
        arrays["b"] = arrays.pop("a")
    elif change == "record":
        arrays["stage"] = np.array(str(arrays["stage"]).replace("why", "how"))
    else:
        arrays["stage"] = np.array("{}" if change == "no digest" else "[1]")
    np.savez(file, **arrays)
    assert read_stage(file) is None


@pytest.mark.parametrize("content", [None, b"", b"no archive", b"PK\x03\x04 and then nothing"])
def test_what_is_no_stage_is_none(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "s.npz").write_bytes(content)
    assert read_stage(tmp_path / "s.npz") is None


def test_parts_come_back_where_they_fit(tmp_path: Path) -> None:
    parts = Parts(["a", "b", "c"], tmp_path)
    assert parts.missing == [0, 1, 2]
    parts.save(2, {"x": np.array([4, 5])})
    parts.save(0, {"x": np.array([1])})
    assert Parts(["a", "b", "c"], tmp_path).missing == [1]
    assert Parts(["a", "b", "other"], tmp_path).missing == [1, 2]
    again = Parts(["a", "b", "c"], tmp_path)
    again.save(1, {"x": np.array([2, 3])})
    assert again.merged()["x"].tolist() == [1, 2, 3, 4, 5]


def test_parts_without_a_folder_are_in_memory(tmp_path: Path) -> None:
    parts = Parts(["a"])
    parts.save(0, {"x": np.array([1])})
    assert parts.missing == []
    assert list(tmp_path.iterdir()) == []


def test_batches_stay_inside_their_part() -> None:
    found = batches(11, part=4, batch=3, parts={2, 0})
    assert found == [(0, range(3)), (0, range(3, 4)), (2, range(8, 11))]
    assert batches(11, part=4, batch=3, parts=[]) == []


def test_fingerprints_tell_arguments_apart() -> None:
    assert fingerprint("a", "b") == fingerprint("a", "b") != fingerprint("ab", "")
    assert fingerprint(["\udcff"]) != fingerprint(["?"])  # a file name that is no UTF-8


def test_signatures(tmp_path: Path) -> None:
    file = tmp_path / "a"
    assert signature(file) is None
    assert signature(Path("a\0b")) is None
    file.write_bytes(b"12")
    status = file.stat()
    assert signature(file) == (str(file), 2, status.st_mtime_ns)
