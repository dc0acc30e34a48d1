import argparse
import io
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from faults.covered import written

from murank import OutputError
from murank.cli.output import gathered_notes, notes, say_error
from murank.cli.progress import ProgressLine, progress_file


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_one_line_is_rewritten_and_cleared(clock: list[float]) -> None:
    terminal = Terminal()
    line = ProgressLine(terminal)
    show = line.part("ecn")
    for done in (10, 20):
        clock[0] += 1
        show("neighbours", done, 20)
    line.close()
    first, second = "ecn: neighbours 10/20", "ecn: neighbours 20/20, 10/s"
    assert terminal.getvalue() == f"\r{first}\r{second}\r{' ' * len(second)}\r"


def test_what_is_said_meanwhile_stands_on_a_line_of_its_own(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another thread says that kernels compile, and a warning that is logged."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    line = ProgressLine()
    show = line.part("ecn")
    clock[0] += 1
    show("neighbours", 10, 20)
    said = threading.Thread(target=say_error, args=("compiling",))
    said.start()
    said.join()
    clock[0] += 1
    show("neighbours", 20, 20)
    line.close()
    say_error("done")
    first, second = "ecn: neighbours 10/20", "ecn: neighbours 20/20, 10/s"
    cleared = [f"\r{one}\r{' ' * len(one)}\r" for one in (first, second)]
    assert terminal.getvalue() == f"{cleared[0]}compiling\n{cleared[1]}done\n"


def test_a_log_gets_a_line_now_and_then(clock: list[float]) -> None:
    log = io.StringIO()
    line = ProgressLine(log)
    show = line.part("mu", workers=2)
    for done in range(1, 31):
        clock[0] += 1
        show("pairs", 1000 * done, 30_000)
    line.close()
    assert log.getvalue().splitlines() == [
        "mu: 10,000/30,000 pairs, 1,000/s, 20 s left, 2 workers",
        "mu: 20,000/30,000 pairs, 1,000/s, 10 s left, 2 workers",
        "mu: 30,000/30,000 pairs, 1,000/s, 2 workers",
    ]


def test_what_was_known_before_is_no_speed_and_the_last_half_minute_counts(
    clock: list[float],
) -> None:
    log = io.StringIO()
    show = ProgressLine(log).part("embed")
    clock[0] = 10
    show("images", 5000, 10_000)  # most of it by an earlier run
    for second in range(1, 61):  # first slow, then fast
        clock[0] = 10 + second
        show("images", 5000 + (second if second <= 30 else 30 + 100 * (second - 30)), 10_000)
    first, *_, last = log.getvalue().splitlines()
    assert first == "embed: 5,000/10,000 images"
    assert last == "embed: 8,030/10,000 images, 100/s, 20 s left"


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_file_has_the_last_of_every_stage(clock: list[float], tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    with ProgressLine(quiet=True, file=file) as line:
        assert not file.exists()
        show = line.part("embed")
        for done in range(1, 101):
            clock[0] += 0.01
            show("images", done, 100)
        show = line.part("mu", workers=3)
        for done in (8, 16, 24):  # it is stopped, and the last half second is not lost
            clock[0] += 0.1
            show("pairs", done, 80)
    assert file.stat().st_mode & 0o777 == 0o600
    found = lines_of(file)
    assert all(line.pop("time").endswith("+00:00") for line in found)
    assert [(one["stage"], one["done"]) for one in found] == [
        ("embed", 1), ("embed", 51), ("embed", 100), ("mu", 24),
    ]  # fmt: skip
    assert found[1] == {
        "stage": "embed", "done": 51, "total": 100, "unit": "images", "rate": 100.0,
        "seconds_left": 0.5,
    }  # fmt: skip
    assert found[0]["rate"] is found[0]["seconds_left"] is None
    assert (found[-1]["rate"], found[-1]["workers"]) == (80.0, 3)
    with ProgressLine(quiet=True, file=file) as line:  # the next run goes on below
        line.part("embed")("images", 100, 100)
    assert len(lines_of(file)) == 5


@written("score --progress", "rerank --progress")
def test_a_full_disk_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, log = tmp_path / "p.jsonl", io.StringIO()
    written_bytes = os.write

    def full(descriptor: int, data: bytes) -> int:
        if b"200" in data:
            written_bytes(descriptor, data[:9])
            raise OSError(28, "No space left on device")
        return written_bytes(descriptor, data)

    with gathered_notes():
        with ProgressLine(log, file=file) as line:
            show = line.part("embed")
            monkeypatch.setattr(os, "write", full)
            for done in (100, 200, 300):
                show("images", done, done)
        (note,) = notes()
    assert str(file) in note
    assert log.getvalue().count(str(file)) == 1
    assert not log.getvalue().count("300")
    monkeypatch.undo()
    with ProgressLine(quiet=True, file=file) as line:  # a torn line does not spoil the next
        line.part("embed")("images", 400, 400)
    first, torn, last = file.read_text().splitlines()
    assert (json.loads(first)["done"], len(torn), json.loads(last)["done"]) == (100, 9, 400)


def test_which_file_it_may_be(tmp_path: Path) -> None:
    def asked(file: Path) -> Path | None:
        others = (tmp_path / "job", None, tmp_path / "s.png")
        return progress_file(argparse.Namespace(progress=str(file)), others)

    (tmp_path / "job").mkdir()
    (tmp_path / "mine.csv").write_text("path\na.jpg\n")
    (tmp_path / "empty").touch()
    (tmp_path / "link").symlink_to("elsewhere")
    os.mkfifo(tmp_path / "pipe")
    refused = (
        "job", "job/p.jsonl", "job/../s.png", "mine.csv", "link", "pipe", "no/folder/../../job/x",
        "mine.csv/p", "new/p.jsonl",
    )  # fmt: skip
    for name in refused:
        with pytest.raises(OutputError, match="--progress"):
            asked(tmp_path / name)
    for name in ("p.jsonl", "empty"):
        assert asked(tmp_path / name) == tmp_path / name
    assert progress_file(argparse.Namespace(progress=None), ()) is None
