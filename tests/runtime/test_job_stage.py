import os
from pathlib import Path

import numpy as np
import pytest

from murank.files.atomic import write_files
from murank.jobs.stage import file_stat, fingerprint, read_stage, stage_writer

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


def test_fingerprints_tell_arguments_apart() -> None:
    assert fingerprint("a", "b") == fingerprint("a", "b") != fingerprint("ab", "")
    assert fingerprint(["\udcff"]) != fingerprint(["?"])  # a file name that is no UTF-8


def test_what_changes_when_a_file_does(tmp_path: Path) -> None:
    file = tmp_path / "a"
    assert file_stat(file) is None
    assert file_stat(Path("a\0b")) is None
    file.write_bytes(b"12")
    status = file.stat()
    assert file_stat(file) == (2, status.st_mtime_ns, status.st_ctime_ns)
    other = tmp_path / "b"
    other.write_bytes(b"34")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(file)
    assert file_stat(file) != (2, status.st_mtime_ns, status.st_ctime_ns)
