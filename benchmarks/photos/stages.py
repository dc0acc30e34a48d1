"""The stages that are verbs of murank: what a user would type.

Each keeps its output in a folder and does there only what is missing or no longer fits.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from photos.kept import write_text
from photos.sets import as_csv

from murank import FeatureSet, MuDistances, load_features, load_mu
from murank.cli import main
from murank.datasets import Dataset, ImageList
from murank.datasets.image_lists import Image, image_list

CANDIDATES = 10  # gallery images a query whose mu is asked for


def murank(*arguments: object, say: Callable[[str], None] = print) -> None:
    """Run a verb; what it refuses ends the script, and it has said why."""
    words = [str(argument) for argument in arguments]
    say("murank " + shlex.join(words))
    code = main(words)
    if code != 0:
        raise SystemExit(code)


@dataclass(frozen=True)
class Embedding:
    """An encoder, and the folder of what it makes."""

    work: Path
    encoder: Path  # ONNX file or Hugging Face folder
    options: Sequence[object]  # of `murank export`, on the encoder

    @property
    def engine(self) -> Path:
        """An engine of the encoder alone."""
        folder = self.work / "encoder-engine"
        if not folder.exists():
            murank("export", "--encoder", self.encoder, *self.options, "--quiet", "-o", folder)
        return folder

    def embed(self, data: Dataset, name: str) -> FeatureSet:
        """Return features of query and gallery, queries first."""
        return load_features(self._features(data, name))

    def embed_training(self, images: ImageList, name: str) -> Path:
        """Return the file of all features of training images; of them no one is a query."""
        assert images.pids is not None and images.camids is not None  # noqa: PT018  of readers here
        rows = list(map(Image, images.paths, images.pids.tolist(), images.camids.tolist()))
        return self._features(Dataset(image_list(rows[:1]), image_list(rows[1:])), name)

    def _features(self, data: Dataset, name: str) -> Path:
        folder, lists = self.work / name / "embedded", self.work / name
        write_text(lists / "query.csv", as_csv(data.query))
        write_text(lists / "gallery.csv", as_csv(data.gallery))
        murank(
            "score", self.engine, "--query", lists / "query.csv",
            "--gallery", lists / "gallery.csv", "--no-mu", "--align-cameras", "off",
            "--strict", "--overwrite", "-o", folder,
        )  # fmt: skip
        return folder / "features.npz"

    def ask(self, name: str, engine: Path, level: str, asked: str) -> MuDistances:
        """Return mu of the nearest gallery images of each query of a set that was embedded."""
        folder = self.work / name / f"mu-{asked}-{level}"
        murank(
            "score", engine, "--features", self.work / name / "embedded" / "features.npz",
            "--candidates", CANDIDATES, "--align-cameras", level, "--overwrite", "-o", folder,
        )  # fmt: skip
        return load_mu(folder / "mu.npz")
