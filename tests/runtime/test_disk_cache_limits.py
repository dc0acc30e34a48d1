"""How old and how large the cache of vision tokens may become."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from disk_cache_parts import (
    ENGINE,
    FOREIGN,
    KEY,
    SECOND,
    age,
    held,
    values,
)
from disk_cache_parts import disk as disk
from disk_cache_parts import folder as folder
from disk_cache_parts import root as root

from murank import InputError
from murank.engine.disk_cache import CacheLimits, DiskCache


def test_what_a_killed_writer_left_goes_at_the_next_start(
    disk: DiskCache, folder: Path, root: Path
) -> None:
    del disk
    old, young = (f".murank-{digit * 16}-{KEY}" for digit in "ab")
    for name in (old, young, *FOREIGN):
        (folder / name).write_text("half")
    for name in (old, *FOREIGN):
        age(folder / name, 1)
    DiskCache(root, ENGINE)
    assert sorted(one.name for one in folder.iterdir()) == sorted([young, *FOREIGN])


def test_the_largest_age(disk: DiskCache, folder: Path, root: Path) -> None:
    """Read: not at all; at the start: all engines' old files go."""
    former = root / "vision-0123456789abcdef"
    former.mkdir()
    for key in (KEY, SECOND):
        disk.put(key, values())
    (former / KEY).write_bytes(b"former")
    limits = CacheLimits(max_days=2.5)
    limited = DiskCache(root, ENGINE, limits)
    age(folder / KEY, 2.6)
    age(folder / SECOND, 2.4)
    age(former / KEY, 2.6)
    assert held(limited, KEY, SECOND) == [SECOND]
    DiskCache(root, ENGINE, limits)
    assert [one.name for one in folder.iterdir()] == [SECOND]
    assert list(former.iterdir()) == []


def test_the_largest_age_holds_while_a_process_writes(
    folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = DiskCache(root, ENGINE, CacheLimits(max_days=1))
    limited.put(KEY, values())
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 86400 * 1.02)
    limited.put(SECOND, values())
    assert [one.name for one in folder.iterdir()] == [SECOND]


def test_the_largest_size(root: Path, folder: Path) -> None:
    """Never beyond it, and no less than the share that is made free at once."""
    limited = DiskCache(root, ENGINE, CacheLimits(max_mb=1))
    large = np.zeros(8000, np.float32)  # 32 of them, and a bit
    start = time.time() - 1000
    for number in range(80):
        key = f"{number:064x}"
        limited.put(key, large)
        os.utime(folder / key, (start + number, start + number))
        size = sum(one.stat().st_size for one in folder.iterdir())
        assert size <= 1 << 20
        assert number < 33 or size >= (1 << 20) * 14 / 16
    left = sorted(int(one.name, 16) for one in folder.iterdir())
    assert left == list(range(80 - len(left), 80))  # the oldest went
    limited.put(KEY, np.zeros(300_000, np.float32))
    assert not (folder / KEY).exists()  # too large alone: nothing goes for it
    assert len(list(folder.iterdir())) == len(left)


def test_the_largest_size_at_the_start_is_of_all_engines(root: Path, folder: Path) -> None:
    former = root / "vision-0123456789abcdef"
    former.mkdir(parents=True)
    folder.mkdir(exist_ok=True)
    for number, place in enumerate([former / KEY, folder / KEY, former / SECOND]):
        place.write_bytes(bytes(400_000))
        age(place, 3 - number)
    DiskCache(root, ENGINE, CacheLimits(max_mb=1))
    assert not (former / KEY).exists()
    assert (folder / KEY).exists()
    assert (former / SECOND).exists()


def test_files_are_not_looked_at_for_every_one_that_is_written(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = DiskCache(root, ENGINE, CacheLimits(max_mb=1, max_days=30))
    looks, scan = [], os.scandir

    def counted(place: int) -> object:
        looks.append(place)
        return scan(place)

    monkeypatch.setattr(os, "scandir", counted)
    for number in range(1000):
        limited.put(f"{number:064x}", values())
    assert len(looks) <= 2  # 56 kB of 1 MiB: below a sixteenth


@pytest.mark.parametrize("limits", [{"max_mb": 0}, {"max_days": 0}, {"max_days": float("nan")}])
def test_limits_that_cannot_be(limits: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"cache_{next(iter(limits))}"):
        CacheLimits(**limits)  # type: ignore[arg-type]
