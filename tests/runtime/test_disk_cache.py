"""Vision tokens on disk: never another image's, for their owner alone, within their limits."""

import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from disk_cache_parts import (
    DTYPE,
    ENGINE,
    FOREIGN,
    KEY,
    OTHER,
    SECOND,
    SHAPE,
    THIRD,
    Place,
    held,
    values,
)
from disk_cache_parts import disk as disk
from disk_cache_parts import folder as folder
from disk_cache_parts import root as root

from murank import OutputError
from murank.engine.disk_cache import DiskCache


def test_what_is_put_on_disk_is_found_by_the_next_process(disk: DiskCache, root: Path) -> None:
    disk.put(KEY, values())
    for cache in (disk, DiskCache(root, ENGINE)):
        found = cache.get(KEY, SHAPE, DTYPE)
        assert found is not None
        assert found.dtype == DTYPE
        np.testing.assert_array_equal(found, values())
    assert held(disk, SECOND) == []


def test_half_precision_and_arrays_that_are_not_contiguous(disk: DiskCache) -> None:
    half = values().astype(np.float16).T
    disk.put(KEY, half)
    np.testing.assert_array_equal(np.asarray(disk.get(KEY, (3, 2), np.dtype("f2"))), half)


def test_a_file_under_another_images_name_is_missing_and_replaced(
    disk: DiskCache, folder: Path
) -> None:
    """As a restore may mix them."""
    disk.put(KEY, values(1))
    disk.put(SECOND, values(2))
    (folder / KEY).rename(folder / "aside")
    (folder / SECOND).rename(folder / KEY)
    (folder / "aside").rename(folder / SECOND)
    assert held(disk, KEY, SECOND) == []
    disk.put(KEY, values(3))
    np.testing.assert_array_equal(np.asarray(disk.get(KEY, SHAPE, DTYPE)), values(3))


def test_a_file_of_another_part_provider_shape_or_type_is_missing(
    disk: DiskCache, root: Path
) -> None:
    """All of these have the same name and the same number of bytes."""
    disk.put(KEY, values(), made_by=["CUDA", "CPU"])
    assert disk.get(KEY, SHAPE, DTYPE, made_by=["CUDA", "CPU"]) is not None
    assert disk.get(KEY, SHAPE, DTYPE, made_by=["CPU"]) is None
    assert disk.get(KEY, (3, 2), DTYPE, made_by=["CUDA", "CPU"]) is None
    assert disk.get(KEY, SHAPE, np.dtype(np.int32), made_by=["CUDA", "CPU"]) is None
    other = DiskCache(root, OTHER)
    assert other.get(KEY, SHAPE, DTYPE, made_by=["CUDA", "CPU"]) is None


@pytest.mark.parametrize(("shape", "dtype"), [((2, 4), "f4"), ((2, 3), "f2"), ((1, 3), "f4")])
def test_another_size_counts_as_missing(
    disk: DiskCache, shape: tuple[int, ...], dtype: str
) -> None:
    disk.put(KEY, values())
    assert disk.get(KEY, shape, np.dtype(dtype)) is None


def test_a_damaged_file_counts_as_missing(disk: DiskCache, folder: Path) -> None:
    disk.put(KEY, values())
    whole = (folder / KEY).read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 0x40
        (folder / KEY).write_bytes(changed)
        assert held(disk, KEY) == []
    for length in range(len(whole)):
        (folder / KEY).write_bytes(whole[:length])
        assert held(disk, KEY) == []
    (folder / KEY).write_bytes(whole + b"\0")
    assert held(disk, KEY) == []


