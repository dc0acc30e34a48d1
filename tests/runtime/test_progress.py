import io
import time

import pytest

from murank.cli.progress import ProgressLine


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
    text = "ecn: neighbours 10/20"
    assert terminal.getvalue() == (f"\r{text}\recn: neighbours 20/20\r{' ' * len(text)}\r")


def test_a_log_gets_a_line_now_and_then(clock: list[float]) -> None:
    log = io.StringIO()
    line = ProgressLine(log)
    show = line.part("ecn")
    for done in range(1, 31):
        clock[0] += 1
        show("neighbours", done, 30)
    line.close()
    assert log.getvalue().splitlines() == [f"ecn: neighbours {n}/30" for n in (10, 20, 30)]
