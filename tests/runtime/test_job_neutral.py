"""Pairs without an answer stay where the encoder puts them, and the rest of the job goes on."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_folder import edit_manifest
from image_job import NUM_GALLERY, NUM_QUERY, FakeEngine, ImageJob
from numpy.typing import NDArray
from PIL import Image

from murank import InputError, load_mu
from murank.images import ReadyImage
from murank.jobs import score as _scoring
from murank.jobs.asked_pairs import Pairs
from murank.jobs.pair_skips import Skip, once_each

K = NUM_GALLERY  # every query meets every gallery image
PAIRS = K * NUM_QUERY
SCORING = ("--candidates", K)
NO_NUMBER = "the engine's answer to a pair is no number; export it with --dtype fp32"


@pytest.fixture
def source(job: ImageJob) -> list[object]:
    """Features with paths that start at --image-root."""
    assert job.run("-o", job.out, "--no-mu") == 0
    stored: dict[str, Any] = job.arrays("features.npz")
    stored["paths"] = np.array(
        [str(Path(path).relative_to(job.folder)) for path in stored["paths"]]
    )
    del stored["stage"]
    np.savez(job.folder / "given.npz", **stored)
    job.out = job.folder / "scored"
    return ["--features", job.folder / "given.npz", "--image-root", job.folder]


@pytest.fixture
def whole(job: ImageJob, source: list[object]) -> NDArray[np.float32]:
    """Mu [Q,G] of the job with all its images, and gallery images in their own order."""
    whole = job.folder / "whole"
    assert job.run("-o", whole, *SCORING, source=source) == 0
    return in_gallery_order(whole)


@pytest.fixture
def encoder(source: list[object]) -> NDArray[np.float32]:
    """The encoder's own distances [Q,G]."""
    with np.load(str(source[1])) as archive:
        rows = archive["features"]
    gaps = rows[:NUM_QUERY, None] - rows[None, NUM_QUERY:]
    distances: NDArray[np.float32] = np.linalg.norm(gaps, axis=2)
    return distances


def in_gallery_order(folder: Path, name: str = "mu.npz") -> NDArray[np.float32]:
    found = load_mu(folder / name)
    order = np.argsort(found.candidates, axis=1)
    mu: NDArray[np.float32] = np.take_along_axis(found.mu, order, axis=1)
    return mu


def fused(job: ImageJob) -> NDArray[np.float32]:
    ranking = job.ranking()
    order = np.argsort(ranking.indices, axis=1)
    distances: NDArray[np.float32] = np.take_along_axis(ranking.distances, order, axis=1)
    return distances


def skipped(job: ImageJob) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = job.report()["skipped"]
    return found


def check_neutral(
    job: ImageJob,
    neutral: NDArray[np.bool_],
    whole: NDArray[np.float32],
    encoder: NDArray[np.float32],
) -> None:
    """These pairs, and no others, have the mu that changes nothing."""
    np.testing.assert_array_equal(in_gallery_order(job.out)[~neutral], whole[~neutral])
    np.testing.assert_allclose(fused(job)[neutral], encoder[neutral], rtol=0, atol=1e-6)
    assert np.abs(fused(job) - encoder)[~neutral].max() > 1e-3


def break_pairs(
    monkeypatch: pytest.MonkeyPatch, is_bad: Callable[[ReadyImage, ReadyImage], bool]
) -> list[int]:
    """Let the engine refuse what holds a bad pair, as it does; return the sizes of its calls."""
    ask = FakeEngine.mu_many
    sizes = []

    def refuse(
        engine: FakeEngine,
        queries: Sequence[ReadyImage],
        candidates: Sequence[Sequence[ReadyImage]],
        *,
        order: str,
    ) -> NDArray[np.float32]:
        sizes.append(sum(map(len, candidates)))
        for query, row in zip(queries, candidates, strict=True):
            if any(is_bad(query, one) for one in row):
                raise InputError(NO_NUMBER)
        return ask(engine, queries, candidates, order=order)

    monkeypatch.setattr(FakeEngine, "mu_many", refuse)
    return sizes


def marked(image: ReadyImage) -> bool:
    return int(image.pixels.max()) == 0


def mark(file: Path) -> None:
    Image.new("RGB", (4, 8)).save(file)


