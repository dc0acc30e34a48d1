"""`murank calibrate` refuses before it loads a graph: those of this engine could not be loaded."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_folder import make_engine
from refusal import Refuse

from murank.cli import main
from murank.engine.engine import Engine
from murank.files.atomic import sole_writer
from murank.folder.manifest import Calibration, manifest_bytes, read_manifest

Entry = dict[str, Any]


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def loaded(*_: Any, **__: Any) -> None:
        raise AssertionError("the engine was loaded")

    make_engine(tmp_path / "engine")
    monkeypatch.setattr(Engine, "from_pretrained", loaded)
    return tmp_path / "engine"


def entries(same: int, different: int) -> list[Entry]:
    return [
        {"query": f"q{i}.png", "candidate": "c.png", "match": "Yes" if i < same else "No"}
        for i in range(same + different)
    ]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    file = tmp_path / "pairs.json"
    file.write_text(json.dumps(entries(5, 300)))
    return file


def test_another_calibration_is_at_work(engine: Path, pairs: Path, refuse: Refuse) -> None:
    """Told before the engine is loaded; a dry run writes nothing, and may run beside it."""
    with sole_writer(engine):
        refuse("calibrate", engine, "--pairs", pairs, "--eer", names=engine)
        with pytest.raises(AssertionError, match="the engine was loaded"):
            main(["calibrate", str(engine), "--pairs", str(pairs), "--eer", "--dry-run"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fmr", "0"], "--fmr"),
        (["--fnmr", "1"], "--fnmr"),
        (["--fmr", "nan"], "--fmr"),
        (["--fmr", "x"], "--fmr"),
        (["--prior", "1.5"], "--prior"),
        (["--fmr", "0.1", "--eer"], "--eer"),
        (["--fnmr", "0.1", "--fmr", "0.1"], "not allowed with argument --fnmr"),
        (["--threads", "0"], "--threads"),
        (["--plot", "det.pdf"], "--plot"),
        (["--fmr", "0.005"], "300 pairs labelled No cannot tell whether FMR at most 0.5 % holds"),
        (["--fnmr", "0.1"], "5 pairs labelled Yes cannot tell whether FNMR at most 10 % holds: 30"),
    ],
)
def test_options_that_cannot_be(
    engine: Path, pairs: Path, refuse: Refuse, options: list[str], message: str
) -> None:
    refuse("calibrate", engine, "--pairs", pairs, *options, names=message)


def test_pairs_are_needed(engine: Path, refuse: Refuse) -> None:
    refuse("calibrate", engine, names="--pairs")
    refuse("calibrate", engine, "--pairs", "none.json", names="none.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (entries(0, 300), "no pair of the same person (Yes) is there; both kinds are needed"),
        (entries(300, 0), "no pair of two people (No) is there"),
        (entries(5, 299), "299 pairs labelled No cannot tell whether FMR at most 1 % holds: 300"),
        (2 * entries(5, 299), "299 pairs labelled No"),  # the same ones again are no more pairs
        ([*entries(5, 300), {**entries(5, 0)[0], "match": "No"}], "labelled both Yes and No"),
        ([], "at least one pair"),
    ],
)
def test_bad_pairs(engine: Path, pairs: Path, refuse: Refuse, content: Any, message: str) -> None:
    pairs.write_text(json.dumps(content))
    refuse("calibrate", engine, "--pairs", pairs, names=message)


def test_no_engine(tmp_path: Path, pairs: Path, refuse: Refuse) -> None:
    refuse("calibrate", tmp_path, "--pairs", pairs, names="manifest.json")


def test_an_encoder_alone(engine: Path, pairs: Path, refuse: Refuse) -> None:
    alone = replace(read_manifest(engine), scorer=None)
    (engine / "manifest.json").write_bytes(manifest_bytes(alone))
    refuse("calibrate", engine, "--pairs", pairs, names=engine)


def test_a_calibrated_engine(engine: Path, pairs: Path, refuse: Refuse) -> None:
    manifest = read_manifest(engine)
    record = Calibration(
        precision="fp16", temperature=1.5, exported_tau=1.0, threshold=0.2, target="eer",
        target_value=None, prior=0.5, fmr=0.1, fnmr=0.1, same_pairs=9, different_pairs=9,
        pairs_sha256="0" * 64, murank_version="0.1.0",
    )  # fmt: skip
    (engine / "manifest.json").write_bytes(manifest_bytes(replace(manifest, calibration=record)))
    refuse("calibrate", engine, "--pairs", pairs, names=engine)
    for option in ("--overwrite", "--dry-run"):
        with pytest.raises(AssertionError, match="the engine was loaded"):
            main(["calibrate", str(engine), "--pairs", str(pairs), option])


def test_a_plot_that_cannot_be_written(
    engine: Path, pairs: Path, tmp_path: Path, refuse: Refuse
) -> None:
    pytest.importorskip("matplotlib")
    plot = tmp_path / "det.png"
    plot.write_bytes(b"mine")
    refuse("calibrate", engine, "--pairs", pairs, "--plot", plot, names=plot)
    below = plot / "det.png"
    refuse("calibrate", engine, "--pairs", pairs, "--plot", below, names=plot)
    assert plot.read_bytes() == b"mine"


def test_a_plot_without_matplotlib(
    engine: Path,
    pairs: Path,
    tmp_path: Path,
    refuse: Refuse,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    plot = tmp_path / "det.png"
    refuse("calibrate", engine, "--pairs", pairs, "--plot", plot, code=3, names="plot")
    assert not plot.exists()
