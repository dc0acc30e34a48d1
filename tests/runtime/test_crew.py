"""Units of work in this process and in others: each answered once, whatever ends."""

import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from crew_work import Doubling, Maker, Numbers

from murank import InputError, MachineError
from murank.crew import Here, Lost, Processes, StalledError
from murank.crew import patience as _patience
from murank.crew import processes as _processes
from murank.crew.crew_protocol import BrokenWorkError

UNITS = [Numbers((4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3)) for i in range(6)]
EVERYTHING = {value: 2 * value for unit in UNITS for value in unit.values}


@pytest.fixture
def crews(tmp_path: Path) -> Iterator[Any]:
    made: list[Processes] = []

    def start(size: int = 2, *, ends: bool = False, fails: bool = False, **kinds: Any) -> Processes:
        make = Maker(Doubling(tmp_path / "log", **kinds), ends, fails)
        path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
        made.append(Processes(make, size, [{"PYTHONPATH": path}] * size))
        return made[-1]

    yield start
    for crew in made:
        crew.close()


def by_value(answers: Any) -> tuple[dict[int, int], dict[tuple[int, ...], Lost]]:
    """What was answered, each value once, and what was lost."""
    found: dict[int, int] = {}
    lost = {}
    for unit, answer in answers:
        if isinstance(answer, Lost):
            lost[unit.values] = answer
        else:
            assert not found.keys() & set(unit.values)
            found |= zip(unit.values, answer, strict=True)
    return found, lost


def lines(tmp_path: Path) -> list[str]:
    return (tmp_path / "log").read_text().splitlines()


def test_here_in_order_and_one_ahead(tmp_path: Path) -> None:
    begun = []

    class Noting(Doubling):
        def begin(self, unit: Numbers) -> int:
            begun.append(unit)
            return super().begin(unit)

    crew = Here(partial(Noting, tmp_path / "log"))
    answers = crew.answers(UNITS)
    assert next(answers) == (UNITS[0], (0, 2, 4, 6))
    assert begun == UNITS[:2]
    assert by_value(answers)[0] == {k: v for k, v in EVERYTHING.items() if k > 3}
    assert list(crew.answers([])) == []


def test_two_processes_share_the_units(crews: Any, tmp_path: Path) -> None:
    crew = crews(together=2)
    assert by_value(crew.answers(UNITS)) == (EVERYTHING, {})
    assert len({line.split()[0] for line in lines(tmp_path)}) == 2
    assert by_value(crew.answers(UNITS[:1]))[0] == {0: 0, 1: 2, 2: 4, 3: 6}, "they stay"
    assert len({line.split()[0] for line in lines(tmp_path)}) == 2
    hands = [hand.process for hand in crew._hands]
    crew.close()
    assert [process.returncode for process in hands] == [0, 0]


def test_nobody_is_started_for_nothing(crews: Any) -> None:
    crew = crews()
    assert list(crew.answers([])) == []
    assert crew._hands == []


def test_a_process_that_ends_costs_its_unit_only(crews: Any, tmp_path: Path) -> None:
    assert by_value(crews(kills_once=(5, 17)).answers(UNITS)) == (EVERYTHING, {})
    assert len(lines(tmp_path)) == len(UNITS), "nothing that was answered is done again"


@pytest.mark.parametrize("size", [1, 2])
def test_a_unit_that_ends_processes_is_split_until_the_culprit_is_known(
    crews: Any, size: int
) -> None:
    found, lost = by_value(crews(size, kills=(6, 9)).answers(UNITS))
    assert found == {k: v for k, v in EVERYTHING.items() if k not in (6, 9)}
    assert lost.keys() == {(6,), (9,)}
    assert "signal 9" in lost[(6,)].reason


def test_what_the_work_raises_is_raised(crews: Any) -> None:
    with pytest.raises(InputError, match="7 is refused"):
        by_value(crews(refuses=(7,)).answers(UNITS))
    with pytest.raises(BrokenWorkError, match="ZeroDivisionError"):
        by_value(crews(breaks=(7,)).answers(UNITS))


def test_what_the_system_refuses_the_work_ends_nobody(crews: Any) -> None:
    with pytest.raises(MachineError, match=r"a worker process: .*Input/output error"):
        by_value(crews(errs=(7,)).answers(UNITS))


def test_a_unit_that_could_not_be_sent_is_nobodys_fault(
    crews: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = Connection.send
    refused: list[object] = []

    def broken(connection: Any, what: object) -> None:
        if isinstance(what, Numbers) and len(refused) < 2:
            refused.append(what)
            raise BrokenPipeError
        send(connection, what)

    monkeypatch.setattr(Connection, "send", broken)
    assert by_value(crews(1).answers(UNITS)) == (EVERYTHING, {})
    assert len(refused) == 2


def test_what_cannot_be_started(crews: Any) -> None:
    with pytest.raises(InputError, match="it cannot be loaded"):
        by_value(crews(fails=True).answers(UNITS))
    with pytest.raises(MachineError, match=r"ended while it was loading \(exit 7\)"):
        by_value(crews(ends=True).answers(UNITS))


def test_workers_that_all_end_are_no_culprits(crews: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_processes, "_HOPELESS", 3)
    with pytest.raises(MachineError, match="3 worker processes ended one after the other"):
        by_value(crews(kills=tuple(EVERYTHING)).answers(UNITS))


def test_a_worker_that_hangs_ends_the_run(crews: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("AT_LEAST", 0.5), ("STARTING", 60), ("TIMES", 1)):
        monkeypatch.setattr(_patience, name, seconds)
    crew = crews(hangs=(13,))
    with pytest.raises(StalledError, match="no worker has answered") as raised:
        by_value(crew.answers(UNITS))
    assert raised.value.exit_code == 1
    assert crew._hands == []


def test_workers_end_with_whoever_started_them(crews: Any) -> None:
    crew = crews(1)
    answers = crew.answers(UNITS)
    next(answers)
    process = crew._hands[0].process
    os.kill(process.pid, signal.SIGINT)  # as a terminal sends it to all: the driver decides
    next(answers)
    crew._hands[0].connection.close()
    assert process.wait(20) == 0
