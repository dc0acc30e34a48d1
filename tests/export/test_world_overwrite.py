import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from murank import OutputError
from murank.datasets import load_dataset
from murank.files import exchange as _exchange
from murank_export.world import market
from murank_export.world.market import WorldSettings, write_world

LARGER = WorldSettings("mall", people=2, train_people=1, distractors=1, cameras=2, seen_by=2)
TINY = WorldSettings("mall", people=1, distractors=0, cameras=2, seen_by=2)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def nothing_drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on, drawing is a failure."""

    def draw(*_arguments: object) -> None:
        pytest.fail("a crop was drawn")

    return lambda: monkeypatch.setattr(market, "draw_crop", draw)


def test_a_world_is_replaced_when_told_to(tmp_path: Path) -> None:
    world = tmp_path / "world"
    write_world(world, LARGER)
    write_world(world, TINY, overwrite=True)
    write_world(tmp_path / "new", TINY)
    assert contents(world) == contents(tmp_path / "new")
    assert names(tmp_path) == ["new", "world"]


def test_a_world_stays_when_not(tmp_path: Path, nothing_drawn: Callable[[], None]) -> None:
    write_world(tmp_path / "world", TINY)
    before = contents(tmp_path)
    nothing_drawn()
    with pytest.raises(OutputError, match="world exists; pass --overwrite"):
        write_world(tmp_path / "world", TINY)
    assert contents(tmp_path) == before


def foreign_file(world: Path) -> None:
    world.write_text("mine")


def foreign_folder(world: Path) -> None:
    (world / "query").mkdir(parents=True)
    (world / "query" / "0001_c1s1_000001_00.jpg").write_text("mine")


def foreign_record(world: Path) -> None:
    world.mkdir()
    (world / "world.json").write_text('{"settings": {}, "images": {}}')


def broken_record(world: Path) -> None:
    world.mkdir()
    (world / "world.json").write_text("[")


def record_that_is_a_folder(world: Path) -> None:
    (world / "world.json").mkdir(parents=True)


def world_with_something_more(world: Path) -> None:
    write_world(world, TINY)
    (world / "features.npz").write_text("mine")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        foreign_file,
        foreign_folder,
        foreign_record,
        broken_record,
        record_that_is_a_folder,
        world_with_something_more,
    ],
)
def test_what_is_no_world_stays(
    tmp_path: Path, nothing_drawn: Callable[[], None], make: Callable[[Path], None], overwrite: bool
) -> None:
    make(tmp_path / "world")
    before = contents(tmp_path)
    nothing_drawn()
    message = "is a file; name a folder" if make is foreign_file else "holds something else"
    with pytest.raises(OutputError, match=message):
        write_world(tmp_path / "world", TINY, overwrite=overwrite)
    assert contents(tmp_path) == before


def test_an_empty_folder_may_be_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_world(Path(), TINY)
    assert len(load_dataset("market1501", tmp_path / "here").query.paths) == 2


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    for _ in range(2):
        write_world(tmp_path / "link", TINY, overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "world.json").is_file()
    assert names(tmp_path) == ["disk", "link"]


class Stopped(BaseException):
    """As an interrupt from the keyboard."""


def stop(_stage: str, done: int, _total: int) -> None:
    if done == 3:
        raise Stopped


def test_stopped_half_way_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        write_world(tmp_path / "a" / "b" / "world", TINY, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_stopped_half_way_leaves_the_older_world(tmp_path: Path) -> None:
    world = tmp_path / "world"
    write_world(world, LARGER)
    before = contents(tmp_path)
    with pytest.raises(Stopped):
        write_world(world, TINY, overwrite=True, progress=stop)
    assert contents(tmp_path) == before


def test_a_world_that_cannot_be_put_into_place_leaves_the_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = tmp_path / "world"
    write_world(world, TINY)
    rename = Path.rename

    def cannot(*_paths: Path) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    def refuse(path: Path, target: Path) -> Path:
        if path.name.endswith("-world") and not path.name.startswith(".murank-old"):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return rename(path, target)

    monkeypatch.setattr(_exchange, "rename_both", cannot)
    write_world(world, LARGER, overwrite=True)
    assert names(tmp_path) == ["world"]
    before = contents(tmp_path)
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OutputError, match=r"cannot write to .*world: Invalid cross-device"):
        write_world(world, TINY, overwrite=True)
    assert contents(tmp_path) == before
    assert names(tmp_path) == ["world"]


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OutputError, match=r"cannot write to .*world: No space left on device"):
        write_world(tmp_path / "world", TINY)
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_cannot_be_written_to(
    tmp_path: Path, nothing_drawn: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing_drawn()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="is not a writable folder"):
        write_world(tmp_path / "file" / "world", TINY)
    # The mode of a folder does not stop root.
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != tmp_path)
    for world in (tmp_path / "world", tmp_path / "new" / "world"):
        with pytest.raises(OutputError, match=rf"{tmp_path} is not a writable folder"):
            write_world(world, TINY)
    assert names(tmp_path) == ["file"]


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write to"):
        write_world(tmp_path / ("w" * 300), TINY)
    assert list(tmp_path.iterdir()) == []


def test_files_added_to_a_subfolder_are_not_lost(tmp_path: Path) -> None:
    settings = WorldSettings("mall", people=1, distractors=0, cameras=2, seen_by=2)
    write_world(tmp_path / "world", settings)
    notes = tmp_path / "world" / "query" / "notes.txt"
    notes.write_text("mine")
    with pytest.raises(OutputError, match="holds something else"):
        write_world(tmp_path / "world", settings, overwrite=True)
    assert notes.read_text() == "mine"
