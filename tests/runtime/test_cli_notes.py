"""What the reader of results must know stands in `notes`, whichever verb wrote them."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from murank.cli import main
from murank_kernels.loops import compiling

ENGINE = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine"
RUN = ("--providers", "cpu", "--threads", "1", "--quiet")


def asked(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert main([*map(str, words)]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Crops of a sensor of 12 bits, in 16-bit files: two people by four cameras."""
    pytest.importorskip("onnxruntime")
    random = np.random.default_rng(0)
    for person in (1, 2):
        for camera in (1, 2, 3, 4):
            grey = random.integers(0, 4096, (64, 32)).astype(np.uint16)
            Image.fromarray(grey).save(tmp_path / f"{person:04d}_c{camera}.png")
    return tmp_path


def words_of(verb: str, images: Path) -> list[object]:
    first, *others = sorted(images.glob("*.png"))
    if verb == "search":
        options = ["--gallery", images, "--query", first, "--no-mu", "--method", "none"]
        return [verb, ENGINE, *options, "--json"]
    if verb == "bench":
        load = ["--candidates", 2, "--gallery-size", 4, "--duration", 0.1, "--warmup", 0]
        return [verb, ENGINE, "--images", images, *load, "--skip-cold", "--json", "-"]
    entries = [
        {"query": str(first), "candidate": str(one), "match": "Yes" if i < 3 else "No"}
        for i, one in enumerate(others)
    ]
    pairs = images / "pairs.json"
    pairs.write_text(json.dumps(entries))
    return [verb, ENGINE, "--pairs", pairs, "--eer", "--dry-run", "--json"]


@pytest.mark.parametrize("verb", ["search", "bench", "calibrate"])
def test_nearly_black_images(verb: str, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*words_of(verb, images), *RUN]
    (note,) = (text for text in asked(capsys, *words)["notes"] if "nearly black" in text)
    assert "0001_c" in note
    with_bits = asked(capsys, *words, "--bits", 12)
    assert not any("nearly black" in text for text in with_bits["notes"])


@pytest.mark.parametrize("workers", [(), ("--workers", 2)])
def test_nearly_black_images_of_a_job(
    workers: tuple[object, ...], images: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One note that names them and a flag, whichever process reads them."""
    (images / "query").mkdir()
    (images / "0001_c1.png").rename(images / "query" / "0001_c1.png")
    job = images / "job"
    where = ["--query", images / "query", "--gallery", images, "-o", job]
    assert main([*map(str, ["score", ENGINE, *where, *RUN, *workers])]) == 0
    notes = json.loads((job / "job.json").read_text())["notes"]
    (note,) = (text for text in notes if "nearly black" in text)
    assert note.startswith("8 images are like the first of these: ")
    assert re.search(r"000[12]_c[1-4]\.png has 16 bits a value.*, say how many \(--bits\)$", note)
    said = capfd.readouterr()
    assert said.err == f"murank: warning: {note}\n"
    assert note not in said.out


@pytest.mark.parametrize("verb", ["search", "bench", "calibrate"])
def test_limits_of_decoding_hold(
    verb: str, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_of(verb, images)
    assert main([*map(str, words), *RUN, "--decode-limits", "max_side=50"]) == 2
    assert "0001_c" in (said := capsys.readouterr().err)
    assert "a side of 50" in said


def test_pairs_of_junk_are_left_out(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two boxes of pid -1 are not one person, whatever the label says."""
    words = [*words_of("calibrate", images), *RUN, "--bits", 12]
    without = asked(capsys, *words)
    paths = [images / f"-1_c{camera}.png" for camera in (1, 2)]
    for path in paths:
        path.write_bytes((images / "0001_c1.png").read_bytes())
    file = images / "pairs.json"
    entries = json.loads(file.read_text())
    known = entries[0]["query"]
    for query, candidate, match in (
        (paths[0], paths[1], "Yes"), (known, paths[0], "No"), (paths[1], known, "No")
    ):  # fmt: skip
        entries.append({"query": str(query), "candidate": str(candidate), "match": match})
    file.write_text(json.dumps(entries))
    found = asked(capsys, *words)
    (note,) = set(found["notes"]) - set(without["notes"])
    assert note.startswith("3 pairs left out")
    for key in ("counts", "temperature", "threshold", "eer", "auc", "before", "after"):
        assert found[key] == without[key]


def test_without_images_there_is_nothing_to_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(ENGINE), "--bits", "12"]) == 2
    assert "--images" in capsys.readouterr().err
    assert main(["rerank", "f.npz", "--method", "none", "--bits", "12"]) == 2
    assert "--sheet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "is_said"), [([], True), (["--quiet"], False), (["--json"], False)]
)
def test_compiling_is_said_where_progress_is_shown(
    options: list[str], is_said: bool, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def compiles_twice(_args: object) -> int:
        for _ in range(2):
            compiling.compiling_begins()
            compiling._tell()  # as after a second
            compiling.compiling_ends()
        return 0

    monkeypatch.setattr("murank.cli.rerank.run", compiles_twice)
    assert main(["rerank", "f.npz", "--method", "none", *options]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert ["compiling" in line for line in lines] == [True] * is_said
    compiling._tell()  # nobody's verb any more
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("is_quiet", [False, True])
def test_a_note_is_shown_once(
    is_quiet: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was on standard error already is not in the table, too; in JSON all are."""
    random = np.random.default_rng(0)
    halves: dict[str, Any] = {
        f"{side}f": random.normal(size=(4, 3)).astype(np.float32) for side in "qg"
    }
    np.savez(tmp_path / "f.npz", **halves)
    words = ["rerank", str(tmp_path / "f.npz"), "--method", "none", "--kernels", "cpu"]
    assert main([*words, *["--quiet"] * is_quiet]) == 0
    said = capsys.readouterr()
    assert (said.out + said.err).count("took qf and gf as features") == 1
    assert main([*words, "--json"]) == 0
    assert capsys.readouterr().out.count("took qf and gf as features") == 1
