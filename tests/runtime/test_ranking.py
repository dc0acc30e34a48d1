import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from murank import InputError, OutputError, Ranking, load_ranking, write_ranking


def make_ranking() -> Ranking:
    return Ranking(
        indices=np.array([[2, 0], [1, 2]]),
        distances=np.array([[0.25, 0.5], [0.125, 1]], np.float32),
        query_paths=np.array(["q/ä", "q/b"]),
        gallery_paths=np.array(["g/a", "g/b", "g/c"]),
        q_pids=np.array([1, 2]),
        g_pids=np.array([1, 2, 3]),
    )


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_npz_round_trip(tmp_path: Path) -> None:
    write_ranking(tmp_path / "out", make_ranking(), {"method": "x"})
    assert names(tmp_path / "out") == {"ranking.npz", "summary.json"}
    for place in (tmp_path / "out", tmp_path / "out" / "ranking.npz"):
        found, wanted = load_ranking(place), make_ranking()
        for name, value in vars(wanted).items():
            if value is None:
                assert getattr(found, name) is None
            else:
                np.testing.assert_array_equal(getattr(found, name), value)
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == {"method": "x"}


def test_jsonl_has_one_object_a_query(tmp_path: Path) -> None:
    write_ranking(tmp_path / "out", make_ranking(), {}, format="jsonl")
    lines = (tmp_path / "out" / "ranking.jsonl").read_text().splitlines()
    first, second = map(json.loads, lines)
    assert first == {
        "query": "q/ä",
        "query_index": 0,
        "candidates": [
            {"rank": 1, "corpus_id": 2, "path": "g/c", "distance": 0.25},
            {"rank": 2, "corpus_id": 0, "path": "g/a", "distance": 0.5},
        ],
    }
    assert second["query_index"] == 1
    assert [one["corpus_id"] for one in second["candidates"]] == [1, 2]
    with pytest.raises(InputError, match="format="):
        load_ranking(tmp_path / "out")


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    write_ranking(tmp_path / "a" / "b", make_ranking(), {})
    assert mode(tmp_path / "a") == mode(tmp_path / "a" / "b") == 0o700
    assert {mode(path) for path in (tmp_path / "a" / "b").iterdir()} == {0o600}


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"not empty; pass overwrite=True"):
        write_ranking(tmp_path, make_ranking(), {})
    assert names(tmp_path) == {"mine.txt"}


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    write_ranking(tmp_path, make_ranking(), {})
    assert names(tmp_path) == {"ranking.npz", "summary.json"}


def test_overwrite_replaces_our_files_alone(tmp_path: Path) -> None:
    write_ranking(tmp_path, make_ranking(), {"run": 1})
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / ".murank-0123456789abcdef-ranking.npz").write_text("left by a killed process")
    write_ranking(tmp_path, make_ranking(), {"run": 2}, format="jsonl", overwrite=True)
    assert names(tmp_path) == {"mine.txt", "ranking.jsonl", "summary.json"}
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert json.loads((tmp_path / "summary.json").read_text()) == {"run": 2}


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    for place in (tmp_path / "out", tmp_path / "out" / "below"):
        with pytest.raises(OutputError):
            write_ranking(place, make_ranking(), {}, overwrite=True)
    assert (tmp_path / "out").read_text() == "mine"


class Interrupted(BaseException):
    pass


def fail(*_args: Any, **_kwargs: Any) -> None:
    raise Interrupted


@pytest.mark.parametrize("step", ["savez", "fsync"])
def test_a_failure_midway_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(np if step == "savez" else os, step, fail)
    with pytest.raises(Interrupted):
        write_ranking(tmp_path / "a" / "out", make_ranking(), {})
    assert names(tmp_path) == set()


def test_a_failure_midway_keeps_the_old_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_ranking(tmp_path, make_ranking(), {"run": 1})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    calls: list[int] = []

    def second_fails(_descriptor: int) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", second_fails)
    with pytest.raises(OutputError, match="No space left"):
        write_ranking(tmp_path, make_ranking(), {"run": 2}, overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_summary_that_is_no_json_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_ranking(tmp_path / "out", make_ranking(), {"mAP": float("nan")})
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"indices": np.array([[2, 0], [1, 3]])}, r"indices in 0\.\.2"),
        ({"indices": np.array([[2, 0], [1, 1]])}, "twice"),
        ({"indices": np.zeros((2, 0), int), "distances": np.zeros((2, 0))}, "empty"),
        ({"distances": np.zeros((2, 3))}, "distances"),
        ({"g_pids": np.array([1, 2])}, "g_pids"),
    ],
)
def test_bad_rankings(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    arrays = {name: value for name, value in vars(make_ranking()).items() if value is not None}
    np.savez(tmp_path / "ranking.npz", **{**arrays, **changes})
    with pytest.raises(InputError, match=message):
        load_ranking(tmp_path)