@contextmanager
def masked(umask: int) -> Iterator[None]:
    before = os.umask(umask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_the_owner_may_look(tmp_path: Path, umask: int) -> None:
    with masked(umask):
        DiskCache(tmp_path / "a" / "b", ENGINE).put(KEY, values())
    (folder,) = (tmp_path / "a" / "b").iterdir()
    for path in (tmp_path / "a", tmp_path / "a" / "b", folder):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert [file.name for file in folder.iterdir()] == [KEY]  # nothing left aside
    assert stat.S_IMODE((folder / KEY).stat().st_mode) == 0o600


def test_a_folder_made_by_the_user_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / f"vision-{ENGINE[:16]}"
    folder.mkdir(mode=0o755)
    before = stat.S_IMODE(tmp_path.stat().st_mode)
    DiskCache(tmp_path, ENGINE)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(tmp_path.stat().st_mode) == before  # that is the user's own affair


def cache_dir(root: Path, _name: str) -> Path:
    return root


def folder_in_it(root: Path, name: str) -> Path:
    root.mkdir(parents=True)
    return root / name


def link(place: Path, foreign: Path) -> None:
    place.symlink_to(foreign)


def link_to_nothing(place: Path, foreign: Path) -> None:
    place.symlink_to(foreign / "nothing")


def file(place: Path, _foreign: Path) -> None:
    place.write_text("mine")


def fifo(place: Path, _foreign: Path) -> None:
    os.mkfifo(place)


@pytest.mark.parametrize("put", [link, link_to_nothing, file, fifo])
@pytest.mark.parametrize("where", [cache_dir, folder_in_it])
def test_what_is_no_folder_is_refused_and_left_alone(
    root: Path, tmp_path: Path, where: Place, put: Callable[[Path, Path], None]
) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir(mode=0o755)
    (foreign / KEY).write_text("mine")
    root.parent.mkdir()
    place = where(root, f"vision-{ENGINE[:16]}")
    put(place, foreign)
    with pytest.raises(OutputError, match=place.name):
        DiskCache(root, ENGINE)
    assert [(one.name, one.read_text()) for one in foreign.iterdir()] == [(KEY, "mine")]
    assert stat.S_IMODE(foreign.stat().st_mode) == 0o755


@pytest.mark.parametrize("whole", [False, True])
def test_a_link_that_comes_later_is_not_followed_either(
    disk: DiskCache, root: Path, folder: Path, tmp_path: Path, whole: bool
) -> None:
    foreign = tmp_path / "foreign"
    inside = foreign / folder.name if whole else foreign
    inside.mkdir(parents=True, mode=0o755)
    inside.chmod(0o755)
    (inside / KEY).write_text("mine")
    place = root if whole else folder
    place.rename(tmp_path / "former")
    place.symlink_to(foreign)
    disk.put(SECOND, values())
    assert held(disk, KEY, SECOND) == []
    for erase in (disk.clear, lambda: disk.forget(KEY)):
        with pytest.raises(OutputError, match="symlink"):
            erase()
    assert [one.name for one in inside.iterdir()] == [KEY]
    assert stat.S_IMODE(inside.stat().st_mode) == 0o755


def test_another_users_folder(root: Path, disk: DiskCache, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.put(KEY, values())
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    with pytest.raises(OutputError, match="another user"):
        DiskCache(root, ENGINE)
    with pytest.raises(OutputError, match="another user"):
        disk.clear()
    assert held(disk, KEY) == []
    monkeypatch.undo()
    assert held(disk, KEY) == [KEY]


def link_to_a_copy(place: Path) -> None:
    place.rename(place.parent / "copy")
    place.symlink_to("copy")


def become_fifo(place: Path) -> None:
    place.unlink()
    os.mkfifo(place)


@pytest.mark.parametrize("become", [link_to_a_copy, become_fifo])
def test_a_name_of_ours_that_is_no_file_is_missing_replaced_and_erased(
    disk: DiskCache, folder: Path, become: Callable[[Path], None]
) -> None:
    """Above all, nobody waits for the writer of a FIFO."""
    disk.put(KEY, values())
    become(folder / KEY)
    assert held(disk, KEY) == []
    disk.put(KEY, values())
    assert held(disk, KEY) == [KEY]
    assert stat.S_ISREG((folder / KEY).lstat().st_mode)
    become(folder / KEY)
    assert disk.forget(KEY)
    assert not os.path.lexists(folder / KEY)


def test_clear_deletes_our_files_and_no_others(disk: DiskCache, folder: Path) -> None:
    for key in (KEY, SECOND):
        disk.put(key, values())
    for name in (".0123456789abcdef", f".murank-0123456789abcdef-{KEY}"):
        (folder / name).write_bytes(b"left by a killed process")
    for name in FOREIGN:
        (folder / name).write_text("mine")
    (folder / THIRD).mkdir()
    disk.clear()
    assert sorted(one.name for one in folder.iterdir()) == sorted([*FOREIGN, THIRD])
    disk.put(KEY, values())
    assert held(disk, KEY) == [KEY]


def test_clear_of_one_engine_leaves_the_others(disk: DiskCache, root: Path) -> None:
    disk.put(KEY, values())
    other = DiskCache(root, "cd" * 32)
    other.put(KEY, values(1))
    other.clear()
    assert (held(disk, KEY), held(other, KEY)) == ([KEY], [])


def test_one_image_is_forgotten_with_what_a_killed_process_left_of_it(
    disk: DiskCache, folder: Path, root: Path
) -> None:
    """Also where another engine, or an earlier murank, kept it."""
    for key in (KEY, SECOND):
        disk.put(key, values())
    (folder / f".murank-0123456789abcdef-{KEY}").write_bytes(b"half")
    former = root / "vision-0123456789abcdef"
    former.mkdir()
    (former / KEY).write_bytes(b"former")
    assert (disk.forget(KEY), disk.forget(KEY)) == (True, False)
    assert [one.name for one in folder.iterdir()] == [SECOND]
    assert list(former.iterdir()) == []


def test_clear_when_the_folder_is_gone_and_when_a_file_stays(
    disk: DiskCache, folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.put(KEY, values())

    def refuse(*_arguments: object, **_options: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        for erase in (disk.clear, lambda: disk.forget(KEY)):
            with pytest.raises(OutputError, match="cannot clear"):
                erase()
    disk.clear()
    folder.rmdir()
    disk.clear()
    assert not disk.forget(KEY)
    root.rmdir()
    disk.clear()
    assert not disk.forget(KEY)
    disk.put(KEY, values())  # and it comes back
    assert held(disk, KEY) == [KEY]


def test_a_full_disk_is_no_reason_to_stop(
    disk: DiskCache, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    disk.put(KEY, values())
    assert list(folder.iterdir()) == []


def test_no_descriptor_stays_open(disk: DiskCache, folder: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    (folder / SECOND).mkdir()
    os.mkfifo(folder / THIRD)
    for _ in range(20):
        disk.put(KEY, values())
        assert held(disk, KEY, SECOND, THIRD) == [KEY]
    disk.forget(KEY)
    disk.clear()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_writers_side_by_side(disk: DiskCache, folder: Path) -> None:
    def work(_number: int) -> None:
        disk.put(KEY, values())
        found = disk.get(KEY, SHAPE, DTYPE)
        assert found is not None
        np.testing.assert_array_equal(found, values())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(200)))
    assert [one.name for one in folder.iterdir()] == [KEY]