def test_candidates_that_cannot_be_read(
    job: ImageJob,
    source: list[object],
    whole: NDArray[np.float32],
    encoder: NDArray[np.float32],
    capsys: pytest.CaptureFixture[str],
) -> None:
    damaged, gone = (sorted(job.gallery.iterdir())[row] for row in (2, 5))
    damaged.write_bytes(b"no picture")
    gone.unlink()
    assert job.run("-o", job.out, *SCORING, source=source) == 0
    assert job.done == {"given": PAIRS - 2 * NUM_QUERY}
    neutral = np.zeros(whole.shape, bool)
    neutral[:, [2, 5]] = True
    check_neutral(job, neutral, whole, encoder)
    found = {one["path"]: one for one in skipped(job)}
    assert found.keys() == {str(damaged), str(gone)}
    assert [one["pairs"] for one in found.values()] == [NUM_QUERY, NUM_QUERY]
    assert f"{damaged} is not a" in found[str(damaged)]["reason"]
    assert f"{gone}: No such file" in found[str(gone)]["reason"]
    assert "2 images skipped (listed in job.json):\n" in capsys.readouterr().out


def test_a_query_that_cannot_be_read(
    job: ImageJob,
    source: list[object],
    whole: NDArray[np.float32],
    encoder: NDArray[np.float32],
) -> None:
    bad, other = sorted(job.query.iterdir())[1], sorted(job.gallery.iterdir())[0]
    bad.write_bytes(b"no picture")
    other.write_bytes(b"no picture either")
    assert job.run("-o", job.out, *SCORING, source=source) == 0
    neutral = np.zeros(whole.shape, bool)
    neutral[1] = neutral[:, 0] = True
    check_neutral(job, neutral, whole, encoder)
    assert {one["path"]: one["pairs"] for one in skipped(job)} == {
        str(bad): K, str(other): NUM_QUERY
    }  # fmt: skip


def test_several_queries_at_once(
    job: ImageJob,
    source: list[object],
    whole: NDArray[np.float32],
    encoder: NDArray[np.float32],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_scoring, "_QUERIES", 2)
    sorted(job.query.iterdir())[2].write_bytes(b"no picture")
    sorted(job.gallery.iterdir())[7].unlink()
    sizes = break_pairs(monkeypatch, lambda _query, _candidate: False)
    assert job.run("-o", job.out, *SCORING, source=source) == 0
    assert sizes == [2 * (K - 1), K - 1]
    neutral = np.zeros(whole.shape, bool)
    neutral[2] = neutral[:, 7] = True
    check_neutral(job, neutral, whole, encoder)


@pytest.mark.parametrize("at_once", [1, 4])
def test_a_pair_whose_answer_is_no_number(
    job: ImageJob,
    source: list[object],
    encoder: NDArray[np.float32],
    monkeypatch: pytest.MonkeyPatch,
    at_once: int,
) -> None:
    monkeypatch.setattr(_scoring, "_QUERIES", at_once)
    query, candidate = sorted(job.query.iterdir())[3], sorted(job.gallery.iterdir())[6]
    mark(query)
    mark(candidate)
    assert job.run("-o", job.folder / "whole", *SCORING, source=source) == 0
    break_pairs(monkeypatch, lambda one, other: marked(one) and marked(other))
    assert job.run("-o", job.out, *SCORING, source=source) == 0
    neutral = np.zeros(encoder.shape, bool)
    neutral[3, 6] = True
    check_neutral(job, neutral, in_gallery_order(job.folder / "whole"), encoder)
    (found,) = skipped(job)
    assert found == {
        "path": str(query), "reason": f"{query} and {candidate}: {NO_NUMBER}", "pairs": 1
    }  # fmt: skip


def test_an_image_that_only_the_encoder_can_use(job: ImageJob) -> None:
    # The encoder stretches it, the scorer would keep its aspect.
    edit_manifest(job.engine, lambda data: data["encoder"]["preprocessing"].update(
        shortest_edge=None
    ))  # fmt: skip
    edit_manifest(job.engine, lambda data: data["scorer"]["preprocessing"].update(
        shortest_edge=280
    ))  # fmt: skip
    long = sorted(job.gallery.iterdir())[4]
    Image.new("RGB", (1, 50_000), (90, 80, 70)).save(long)
    limits = ("--decode-limits", "max_side=50000,max_aspect=50000")
    assert job.run("-o", job.out, *SCORING, *limits) == 0
    (found,) = skipped(job)
    assert (found["path"], found["pairs"]) == (str(long), NUM_QUERY)
    assert f"{long} is 1 x 50000, too elongated" in found["reason"]


