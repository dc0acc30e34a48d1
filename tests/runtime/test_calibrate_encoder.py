"""`murank calibrate` says what the encoder tells of the pairs that the MLLM was asked about."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from refusal import Refuse

from murank import Engine
from murank.cli import main
from murank.rerank.alignment import save_alignment
from murank_kernels import CameraAlignment

ENGINE = Path(__file__).parents[2] / "benchmarks" / "miniature" / "engine"
COUNT = 9
CAMIDS = np.arange(COUNT) % 3
PLACES = np.array([(q, c) for q in range(COUNT) for c in range(COUNT) if q != c])
SAME = np.random.default_rng(3).random(len(PLACES)) < 0.4
# Where batches of other sizes add up in another order, two of the pairs' distances may change
# places: one of so many comparisons.
ONE_SWAP = 2 / (SAME.sum() * (~SAME).sum())


def named(folder: Path, template: str) -> tuple[list[Path], list[object]]:
    """Write images, and the pairs of all of them."""
    pytest.importorskip("onnxruntime")
    random, paths = np.random.default_rng(0), []
    for number, camera in enumerate(CAMIDS.tolist(), start=1):
        pixels = random.integers(0, 256, (64, 32, 3), dtype=np.uint8)
        paths.append(folder / template.format(number, camera + 1))
        Image.fromarray(pixels).save(paths[-1])
    entries = [
        {"query": paths[q].name, "candidate": paths[c].name, "match": "Yes" if same else "No"}
        for (q, c), same in zip(PLACES.tolist(), SAME.tolist(), strict=True)
    ]
    (folder / "pairs.json").write_text(json.dumps(entries))
    pairs = ["--pairs", folder / "pairs.json", "--image-root", folder, "--eer", "--dry-run"]
    run = ["--providers", "cpu", "--threads", 1, "--quiet"]
    return paths, ["calibrate", ENGINE, *pairs, *run]


def asked(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert main([*map(str, words), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def embedded(paths: list[Path]) -> NDArray[np.float32]:
    engine = Engine.from_pretrained(ENGINE, providers="cpu", threads=1, parts=["encoder"])
    return engine.embed(paths)


def ref_auc(rows: NDArray[np.floating[Any]], kept: Any = slice(None)) -> Any:
    unit = rows.astype(np.float64) / np.linalg.norm(rows, axis=1, keepdims=True)
    distances, same = -(unit @ unit.T)[tuple(PLACES[kept].T)], SAME[kept]
    one, other = distances[same][:, None], distances[~same][None, :]
    return pytest.approx(((one < other) + 0.5 * (one == other)).mean(), abs=ONE_SWAP)


def ref_within(rows: NDArray[np.floating[Any]]) -> tuple[int, float]:
    """Matches beside others of the same query, one by one: how many, and the share in order."""
    unit = rows.astype(np.float64) / np.linalg.norm(rows, axis=1, keepdims=True)
    nearer = [
        unit[query] @ unit[match] > unit[query] @ unit[other]
        for (query, match), is_match in zip(PLACES.tolist(), SAME.tolist(), strict=True) if is_match
        for (again, other), too in zip(PLACES.tolist(), SAME.tolist(), strict=True)
        if again == query and not too
    ]  # fmt: skip
    return len(nearer), float(np.mean(nearer))


def test_beside_the_encoder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], refuse: Refuse
) -> None:
    paths, words = named(tmp_path, "{:04d}_c{}.png")
    rows = embedded(paths)
    found = asked(capsys, *words)
    beside = found["beside_encoder"]
    assert beside["mu"] == found["auc"]
    assert beside["encoder"] == ref_auc(rows)
    assert beside["aligned"] is None, "few images for auto"
    assert (beside["same"], beside["different"]) == (SAME.sum(), (~SAME).sum())

    fitted = CameraAlignment.fit(rows, CAMIDS, level="mean")
    expected = ref_auc(fitted.apply(rows, CAMIDS))
    beside = asked(capsys, *words, "--align-cameras", "mean")["beside_encoder"]
    assert beside["aligned"] == expected
    save_alignment(tmp_path / "a.npz", fitted)
    given = asked(capsys, *words, "--alignment", tmp_path / "a.npz")["beside_encoder"]
    assert given["aligned"] == expected

    assert main([*map(str, words)]) == 0
    text = capsys.readouterr().out
    within = found["beside_encoder"]["within"]
    compared, share = ref_within(rows)
    assert within["compared"] == compared
    assert within["encoder"] == pytest.approx(share, abs=2 / compared)
    assert ("tells less than the encoder" in text) == (within["mu"] < within["encoder"])
    (why,) = [note for note in found["notes"] if "not aligned" in note]
    assert text.splitlines().count(why) == 1
    other = CameraAlignment.fit(rows, CAMIDS, level="mean", encoder_sha256="ab" * 32)
    save_alignment(tmp_path / "other.npz", other)
    refuse(*words, "--alignment", tmp_path / "other.npz", names="other.npz")


def test_cameras_and_images_that_are_not_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], refuse: Refuse
) -> None:
    paths, words = named(tmp_path, "{}-{}.png")
    refuse(*words, "--align-cameras", "mean", names="camids")
    rows = embedded(paths)
    paths[3].write_bytes(b"no picture")
    kept = (PLACES != 3).all(axis=1)
    beside = asked(capsys, *words)["beside_encoder"]
    assert beside["encoder"] == ref_auc(rows, kept)
    assert beside["same"] + beside["different"] == kept.sum()
