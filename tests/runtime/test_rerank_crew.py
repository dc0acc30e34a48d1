"""Other processes find the neighbours: the same ranking to the byte, killed or not."""

import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from murank.cli import main
from murank.crew import Crew, Here, Make, Processes
from murank.rerank import resume
from murank.rerank.resume import resumable
from murank.rerank.strip_crew import StripSearch
from murank_kernels import ca_jaccard, ca_jaccard_blocks, k_reciprocal_blocks
from murank_kernels.tiles.strips import STRIP

NUM_QUERY, NUM_ROWS = 50, STRIP + 600


def features() -> NDArray[np.float32]:
    random = np.random.default_rng(0)
    people = random.standard_normal((NUM_ROWS // 20, 6)).astype(np.float32)
    rows = people[random.integers(0, len(people), NUM_ROWS)]
    rows += random.standard_normal(rows.shape).astype(np.float32) / 4
    return rows


def rerank(source: Path, out: Path, *options: object) -> Any:
    words = ["rerank", source, "--method", "k-reciprocal", "-o", out, "--quiet", *options]
    assert main([str(word) for word in words]) == 0
    summary = json.loads((out / "summary.json").read_text())
    del summary["seconds"]
    return (out / "ranking.npz").read_bytes(), summary


def test_two_processes_find_what_one_does(tmp_path: Path) -> None:
    file = tmp_path / "f.npz"
    pids = np.arange(NUM_ROWS) % 40
    np.savez(file, features=features(), num_query=np.array(NUM_QUERY), pids=pids, camids=pids % 3)
    wanted = rerank(file, tmp_path / "one", "--align-cameras", "off")
    assert rerank(file, tmp_path / "two", "--align-cameras", "off", "--workers", 2) == wanted


class EndedError(Exception):
    """This process is gone."""


class Dying(Processes):
    """One of the processes is killed after the first answer; this one is after the second."""

    def answers(self, units: Any) -> Any:
        answers = super().answers(units)
        yield next(answers)
        os.kill(self._hands[0].process.pid, signal.SIGKILL)
        yield next(answers)
        raise EndedError


class Counting(Here):
    """This process, told what it is asked."""

    asked: list[Any] = []  # noqa: RUF012

    def answers(self, units: Any) -> Any:
        for unit, answer in super().answers(units):
            self.asked.append(unit)
            yield unit, answer


def test_it_goes_on_with_the_strips_that_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "EVERY", 0.0)
    monkeypatch.setattr(resume, "_SHARE", 1e9)
    rows, cameras = features(), np.arange(NUM_ROWS) % 3
    wanted = ca_jaccard(rows, NUM_QUERY, cameras)

    def found(crew_of: Any) -> NDArray[np.float32]:
        with resumable(tmp_path / "out", lambda: "f", lambda _: None) as memory:
            search = StripSearch(crew_of, memory.part("strips"))
            return ca_jaccard_blocks(rows, NUM_QUERY, cameras, search=search).dense()

    with pytest.raises(EndedError):
        found(partial(Dying, size=2))
    np.testing.assert_array_equal(found(Counting), wanted)
    assert len(Counting.asked) == 1  # of three pairs of strips


def test_who_works_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    closed: list[int] = []

    class Watched(Here):
        def close(self) -> None:
            closed.append(1)

    def crew_of(make: Make) -> Crew:
        assert any(tmp_path.iterdir())
        return Watched(make)

    k_reciprocal_blocks(features()[:600], NUM_QUERY, search=StripSearch(crew_of)).dense()
    assert closed == [1]
    assert list(tmp_path.iterdir()) == []
