"""`murank gallery`: a gallery's life on the command line, and what its verbs refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made_crops import draw
from refusal import refusing

from murank import Gallery, InputError, load_features
from murank.cli import main

ENGINE = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine"
RUN = ("--providers", "cpu", "--threads", 1)


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("crops")
    paths = [folder / f"{person}-{shot}.png" for person in range(3) for shot in range(2)]
    for number, path in enumerate(paths):
        draw(number // 2, number % 2, 0).save(path)
    return paths


def gallery(*words: object, code: int = 0) -> None:
    assert main(["gallery", *map(str, words)]) == code


def as_json(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> Any:
    capsys.readouterr()
    gallery(*words, "--json", code=code)
    return json.loads(capsys.readouterr().out)


def test_a_gallerys_life(
    tmp_path: Path, crops: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "g.db"
    # Images before, between and after the options.
    gallery("add", ENGINE, file, crops[0], "--camera", 1, crops[1], "--time", 10, crops[2], *RUN)
    table = tmp_path / "items.csv"
    table.write_text(
        "path;camera; time;track;id;subject;hat\n"
        f"{crops[3]};2;2026-11-29T18:00:00+01:00;t1;shot-3;guest;true\n"
        f"{crops[4]};2;20;t2;shot-4;;false\n{tmp_path / 'none.png'};2;20;t2;shot-5;;false\n"
        ";;;;;;\n",
        encoding="utf-16",
    )
    added = as_json(capsys, "add", ENGINE, file, "--items", table, *RUN)
    assert [one["status"] for one in added["items"]] == ["added", "added", "refused"]
    assert as_json(capsys, "stats", file)["rows"] == 5

    assert not as_json(
        capsys, "search", ENGINE, file, "--query", crops[2], "--since", "2h", "--until", "now",
        "--method", "none", *RUN,
    )["matches"]  # fmt: skip
    found = as_json(
        capsys, "search", ENGINE, file, "--query", crops[2], "--attribute", "hat=true",
        "--since", "2026-11-29T00:00:00Z", "--method", "none", *RUN,
    )  # fmt: skip
    assert [one["id"] for one in found["matches"]] == ["shot-3"]
    gallery("search", ENGINE, file, "--id", "shot-3", "--cameras", "1,2", *RUN)
    assert "a person decides" in capsys.readouterr().out

    gallery("export", file, "-o", tmp_path / "rows.npz")
    assert len(load_features(tmp_path / "rows.npz", num_query=1).features) == 5
    with pytest.raises(InputError, match=r"num_query=, or .* murank gallery search"):
        load_features(tmp_path / "rows.npz")
    gallery("backup", file, "-o", tmp_path / "copy.db")
    gallery("import", tmp_path / "other.db", tmp_path / "rows.npz", "--engine", ENGINE)
    assert as_json(capsys, "stats", tmp_path / "other.db")["rows"] == 5

    assert as_json(capsys, "erase", file, "--subject", "guest")["rows"] == 1
    assert as_json(capsys, "purge", file, "--older-than", 15)["rows"] == 3
    found = as_json(capsys, "align", file)
    assert found["alignment"] == "off"
    assert "50 tracks" in found["why"]
    gallery("align", file)
    assert found["why"] in capsys.readouterr().out
    assert as_json(capsys, "purge", file, "--older-than", "now")["complete"]
    assert "no tracks" in as_json(capsys, "align", file)["why"]
    assert as_json(capsys, "verify", file)["clean"]
    assert as_json(capsys, "stats", tmp_path / "copy.db")["rows"] == 5


def test_a_deadline_is_not_for_a_processs_first_runs(
    tmp_path: Path, crops: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery("add", ENGINE, tmp_path / "g.db", *crops[:3], "--camera", 1, "--time", 10, *RUN)
    asked: list[Any] = []  # deadline and candidates
    search = Gallery.search

    def told(self: Gallery, *query: Any, **how: Any) -> Any:
        asked.append((how["deadline_ms"], how["candidates"]))
        return search(self, *query, **how)

    monkeypatch.setattr(Gallery, "search", told)
    wanted = ["search", ENGINE, tmp_path / "g.db", "--query", crops[4], *RUN]
    gallery(*wanted)
    assert asked.pop() == (None, 20)
    gallery(*wanted, "--deadline-ms", 60_000)
    *practice, last = asked
    assert last == (60_000, 20)
    assert len(practice) > 1
    assert all(deadline is None and count <= 4 for deadline, count in practice)


def test_damage_ends_with_4_and_is_named(
    tmp_path: Path, crops: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "g.db"
    gallery("add", ENGINE, file, *crops[:2], "--camera", 1, "--time", 10, "--keep", "none", *RUN)
    gallery("export", file, "-o", tmp_path / "rows.npz")
    feature = load_features(tmp_path / "rows.npz", num_query=1).features[0].tobytes()
    data = bytearray(file.read_bytes())
    data[data.index(feature[:64])] ^= 1
    file.write_bytes(data)
    found = as_json(capsys, "verify", file, code=4)
    assert len(found["damaged"]) == 1


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["add", ENGINE, "g.db", "a.png"], "--camera"),
        (["add", ENGINE, "g.db"], "--items"),
        (["add", ENGINE, "g.db", "a.png", "--items", "b.csv"], "--items"),
        (["add", ENGINE, "g.db", "--items", "none.csv"], "none.csv"),
        (["add", ENGINE, "g.db", "a.png", "--camera", 1, "--time", "noon"], "--time"),
        (["add", ENGINE, "g.db", "a.png", "--camera", 1, "--time", 0, "--drop-oldest"],
         "--max-rows"),
        (["add", "file", "g.db", "a.png", "--camera", 1, "--time", 0], "ENGINE"),
        (["add", ENGINE, "g.db", "a.png", "--colour", "red"], "murank gallery add --help"),
        (["search", ENGINE, "g.db"], "--query"),
        (["search", ENGINE, "g.db", "--query", "a.png"], "g.db"),
        (["search", ENGINE, "g.db", "--id", "a", "--query", "a.png"], "--query"),
        (["search", "file", "g.db", "--id", "a"], "ENGINE"),
        (["search", "g.db", "--id", "a"], "FILE"),
        (["erase", "g.db"], "--subject"),
        (["erase", "g.db", "--id", "a"], "g.db"),
        (["stats", "file"], "file"),
        (["stats", "."], "folder"),
        (["backup", "g.db"], "--output"),
        (["purge", "g.db", "--cache-dir", "c"], "--engine"),
        (["reembed", "file", "g.db"], "ENGINE"),
        (["nothing", "g.db"], "nothing"),
    ],
)  # fmt: skip
def test_what_cannot_be(
    words: list[object], names: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("no gallery")
    refusing(tmp_path, capsys)("gallery", *words, names=names)
