"""As a user would: a checkpoint and an encoder to an engine, a folder of crops to a ranking."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_crops import draw
from PIL import Image
from random_checkpoint import make_encoder
from real_data import OSNET

from murank import Engine, load_features, load_mu, load_ranking
from murank.cli import main


@pytest.fixture(scope="module")
def engine(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("end_to_end")
    encoder = OSNET
    if not encoder.exists():
        pytest.importorskip("optimum", reason="needs the extra hf-encoders")
        encoder = folder / "vit"
        make_encoder(encoder)
    arguments = ["export", "--mllm", checkpoint("qwen2_vl"), "--encoder", encoder]
    arguments += ["--layout", "prefix_first", "--parity-pairs", "3", "-o", folder / "engine"]
    assert main([str(argument) for argument in [*arguments, "--quiet"]]) == 0
    return folder / "engine"


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six people, three cameras; one query each, in Market-1501 names."""
    root = tmp_path_factory.mktemp("crops")
    for folder in ("query", "bounding_box_test"):
        (root / folder).mkdir()
    for person in range(1, 7):
        draw(person, 1, 0).save(root / "query" / f"{person:04}_c1s1_000000_00.png")
        for camera in (1, 2, 3):
            name = f"{person:04}_c{camera}s1_000001_00.png"
            draw(person, camera, 1).save(root / "bounding_box_test" / name)
    (root / "bounding_box_test" / "0007_c2s1_000001_00.png").write_bytes(b"\x89PNG broken")
    return root


def test_crops_to_ranking(
    engine: Path, crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, sheet = tmp_path / "out", tmp_path / "sheet.png"
    job = ["score", engine, "--dataset", "market1501", "--root", crops, "--candidates", 4]
    job += ["--order", "both", "--providers", "cpu", "-o", out]
    method = ["--method", "k-reciprocal", "--k1", 5, "--k2", 2]
    ranked = ["rerank", out, *method, "-o", out, "--sheet", sheet]
    reports = []
    for words in (job, ranked):
        assert main([str(word) for word in [*words, "--json", "--quiet"]]) == 0
        reports.append(json.loads(capsys.readouterr().out))
    report, summary = reports
    assert [Path(one["path"]).name for one in report["skipped"]] == ["0007_c2s1_000001_00.png"]
    assert report["engine"]["providers"]["decoder"] == ["CPUExecutionProvider"]
    assert 0 < summary["metrics"]["before"]["mAP"] <= 1

    features = load_features(out / "features.npz")
    assert (features.num_query, features.num_gallery) == (6, 18)
    loaded = Engine.from_pretrained(engine, providers="cpu")
    wanted = loaded.embed([str(path) for path in features.paths])
    np.testing.assert_allclose(features.features, wanted, atol=1e-6)

    mu = load_mu(out / "mu.npz", out / "mu_swapped.npz")
    distance = np.linalg.norm(wanted[:6, None] - wanted[None, 6:], axis=2)
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :4]
    np.testing.assert_array_equal(mu.candidates, nearest)
    paths = features.gallery.paths
    for query in (0, 5):
        candidates = [str(paths[place]) for place in nearest[query]]
        found = loaded.mu(str(features.query.paths[query]), candidates, order="both")
        np.testing.assert_allclose(mu.mu[query], found, atol=1e-5)

    ranking = load_ranking(out)
    again = tmp_path / "again"
    fed = ["rerank", out / "features.npz", "--mu", out / "mu.npz", "--mu-swapped"]
    fed += [out / "mu_swapped.npz", *method, "-o", again]
    assert main([str(argument) for argument in [*fed, "--quiet"]]) == 0
    np.testing.assert_array_equal(load_ranking(again).indices, ranking.indices)
    with Image.open(sheet) as picture:
        assert picture.width > 600


def test_engine_is_verified_and_inspected(engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--verify", str(engine), "--quiet", "--providers", "cpu"]) == 0
    assert "scorer   ok" in capsys.readouterr().out
    assert main(["inspect", str(engine)]) == 0
    assert "prefix_first" in capsys.readouterr().out
