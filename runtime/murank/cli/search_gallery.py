"""The gallery of `murank search`: images that are embedded first, or features of a job."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError, UsageError
from murank.cli.in_flags import reason_in_flags
from murank.cli.progress import ProgressLine
from murank.cli.ranked_source import read_features
from murank.datasets import list_images
from murank.datasets.labels import Ids
from murank.engine.engine import Engine
from murank.files.parquet import is_parquet
from murank.folder.contents import EngineFiles
from murank.folder.graph_hash import encoder_sha256
from murank.folder.manifest import Manifest
from murank.jobs import is_job
from murank.rerank.features import check_has_paths
from murank.rerank.parquet_features import has_features
from murank.search import embed_images


@dataclass(frozen=True)
class EmbeddedGallery:
    """Images that can be used, with their features."""

    paths: list[Path]
    features: NDArray[np.float32]  # [G,D]
    camids: Ids | None = None  # [G]
    skipped: list[dict[str, str]] = field(default_factory=list)  # path and reason


@dataclass(frozen=True)
class GalleryImages:
    """Images, and features where they are known."""

    paths: list[Path]
    features: NDArray[np.float32] | None = None  # [G,D]
    camids: Ids | None = None  # [G]
    notes: tuple[str, ...] = ()  # on how they were found

    def embedded(self, engine: Engine, *, strict: bool, line: ProgressLine) -> EmbeddedGallery:
        """Return the gallery with features; images that cannot be used are left out and named.

        Raises
        ------
        InputError
            An image cannot be used and `strict` is set, or none can be used.
        """
        if self.features is not None:
            return EmbeddedGallery(self.paths, self.features, self.camids)
        skipped: dict[int, str] = {}
        assert engine.encoder is not None  # noqa: S101  its manifest was looked at
        features = embed_images(
            engine.encoder, self.paths, progress=line.part("embed"),
            skip=None if strict else skipped.__setitem__,
        )  # fmt: skip
        if skipped and not len(features):
            raise InputError(f"no gallery image can be read; the first: {min(skipped.items())[1]}")
        said = {place: reason_in_flags(why) for place, why in skipped.items()}
        for reason in said.values():
            line.say(f"left out: {reason}")
        kept = [place for place in range(len(self.paths)) if place not in skipped]
        return EmbeddedGallery(
            [self.paths[place] for place in kept],
            features,
            None if self.camids is None else self.camids[kept],
            [{"path": str(self.paths[i]), "reason": why} for i, why in said.items()],
        )


def list_gallery(source: str, root: Path | None, manifest: Manifest, engine: Path) -> GalleryImages:
    """List the images of --gallery. Raises InputError unless they suit the engine's encoder."""
    encoder = manifest.encoder
    if encoder is None:
        raise InputError(f"{engine} has no encoder, so it cannot search: export one with --encoder")
    if not _has_features(Path(source)):
        if root is not None:
            raise UsageError("--image-root needs --gallery F.npz: other paths are known")
        listed = list_images(source)
        return GalleryImages(list(listed.paths), camids=listed.camids, notes=listed.notes)
    job, features = read_features(Path(source), None)
    if root is None and job is not None:
        root = job.image_root
    check_has_paths(features, source, "a search tells which images it found")
    gallery = features.gallery
    made_by = features.encoder_sha256
    if made_by is not None and made_by != encoder_sha256(EngineFiles(engine, manifest)):
        raise InputError(
            f"{source} has features of another encoder than that of {engine}: name the engine that "
            "made them, or the images themselves"
        )
    dim = gallery.features.shape[1]
    if dim != encoder.dim:
        raise InputError(
            f"{source} has features of {dim} values, and the encoder of {engine} makes "
            f"{encoder.dim}: they are of another engine"
        )
    paths = [(root or Path()) / str(path) for path in gallery.paths]
    return GalleryImages(paths, gallery.features.astype(np.float32, copy=False), gallery.camids)


def _has_features(source: Path) -> bool:
    if is_parquet(source):
        return has_features(source)
    return source.suffix.lower() == ".npz" or is_job(source)
