"""What is asked: images nobody has seen, candidates that are all different."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from murank import InputError
from murank.bench.bench_settings import BenchSettings
from murank.bench.workload import (
    NewQueries,
    gallery_features,
    given_workload,
    made_workload,
    random_features,
)
from murank.engine.memory_cache import content_key
from murank.images import load_image

SMALL = BenchSettings(candidates=5, gallery_size=300)


def key(path: Path) -> str:
    return content_key(np.asarray(load_image(path)))


def near(rows: NDArray[np.float32], length: float, seed: int) -> NDArray[np.float32]:
    noise = np.random.default_rng(seed).standard_normal(rows.shape).astype(np.float32)
    moved = rows + length * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    found: NDArray[np.float32] = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    return found


@pytest.mark.parametrize(
    ("candidates", "size"), [(20, 1000), (20, 10_000), (50, 60), (1, 1), (10, 65), (20, 85)]
)
def test_the_candidates_of_a_query_are_different_images(candidates: int, size: int) -> None:
    settings = BenchSettings(candidates=candidates, gallery_size=size)
    asked = random_features(settings.asked, 64, seed=1)
    gallery = gallery_features(asked, settings.pool, settings)
    assert gallery.shape == (size, 64)
    assert gallery.dtype == np.float32
    assert np.linalg.norm(gallery, axis=1) == pytest.approx(1, abs=1e-5)
    for query in near(asked, 0.2, seed=2):
        nearest = np.argsort(-(gallery @ query), kind="stable")[:candidates]
        assert len(set((nearest % settings.pool).tolist())) == candidates


def test_cameras_are_those_of_the_images(tmp_path: Path) -> None:
    """Crops are made for six cameras in turn; those of a list are its own."""
    drawn = made_workload(tmp_path, SMALL)
    camids = drawn.camids(SMALL.gallery_size)
    assert camids is not None
    numbers = [int(path.stem.split("-")[1]) for path in drawn.gallery(SMALL.gallery_size)]
    assert camids.tolist() == [number % 6 for number in numbers]
    rows = [f"{path},1,{100 + place}" for place, path in enumerate(drawn.pool)]
    (tmp_path / "list.csv").write_text("\n".join(["path,pid,camid", *rows]) + "\n")
    given = given_workload(tmp_path / "list.csv", SMALL)
    assert given.camids(3) is not None
    for path, camid in zip(given.gallery(70), given.camids(70).tolist(), strict=True):  # type: ignore[union-attr]
        assert camid == 100 + drawn.pool.index(path)
    (tmp_path / "bare.csv").write_text("\n".join(["path", *(str(p) for p in drawn.pool)]) + "\n")
    assert given_workload(tmp_path / "bare.csv", SMALL).camids(3) is None


def test_galleries_are_reproducible() -> None:
    asked = random_features(SMALL.asked, 16, seed=1)
    one, same = (gallery_features(asked, SMALL.pool, SMALL) for _ in range(2))
    other = gallery_features(asked, SMALL.pool, replace(SMALL, seed=1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_zero_feature_makes_no_nan() -> None:
    gallery = gallery_features(np.zeros((1, 8), np.float32), 10, replace(SMALL, gallery_size=10))
    assert np.isfinite(gallery).all()


def test_made_images(tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    found = made_workload(tmp_path, SMALL, lambda *step: steps.append(step))
    assert len(found.pool) == SMALL.pool == 64
    assert len(found.asked) == SMALL.asked == 4
    assert len({key(path) for path in found.pool}) == 64
    assert all(path.read_bytes().startswith(b"\xff\xd8") for path in found.pool)  # JPEG
    assert steps[-1] == ("crops", 68, 68)
    gallery = found.gallery(300)
    assert len(gallery) == 300
    assert gallery[64] == gallery[0] == found.pool[0]


def test_no_query_was_seen_before(tmp_path: Path) -> None:
    asked = made_workload(tmp_path, SMALL).asked
    queries = NewQueries(tmp_path, asked, seed=0)
    keys = [key(path) for _ in range(70) for path in queries.take(1)]
    many = queries.take(100)
    assert len(set(many)) == 100
    keys += [key(path) for path in many]
    assert len(set(keys)) == 170
    # Yet it still shows the same person: the noise is small.
    (again,) = NewQueries(tmp_path, asked, seed=1).take(1)
    gap = np.abs(np.asarray(load_image(again), float) - np.asarray(asked[0], float))
    assert gap.mean() < 8


def test_queries_are_reproducible(tmp_path: Path) -> None:
    asked = made_workload(tmp_path, SMALL).asked
    first = [key(path) for path in NewQueries(tmp_path, asked, seed=3).take(9)]
    assert [key(path) for path in NewQueries(tmp_path, asked, seed=3).take(9)] == first


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for number in range(8):
        pixels = random.integers(0, 256, (12, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return tmp_path


def test_given_images(folder: Path) -> None:
    found = given_workload(folder, SMALL)
    assert len(found.asked) == 3  # 8, less the 5 that the candidates need
    assert len(found.pool) == 5
    shown = {content_key(np.asarray(image)) for image in found.asked}
    assert shown.isdisjoint(key(path) for path in found.pool)
    assert given_workload(folder, SMALL).pool == found.pool


def test_too_few_images(folder: Path) -> None:
    with pytest.raises(
        InputError, match="holds 8 images, and 8 candidates and a query are 9: pass"
    ):
        given_workload(folder, replace(SMALL, candidates=8))


def test_an_image_that_cannot_be_used(folder: Path) -> None:
    for path in folder.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"\.png is not a JPEG"):
        given_workload(folder, SMALL)
