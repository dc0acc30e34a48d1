"""A small job from images: crops of a few people, and an engine that computes by looking."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from engine_folder import edit_manifest, make_engine
from numpy.typing import NDArray
from PIL import Image

from murank import Ranking, load_ranking
from murank.cli import main
from murank.engine.engine import Engine
from murank.folder.manifest import engine_sha256, read_manifest
from murank.images import ReadyImage
from murank.jobs import embed as _embedding
from murank.jobs import score as _scoring

PEOPLE, DISTRACTORS = 4, 2
NUM_QUERY, NUM_GALLERY = PEOPLE, 2 * PEOPLE + DISTRACTORS
NUM_IMAGES = NUM_QUERY + NUM_GALLERY
DIM = 48  # 4 x 4 RGB


class FakeEngine:
    """Features are the pixels of a thumbnail, mu is how far two of them are apart."""

    def __init__(self, folder: Path, log: "ImageJob") -> None:
        self.providers = {"encoder": ["Fake"], "vision": ["Fake"], "decoder": ["Fake"]}
        self.manifest = read_manifest(folder)
        self.sha256 = engine_sha256(folder)
        self._log = log

        self.encoder = SimpleNamespace(part=self.manifest.encoder, features=self._features)

    def embed(self, images: Sequence[ReadyImage]) -> NDArray[np.float32]:
        return self._features([image.pixels for image in images])

    def _features(self, pixels: Iterable[Any], _names: object = None) -> NDArray[np.float32]:
        rows = np.stack([_thumbnail(one) for one in pixels])
        self._log.count("embed", len(rows))
        unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit

    def mu_many(
        self,
        queries: Sequence[ReadyImage],
        candidates: Sequence[Sequence[ReadyImage]],
        *,
        order: str = "given",
    ) -> NDArray[np.float32]:
        self._log.count(order, sum(map(len, candidates)))
        power = {"given": 1, "swapped": 2}[order]
        mu = [
            [
                np.abs(_thumbnail(query.pixels) - _thumbnail(one.pixels)).mean() ** power
                for one in row
            ]
            for query, row in zip(queries, candidates, strict=True)
        ]
        return np.array(mu, np.float32)


class ImageJob:
    """The folders, and `murank score` and `murank rerank` on them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.query, self.gallery = folder / "query", folder / "gallery"
        self.engine, self.out = folder / "engine", folder / "out"
        self.done: Counter[str] = Counter()  # images embedded, pairs scored in each order
        self.loaded: list[dict[str, Any]] = []  # options of each load
        self.stop_at: tuple[str, int] | None = None  # what, and how much of it
        make_people(self.query, self.gallery)
        make_engine(self.engine)
        edit_manifest(self.engine, lambda data: data["encoder"].update(dim=DIM))
        monkeypatch.setattr(Engine, "from_pretrained", self._load)
        for module, name, size in ((_embedding, "_BATCH", 2), (_scoring, "_QUERIES", 1)):
            monkeypatch.setattr(module, name, size)

    def _load(self, folder: Path, **options: Any) -> FakeEngine:
        self.loaded.append(options)
        return FakeEngine(folder, self)

    def count(self, what: str, number: int) -> None:
        """Note work of the engine, and interrupt it where that was asked for."""
        stop, most = self.stop_at or ("", 0)
        if what == stop and self.done[what] + number > most:
            raise KeyboardInterrupt
        self.done[what] += number

    def run(self, *options: object, source: Sequence[object] | None = None) -> int:
        """Run `murank score` on the folders, or on another source."""
        self.done.clear()
        self.loaded.clear()
        if source is None:
            source = ["--query", self.query, "--gallery", self.gallery]
        place = [] if "-o" in options else ["-o", self.out]
        return main(list(map(str, ["score", self.engine, *source, *options, *place])))

    def rank(self, *options: object, job: Path | None = None, method: str = "k-reciprocal") -> int:
        """Run `murank rerank` on the output folder, or on another job."""
        arguments = ["rerank", job or self.out, "--method", method, *options]
        return main(list(map(str, arguments)))

    def ranking(self, *options: object, job: Path | None = None, method: str = "simple") -> Ranking:
        """Return the ranking of the output folder, or of another job."""
        place = self.folder / "ranked"
        assert self.rank("-o", place, "--overwrite", *options, job=job, method=method) == 0
        return load_ranking(place)

    def report(self) -> dict[str, Any]:
        """What job.json of the output folder says."""
        found: dict[str, Any] = json.loads((self.out / "job.json").read_text())
        return found

    def names(self) -> set[str]:
        """Files of the output folder, but for the journal."""
        return {path.name for path in self.out.iterdir()} - {"journal"}

    def content(self) -> dict[str, bytes]:
        """What is in the output folder, but for the journal."""
        return {name: (self.out / name).read_bytes() for name in self.names()}

    def arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """Arrays of an .npz file of the output folder."""
        with np.load(self.out / name) as archive:
            return dict(archive)


def make_people(query: Path, gallery: Path) -> None:
    """Write crops with Market-style names: a person is a colour, a camera a brightness."""
    random = np.random.default_rng(0)
    colours = random.integers(40, 200, (PEOPLE + DISTRACTORS, 8, 4, 3))
    for person, colour in enumerate(colours, start=1):
        is_distractor = person > PEOPLE
        for camera in (1,) if is_distractor else (1, 2, 3):
            folder = query if camera == 1 and not is_distractor else gallery
            pixels = colour + 12 * camera + random.integers(-8, 8, colour.shape)
            write_crop(folder / f"{person:04d}_c{camera}s1_000.png", pixels)


def write_crop(file: Path, pixels: NDArray[Any]) -> None:
    """Write a picture; its time is a round one, so that a later change shows."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file)
    os.utime(file, (1_000_000_000, 1_000_000_000))


def change_crop(file: Path, seed: int = 9) -> None:
    """Let an image show something else."""
    shape = np.asarray(Image.open(file)).shape
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, shape, np.uint8)).save(file)


def _thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    whole = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    small = whole.resize((4, 4), Image.Resampling.BOX)
    values: NDArray[np.float32] = np.asarray(small, np.float32).reshape(-1) / np.float32(255)
    return values
