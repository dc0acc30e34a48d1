"""What the engine remembers of images: in memory within a budget, on disk for its owner alone."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from murank import OutputError
from murank.engine.cache import DiskCache, MemoryCache, content_key

SHAPE, DTYPE = (2, 3), np.dtype(np.float32)
ENGINE = "ab" * 32


def values(seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)


@pytest.fixture
def disk(tmp_path: Path) -> DiskCache:
    return DiskCache(tmp_path / "deep" / "cache", ENGINE)


@pytest.fixture
def folder(disk: DiskCache) -> Path:
    """Where `disk` keeps its files."""
    return disk._folder


def test_the_key_is_the_content() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 8, 4), dtype=np.uint8)
    key = content_key(image)
    assert content_key(image.copy()) == key
    assert content_key(np.asfortranarray(image)) == key  # not how it lies in memory
    assert content_key(image.reshape(3, 4, 8)) != key  # the same bytes
    image[2, 7, 3] ^= 1
    assert content_key(image) != key


def test_least_recently_used_goes_first() -> None:
    cache = MemoryCache(30)
    for key in "abc":
        cache.put(key, key.upper(), 10)
    assert cache.get("a") == "A"  # now the most recent
    cache.put("d", "D", 10)
    assert [cache.get(key) for key in "abcd"] == ["A", None, "C", "D"]
    assert cache.bytes == 30


def test_a_large_value_takes_the_place_of_several() -> None:
    cache = MemoryCache(30)
    for key in "abc":
        cache.put(key, key, 10)
    cache.put("d", "d", 15)
    assert [cache.get(key) for key in "abcd"] == [None, None, "c", "d"]
    assert cache.bytes == 25


def test_what_is_over_the_budget_alone_disturbs_nothing() -> None:
    cache = MemoryCache(30)
    cache.put("a", "a", 30)
    cache.put("b", "b", 31)
    assert (cache.get("a"), cache.get("b"), cache.bytes) == ("a", None, 30)
    nothing = MemoryCache(0)
    nothing.put("a", "a", 1)
    assert (nothing.get("a"), nothing.bytes) == (None, 0)


def test_a_key_put_again_counts_once() -> None:
    cache = MemoryCache(30)
    for size in (10, 25, 5):
        cache.put("a", size, size)
    cache.put("b", "b", 25)
    assert (cache.get("a"), cache.get("b"), cache.bytes) == (5, "b", 30)


def test_clear_forgets_and_starts_again() -> None:
    cache = MemoryCache(30)
    cache.put("a", "a", 20)
    cache.clear()
    assert (cache.get("a"), cache.bytes) == (None, 0)
    cache.put("b", "b", 30)
    assert cache.get("b") == "b"


def test_threads_keep_the_books_right() -> None:
    cache, budget = MemoryCache(1000), 1000

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        for step in range(2000):
            number = int(random.integers(60))
            found = cache.get(str(number))
            assert found in (None, number)
            cache.put(str(number), number, int(random.integers(1, 90)))
            assert step % 100 or cache.bytes <= budget + 90
            if number == 0:
                cache.clear()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    kept = cache._values
    assert cache.bytes == sum(size for _, size in kept.values()) <= budget


def test_what_is_put_on_disk_is_found_by_the_next_process(disk: DiskCache, tmp_path: Path) -> None:
    disk.put("k", values())
    again = DiskCache(tmp_path / "deep" / "cache", ENGINE)
    for cache in (disk, again):
        found = cache.get("k", SHAPE, DTYPE)
        assert found is not None
        assert found.dtype == DTYPE
        np.testing.assert_array_equal(found, values())
    assert disk.get("other", SHAPE, DTYPE) is None


def test_engines_do_not_share(disk: DiskCache, tmp_path: Path) -> None:
    disk.put("k", values())
    other = DiskCache(tmp_path / "deep" / "cache", "cd" * 32)
    assert other.get("k", SHAPE, DTYPE) is None
    other.put("k", values(1))
    other.clear()
    assert disk.get("k", SHAPE, DTYPE) is not None


def test_half_precision_and_arrays_that_are_not_contiguous(disk: DiskCache) -> None:
    half = values().astype(np.float16).T
    disk.put("k", half)
    found = disk.get("k", (3, 2), np.dtype(np.float16))
    np.testing.assert_array_equal(np.asarray(found), half)


@pytest.mark.parametrize(("shape", "dtype"), [((2, 4), "f4"), ((2, 3), "f2"), ((1, 3), "f4")])
def test_another_size_counts_as_missing(
    disk: DiskCache, shape: tuple[int, ...], dtype: str
) -> None:
    disk.put("k", values())
    assert disk.get("k", shape, np.dtype(dtype)) is None


def test_a_damaged_file_counts_as_missing_and_is_replaced(disk: DiskCache, folder: Path) -> None:
    disk.put("k", values())
    whole = (folder / "k").read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 0x40
        (folder / "k").write_bytes(changed)
        assert disk.get("k", SHAPE, DTYPE) is None
    for length in range(len(whole)):
        (folder / "k").write_bytes(whole[:length])
        assert disk.get("k", SHAPE, DTYPE) is None
    (folder / "k").write_bytes(whole + b"\0")
    assert disk.get("k", SHAPE, DTYPE) is None
    disk.put("k", values(1))
    np.testing.assert_array_equal(np.asarray(disk.get("k", SHAPE, DTYPE)), values(1))


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_the_owner_may_look(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        cache = DiskCache(tmp_path / "cache", ENGINE)
        cache.put("k", values())
    finally:
        os.umask(before)
    (folder,) = (tmp_path / "cache").iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [file.name for file in folder.iterdir()] == ["k"]  # nothing left aside
    assert stat.S_IMODE((folder / "k").stat().st_mode) == 0o600


def test_a_folder_made_by_the_user_is_closed(tmp_path: Path) -> None:
    """Nobody else may list or plant files, even where the folder was there before."""
    folder = tmp_path / f"vision-{ENGINE[:16]}"
    folder.mkdir(mode=0o755)
    DiskCache(tmp_path, ENGINE)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_clear_deletes_every_file(disk: DiskCache, folder: Path) -> None:
    for key in "abc":
        disk.put(key, values())
    (folder / ".0123456789abcdef").write_bytes(b"left by a killed process")
    disk.clear()
    assert list(folder.iterdir()) == []
    disk.put("a", values())
    assert disk.get("a", SHAPE, DTYPE) is not None


def test_clear_when_the_folder_is_gone_and_when_a_file_stays(disk: DiskCache, folder: Path) -> None:
    (folder / "strange").mkdir()
    with pytest.raises(OutputError, match="cannot clear"):
        disk.clear()
    (folder / "strange").rmdir()
    folder.rmdir()
    disk.clear()


@pytest.mark.parametrize("path", ["file", "file/below"])
def test_a_place_that_cannot_be_used(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"cannot use .*file.* as cache"):
        DiskCache(tmp_path / path, ENGINE)


def test_a_full_disk_is_no_reason_to_stop(
    disk: DiskCache, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    disk.put("k", values())
    assert list(folder.iterdir()) == []
    assert disk.get("k", SHAPE, DTYPE) is None


def test_writers_side_by_side(disk: DiskCache, folder: Path) -> None:
    def work(_number: int) -> None:
        disk.put("k", values())
        found = disk.get("k", SHAPE, DTYPE)
        assert found is not None
        np.testing.assert_array_equal(found, values())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(200)))
    assert [file.name for file in folder.iterdir()] == ["k"]
