"""The layer itself: what is left of the killed is told from what others are working on."""

import errno
import os
import threading
from pathlib import Path

import pytest
from faults.everywhere import Command, check_every_step, coded
from faults.shim import KILLED, Shim, in_child

from murank import OutputError
from murank.files import exchange as _exchange
from murank.files.atomic import new_folder, sweep, write_files

LEFT = ".murank-0123456789abcdef-"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_several_files(tmp_path: Path) -> None:
    root = tmp_path / "work"
    write_files(root / "a", {"one": lambda file: file.write(b"1"), "old": lambda _: None})

    def write() -> None:
        both = {"one": lambda file: file.write(b"2" * 20_000), "two": lambda file: file.write(b"2")}
        write_files(root / "a", both, remove=["two"])

    check_every_step(Command(root, coded(write), most=40), tmp_path / "spare")


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool) -> None:
    root = tmp_path / "work"

    def cannot(*_paths: Path) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    def make(content: bytes) -> None:
        with new_folder(root / "a" / "engine", replace=True) as stage:
            (stage / "sub").mkdir()
            for name in ("seal", "one", "two"):
                with (stage / "sub" / name).open("wb") as file:
                    file.write(content)

    make(b"1")
    if not can_exchange:
        monkeypatch.setattr(_exchange, "rename_both", cannot)
    command = Command(
        root, coded(lambda: make(b"2")), seal="a/engine/sub/seal",
        kept=r"(?!)" if can_exchange else r"^a/\.murank-old-engine", most=40,
    )  # fmt: skip
    check_every_step(command, tmp_path / "spare")


def test_what_others_work_on_stays(tmp_path: Path) -> None:
    with new_folder(tmp_path / "other", replace=False) as stage:
        write_files(tmp_path, {"mine": lambda file: file.write(b"1")})
        assert stage.is_dir()
    assert names(tmp_path) == {"other", "mine"}


def test_what_the_killed_leave_goes(tmp_path: Path) -> None:
    for number in range(4):
        write = coded(lambda: write_files(tmp_path, {"a": lambda file: file.write(b"1")}))
        assert in_child(write, Shim(tmp_path, number, kill=True)).code == KILLED
        assert len(names(tmp_path)) <= 1  # of the last one alone
    sweep(tmp_path)
    assert names(tmp_path) == set()


def test_files_of_others_stay(tmp_path: Path) -> None:
    for name in (".murank-batch", ".murank-0123-a", ".murank-0123456789abcdeg-a", "a"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "aim").write_text("mine")
    (tmp_path / f"{LEFT}link").symlink_to(tmp_path / "aim")
    os.mkfifo(tmp_path / f"{LEFT}pipe")
    before = names(tmp_path)
    sweep(tmp_path)
    assert names(tmp_path) == before
    assert (tmp_path / "aim").read_text() == "mine"


def test_many_write_at_once(tmp_path: Path) -> None:
    """Whoever sweeps takes nothing from those who write."""
    failed: list[OutputError] = []

    def write(name: str) -> None:
        try:
            for _ in range(30):
                write_files(tmp_path, {name: lambda file: file.write(name.encode())})
        except OutputError as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(f"f{one}",)) for one in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        f"f{one}": f"f{one}".encode() for one in range(4)
    }