def test_they_stay_known(
    job: ImageJob, source: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    bad = sorted(job.gallery.iterdir())[1]
    bad.write_bytes(b"no picture")
    options = ["-o", job.out, "--overwrite", *SCORING]
    job.stop_at = ("given", 3 * (K - 1))
    assert job.run(*options, source=source) == 130
    job.stop_at = None
    assert job.run(*options, source=source) == 0
    assert job.done == {"given": K - 1}
    first = skipped(job)
    assert [(one["path"], one["pairs"]) for one in first] == [(str(bad), NUM_QUERY)]
    capsys.readouterr()
    assert job.run(*options, source=source) == 0
    assert job.done == {}
    assert skipped(job) == first
    assert "1 image skipped (listed in job.json):\n" in capsys.readouterr().out
    assert job.run(*options, "--strict", source=source) == 2
    assert f"{bad} is not a" in capsys.readouterr().err


def test_both_orders_name_an_image_once(job: ImageJob, source: list[object]) -> None:
    bad = sorted(job.gallery.iterdir())[1]
    bad.write_bytes(b"no picture")
    assert job.run("-o", job.out, *SCORING, "--order", "both", source=source) == 0
    assert [(one["path"], one["pairs"]) for one in skipped(job)] == [(str(bad), NUM_QUERY)]
    given, swapped = (in_gallery_order(job.out, name) for name in ("mu.npz", "mu_swapped.npz"))
    np.testing.assert_array_equal(given[:, 1], swapped[:, 1])
    assert (given != swapped)[:, 2:].all()


@pytest.mark.parametrize("how", ["damaged", "gone", "no number"])
def test_strict_stops(
    job: ImageJob,
    source: list[object],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    how: str,
) -> None:
    assert job.run("-o", job.folder / "good", "--strict", *SCORING, source=source) == 0
    bad = sorted(job.query.iterdir())[2]
    if how == "damaged":
        bad.write_bytes(b"no picture")
    elif how == "gone":
        bad.unlink()
    else:
        mark(bad)
        break_pairs(monkeypatch, lambda query, _candidate: marked(query))
    capsys.readouterr()
    assert job.run("-o", job.out, "--strict", *SCORING, source=source) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"murank: error: {bad}")
    assert err.count("\n") == 1
    assert job.done == ({} if how == "gone" else {"given": 2 * K})
    assert not (job.out / "job.json").exists()


def test_nothing_can_be_read(
    job: ImageJob, source: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    for file in [*job.query.iterdir(), *job.gallery.iterdir()]:
        file.write_bytes(b"no picture")
    capsys.readouterr()
    assert job.run("-o", job.out, *SCORING, source=source) == 2
    first = sorted(job.query.iterdir())[0]
    assert f"not one pair can be scored; the first: {first} is not" in capsys.readouterr().err
    for file in [*job.query.iterdir(), *job.gallery.iterdir()]:
        file.unlink()
    assert job.run("-o", job.out, "--overwrite", *SCORING, source=source) == 2
    assert "start at --image-root" in capsys.readouterr().err


def test_an_engine_that_never_gives_a_number(
    job: ImageJob,
    source: list[object],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    break_pairs(monkeypatch, lambda _query, _candidate: True)
    assert job.run("-o", job.out, *SCORING, source=source) == 2
    assert f"{NO_NUMBER}\n" in capsys.readouterr().err
    assert "mu.npz" not in job.names()


def test_neutral_mu_is_never_above_one() -> None:
    distances = np.array([[0.5, np.nextafter(np.float32(2), np.float32(3))]], np.float32)
    pairs = Pairs([Path("q")], [Path("a"), Path("b")], np.array([[0, 1]]), distances)
    mu = pairs.neutral_mu()
    assert mu.tolist() == [[0.25, 1.0]]
    assert mu.dtype == np.float32


def test_an_image_is_named_once() -> None:
    skips = [Skip("a", "first", 3), Skip("b", "why", 1), Skip("a", "second", 2)]
    assert once_each(skips, max) == [Skip("a", "first", 3), Skip("b", "why", 1)]
