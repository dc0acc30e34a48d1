"""Units of work by Ray: each answered once, whatever ends."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from crew_work import Doubling, Maker, Numbers
from ray_nodes import add_node, cluster_of

from murank import InputError, MachineError
from murank.crew import Lost, RayActors, StalledError
from murank.crew import patience as _patience
from murank.jobs.engine_work import work_elsewhere
from murank.jobs.job_units import EmbedUnit
from murank.jobs.lazy_engine import LazyEngine

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own
UNITS = [Numbers((4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3)) for i in range(8)]
EVERYTHING = {value: 2 * value for unit in UNITS for value in unit.values}
ENGINE = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with cluster_of(2) as found:
        yield found


@pytest.fixture
def crews(cluster: Any) -> Iterator[Callable[[Any], RayActors]]:
    made: list[RayActors] = []

    def start(make: Any) -> RayActors:
        made.append(RayActors(make, cluster.address, on_gpus=True))
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


def done(log: Path) -> tuple[Counter[str], int]:
    """How often each unit was done, and by how many processes."""
    lines = [line.split(maxsplit=1) for line in log.read_text().splitlines()]
    return Counter(unit for _, unit in lines), len({worker for worker, _ in lines})


def test_two_nodes_share_the_units(crews: Any, tmp_path: Path) -> None:
    crew = crews(Maker(Doubling(tmp_path / "log", together=2)))
    assert crew.size == 2
    assert by_value(crew.answers(iter(UNITS))) == (EVERYTHING, {})
    assert done(tmp_path / "log") == (Counter(str(unit.values) for unit in UNITS), 2)
    assert list(crew.answers([])) == []
    assert by_value(crew.answers(UNITS[:1]))[0] == {0: 0, 1: 2, 2: 4, 3: 6}, "once more"


def test_an_actor_that_is_killed_costs_one_unit(crews: Any, tmp_path: Path) -> None:
    make = Maker(Doubling(tmp_path / "log", orphaned_once=(13,)))
    assert by_value(crews(make).answers(UNITS)) == (EVERYTHING, {})
    often, _ = done(tmp_path / "log")
    assert len(often) == len(UNITS)
    assert sum(often.values()) <= len(UNITS) + 1


def test_a_node_that_is_removed_costs_one_unit(crews: Any, cluster: Any, tmp_path: Path) -> None:
    crew = crews(Maker(Doubling(tmp_path / "log", pause=0.3, together=2)))
    answers = crew.answers(UNITS)
    first = [next(answers), next(answers)]
    # While both work: a node that has no actor yet costs nothing.
    cluster.remove_node(cluster.nodes_of_work.pop())
    try:
        assert by_value([*first, *answers]) == (EVERYTHING, {})
        often, _ = done(tmp_path / "log")
        assert len(often) == len(UNITS)
        assert sum(often.values()) <= len(UNITS) + 1
    finally:
        cluster.nodes_of_work.append(add_node(cluster))


def test_a_unit_that_ends_processes_is_split_until_the_culprit_is_known(
    crews: Any, tmp_path: Path
) -> None:
    found, lost = by_value(crews(Maker(Doubling(tmp_path / "log", kills=(6, 9)))).answers(UNITS))
    assert found == {k: v for k, v in EVERYTHING.items() if k not in (6, 9)}
    assert lost.keys() == {(6,), (9,)}
    assert "signal 9" in lost[(6,)].reason


def test_what_is_raised_there_is_raised_here(crews: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"7 is refused.*127\.0\.0\.1"):
        by_value(crews(Maker(Doubling(tmp_path / "log", refuses=(7,)))).answers(UNITS))


def test_a_node_without_the_engine(crews: Any, tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    folder.mkdir()
    manifest = folder / "manifest.json"
    manifest.write_bytes((ENGINE / "manifest.json").read_bytes())
    make = work_elsewhere(LazyEngine(folder, ["encoder"]), threads=1)
    manifest.unlink()
    with pytest.raises(InputError, match=r"engine.*127\.0\.0\.1") as raised:
        list(crews(make).answers([EmbedUnit((0,), ("a.png",))]))
    assert raised.value.exit_code == 2


def test_actors_that_hang_end_the_run(
    crews: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("AT_LEAST", 3), ("STARTING", 60), ("TIMES", 1)):
        monkeypatch.setattr(_patience, name, seconds)
    crew = crews(Maker(Doubling(tmp_path / "log", hangs=(13, 17))))
    with pytest.raises(StalledError, match="no worker has answered") as raised:
        by_value(crew.answers(UNITS))
    assert raised.value.exit_code == 1


def test_nobody_answers_there(tmp_path: Path) -> None:
    before = dict(os.environ)
    crew = RayActors(Maker(Doubling(tmp_path / "log")), "127.0.0.1:9", on_gpus=True)
    with pytest.raises(MachineError, match=r"127\.0\.0\.1:9"):
        list(crew.answers(UNITS))
    crew.close()
    assert dict(os.environ) == before
