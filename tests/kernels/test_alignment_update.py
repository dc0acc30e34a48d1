"""Means that follow what the cameras see, and an alignment on disk."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from murank_kernels import CameraAlignment, InvalidInputError

EPS = float(np.finfo(np.float32).eps)
SHA = "ab" * 32
RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((300, 12)).astype(np.float32)
CAMIDS = RNG.integers(4, size=300)


def fitted(level: Any = "pairs", **settings: Any) -> CameraAlignment:
    return CameraAlignment.fit(ROWS, CAMIDS, level=level, **settings)


@pytest.mark.parametrize("chunks", [1, 3, 200])
def test_rows_one_after_another_are_all_rows(chunks: int) -> None:
    alignment = CameraAlignment.fit(ROWS[:100], CAMIDS[:100], level="mean")
    for part in np.array_split(np.arange(100, 300), chunks):
        assert alignment.update(ROWS[part], CAMIDS[part]) is alignment
    np.testing.assert_allclose(
        alignment.apply(ROWS, CAMIDS), fitted("mean").apply(ROWS, CAMIDS), rtol=0, atol=64 * EPS
    )
    np.testing.assert_array_equal(alignment.counts, np.bincount(CAMIDS))


@pytest.mark.parametrize("chunks", [1, 3, 200])
def test_half_life(chunks: int) -> None:
    """One row at a time: what is known fades by the same share with each row of the camera."""
    alignment, half_life, prior = fitted("mean", prior=5), 7.0, 5
    unit = ROWS.astype(np.float64) / np.linalg.norm(ROWS, axis=1, keepdims=True)
    sums = np.stack([unit[camera == CAMIDS].sum(axis=0) for camera in range(4)])
    counts = np.bincount(CAMIDS).astype(float)
    more, cameras = RNG.standard_normal((200, 12)), RNG.integers(4, size=200)
    for row, camera in zip(more, cameras, strict=True):
        sums[camera] = sums[camera] * 0.5 ** (1 / half_life) + row / np.linalg.norm(row)
        counts[camera] = counts[camera] * 0.5 ** (1 / half_life) + 1
    for part in np.array_split(np.arange(200), chunks):
        alignment.update(more[part], cameras[part], half_life=half_life)
    np.testing.assert_allclose(alignment.counts, counts, rtol=1e-12)
    common = sums.sum(axis=0) / counts.sum()
    offsets = (sums + prior * common) / (counts[:, None] + prior)
    expected = unit - offsets[CAMIDS]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(alignment.apply(ROWS, CAMIDS), expected, rtol=0, atol=64 * EPS)


@pytest.mark.parametrize("half_life", [None, 7.0])
def test_rows_of_unknown_cameras_are_passed_over(half_life: float | None) -> None:
    with_unknown, without = fitted("mean"), fitted("mean")
    more, cameras = RNG.standard_normal((90, 12)), RNG.integers(-2, 6, size=90)
    with_unknown.update(more, cameras, half_life=half_life)
    known = cameras >= 0
    without.update(more[known], cameras[known], half_life=half_life)
    assert with_unknown.camids.tolist() == without.camids.tolist() == list(range(6))
    np.testing.assert_allclose(with_unknown.counts, without.counts, rtol=1e-12)
    np.testing.assert_allclose(
        with_unknown.apply(ROWS, CAMIDS), without.apply(ROWS, CAMIDS), rtol=0, atol=64 * EPS
    )
    with_unknown.update(more[:3], [-1, -1, -5], half_life=half_life)
    np.testing.assert_allclose(with_unknown.counts, without.counts, rtol=1e-12)


def test_a_new_camera_is_learnt() -> None:
    alignment = fitted("mean")
    alignment.update(ROWS[:50], np.full(50, 77))
    assert alignment.camids.tolist() == [0, 1, 2, 3, 77]
    assert not np.array_equal(alignment.apply(ROWS[:3], [77] * 3), alignment.apply(ROWS[:3]))


def test_directions_stay() -> None:
    alignment = fitted(dims=5)
    before = alignment.apply(ROWS, CAMIDS)
    alignment.update(ROWS, CAMIDS)  # the same rows again: the same means
    np.testing.assert_allclose(alignment.apply(ROWS, CAMIDS), before, rtol=0, atol=0.05)
    assert (alignment.level, alignment.dims) == ("pairs", 5)


def test_updates_from_several_threads_are_all_counted() -> None:
    alignment = fitted("mean")
    threads = [
        threading.Thread(target=lambda: [alignment.update(ROWS[:5], CAMIDS[:5]) for _ in range(20)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert alignment.counts.sum() == len(ROWS) + 4 * 20 * 5


@pytest.mark.parametrize("settings", [{}, {"dims": 5}, {"level": "mean"}])
def test_saved_and_loaded(settings: Any, tmp_path: Path) -> None:
    alignment = fitted(**settings, encoder_sha256=SHA)
    file = tmp_path / "cameras.npz"
    alignment.save(file)
    assert [path.name for path in tmp_path.iterdir()] == ["cameras.npz"]
    loaded = CameraAlignment.load(file, encoder_sha256=SHA)
    np.testing.assert_array_equal(loaded.apply(ROWS, CAMIDS), alignment.apply(ROWS, CAMIDS))
    assert (loaded.level, loaded.dim, loaded.dims) == (alignment.level, 12, alignment.dims)
    assert loaded.encoder_sha256 == SHA
    assert loaded.pairs.shape == (0, 2)
    again = CameraAlignment.from_arrays(alignment.to_arrays(), "arrays")
    np.testing.assert_array_equal(again.apply(ROWS, CAMIDS), alignment.apply(ROWS, CAMIDS))
    with pytest.raises(InvalidInputError, match="arrays"):
        CameraAlignment.from_arrays({}, "arrays")
    loaded.update(ROWS, CAMIDS)
    alignment.update(ROWS, CAMIDS)
    np.testing.assert_array_equal(loaded.apply(ROWS, CAMIDS), alignment.apply(ROWS, CAMIDS))


@pytest.mark.parametrize("stored", [None, "cd" * 32])
def test_another_encoders(stored: str | None, tmp_path: Path) -> None:
    fitted(encoder_sha256=stored).save(tmp_path / "a.npz")
    with pytest.raises(InvalidInputError, match="encoder"):
        CameraAlignment.load(tmp_path / "a.npz", encoder_sha256=SHA)
    assert CameraAlignment.load(tmp_path / "a.npz").encoder_sha256 == stored


def stored_arrays(folder: Path) -> dict[str, NDArray[Any]]:
    fitted(dims=5).save(folder / "a.npz")
    with np.load(folder / "a.npz") as file:
        return dict(file)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("version", np.array(2)), ("version", np.array([1, 1])), ("level", np.array("best")),
        ("level", np.array(1)), ("camids", np.arange(4)[::-1]), ("camids", np.arange(5)),
        ("camids", np.arange(-1, 3)), ("camids", np.zeros(4)), ("counts", np.zeros(4)),
        ("counts", np.full(4, np.nan)), ("sums", np.zeros(12)), ("sums", np.zeros((0, 12))),
        ("sums", np.full((4, 12), np.inf)), ("sums", np.full((4, 12), "x")),
        ("matrix", np.zeros((11, 5))), ("matrix", np.zeros((12, 0))), ("matrix", np.zeros(12)),
        ("matrix", np.array(1.0)), ("prior", np.array(-1.0)), ("prior", np.array(np.nan)),
        ("encoder_sha256", np.array(3)), ("camids", np.array([None] * 4)),
    ],
)  # fmt: skip
def test_damaged(name: str, value: NDArray[Any], tmp_path: Path) -> None:
    arrays = {**stored_arrays(tmp_path), name: value}
    np.savez(tmp_path / "b.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"b\.npz"):
        CameraAlignment.load(tmp_path / "b.npz")


@pytest.mark.parametrize("name", ["version", "level", "camids", "counts", "sums", "prior"])
def test_a_missing_array(name: str, tmp_path: Path) -> None:
    arrays = stored_arrays(tmp_path)
    del arrays[name]
    np.savez(tmp_path / "b.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=name):
        CameraAlignment.load(tmp_path / "b.npz")


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 half", b"\x93NUMPY"])
def test_not_an_archive(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "b.npz").write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"b\.npz"):
        CameraAlignment.load(tmp_path / "b.npz")


def test_a_single_array(tmp_path: Path) -> None:
    np.save(tmp_path / "b.npy", ROWS)
    with pytest.raises(InvalidInputError, match=r"b\.npy"):
        CameraAlignment.load(tmp_path / "b.npy")


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted().save(tmp_path / "a.npz")
    before = (tmp_path / "a.npz").read_bytes()

    def full(*_arguments: Any, **_arrays: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        fitted(dims=3).save(tmp_path / "a.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    assert (tmp_path / "a.npz").read_bytes() == before


def test_a_compressed_archive(tmp_path: Path) -> None:
    """What unpacks to more than the file is not ours."""
    np.savez_compressed(tmp_path / "b.npz", **stored_arrays(tmp_path))  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"b\.npz"):
        CameraAlignment.load(tmp_path / "b.npz")
