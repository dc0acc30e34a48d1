"""What is mined: the rows of a features file, or images that an engine embeds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank import InputError
from murank.checks.text import is_utf8
from murank.datasets import ImageList, list_images
from murank.datasets.market_style import is_nobody
from murank.jobs import JobLog, LazyEngine
from murank.rerank.alignment import OFF, Alignment
from murank.rerank.features import check_has_paths, feature_set, read_arrays
from murank.search import embed_images
from murank_export.sources.hashing import file_sha256

NOBODY, UNREADABLE = "junk_and_distractors", "unreadable"  # why an image is left out


@dataclass(frozen=True)
class Labelled:
    """Images with features and the person on each."""

    features: NDArray[np.floating[Any]]  # [N,D]
    paths: list[str]  # [N] as they go into the pairs
    pids: NDArray[np.integer[Any]]  # [N]
    camids: NDArray[np.integer[Any]] | None  # [N]
    origin: dict[str, Any]  # JSON-ready: what was read, with its sha256
    left_out: dict[str, int]  # number of images, by reason
    encoder_sha256: str | None = None  # of the encoder that made the features, where known

    def kept(self, keep: NDArray[np.bool_], reason: str) -> "Labelled":
        """Return the images where `keep` [N] is true; the others are counted by the reason."""
        return replace(
            self,
            features=self.features[keep],
            paths=[path for path, kept in zip(self.paths, keep, strict=True) if kept],
            pids=self.pids[keep],
            camids=None if self.camids is None else self.camids[keep],
            left_out={**self.left_out, reason: int((~keep).sum())},
        )


def from_features(file: Path, report: JobLog) -> Labelled:
    """Read a features file; queries and gallery are alike here.

    Raises
    ------
    InputError
        It cannot be read, has no pids, or its paths cannot stand in a list of pairs.
    """
    arrays = read_arrays(file)
    if arrays["features"].shape[:1] in ((0,), (1,)):
        raise InputError(f"{file} holds fewer than two images, so there is no pair to mine")
    # Which rows are queries does not matter, and a training set's paths do not tell.
    given = feature_set(arrays, file, num_query=1)
    if given.pids is None:
        raise InputError(f"{file} has no pids, so nobody knows which images show the same person")
    check_has_paths(given, file, "pairs name the images")
    origin = {"features": file.name, "sha256": file_sha256(file)}
    paths = [str(path) for path in given.paths]
    _check_paths(paths)
    made_by = given.encoder_sha256
    found = Labelled(given.features, paths, given.pids, given.camids, origin, {}, made_by)
    found = _people_only(found, report)
    _check_features(found)
    return found


def from_images(
    sources: Sequence[Path], engine: LazyEngine, report: JobLog, alignment: Alignment = OFF
) -> Labelled:
    """Embed the images of folders in Market-1501 names, or of .csv lists with a column pid.

    Images that cannot be read are left out, with a note. What `alignment` will need is looked for
    beforehand.

    Raises
    ------
    InputError
        A source cannot be used or lacks labels, or the engine has no encoder.
    """
    engine.check()
    lists = [_with_pids(source) for source in sources]
    for note in (note for images in lists for note in images.notes):
        report.note(note)
    listed = _joined(lists)
    made_by = None if alignment.given is None else engine.encoder_sha256
    alignment.check(dim=engine.encoder.dim, camids=listed.camids, encoder_sha256=made_by)
    origin = {
        "images": [source.name for source in sources],
        "engine": engine.folder.name,
        "engine_sha256": engine.sha256,
    }
    found = _people_only(replace(listed, origin=origin), report)
    encoder = engine.loaded.encoder
    assert encoder is not None  # noqa: S101 - `check` looked
    reasons: dict[int, str] = {}
    features = embed_images(
        encoder, [Path(path) for path in found.paths],
        progress=report.part("embed"), skip=reasons.__setitem__,
    )  # fmt: skip
    if reasons:
        first = next(iter(reasons.values()))
        report.note(f"{_images(len(reasons))} left out, unreadable; the first: {first}")
        keep = ~np.isin(np.arange(len(found.paths)), list(reasons))
        found = found.kept(keep, UNREADABLE)
    found = replace(found, features=features, encoder_sha256=made_by)
    _check_features(found)
    return found


def _with_pids(source: Path) -> ImageList:
    images = list_images(source)
    if images.pids is not None:
        return images
    if source.is_dir():
        raise InputError(f"{images.unlabelled}; it should begin with person and camera, as 0001_c1")
    raise InputError(f"{source} has no column pid, so nobody knows who is on its images")


def _joined(lists: Sequence[ImageList]) -> Labelled:
    """Put lists behind each other; cameras count where all have them."""
    paths = [str(path) for images in lists for path in images.paths]
    _check_paths(paths)
    pids = np.concatenate([images.pids for images in lists if images.pids is not None])
    cameras = [images.camids for images in lists if images.camids is not None]
    camids = np.concatenate(cameras) if len(cameras) == len(lists) else None
    return Labelled(np.empty((len(paths), 0), np.float32), paths, pids, camids, {}, {})


def _people_only(found: Labelled, report: JobLog) -> Labelled:
    """Leave out who is nobody: they share an id, but are not one person."""
    nobody = np.array([is_nobody(*one) for one in zip(found.paths, found.pids, strict=True)])
    if not nobody.any():
        return found
    report.note(
        f"{_images(int(nobody.sum()))} left out, junk (pid -1) or distractors (pid 0 in "
        "Market-1501 names): they show no known person"
    )
    return found.kept(~nobody, NOBODY)


def _check_features(found: Labelled) -> None:
    bad = ~np.isfinite(found.features).all(axis=1) | ~found.features.any(axis=1)
    if bad.any():
        path = found.paths[int(np.argmax(bad))]
        raise InputError(
            f"the features of {path} hold NaN or infinity, or are all zero; leave it out"
        )


def _check_paths(paths: Sequence[str]) -> None:
    seen: dict[str, int] = {}
    for row, path in enumerate(paths):
        if not path:
            raise InputError(f"image {row} has no path, so a pair cannot name it")
        if not is_utf8(path):
            raise InputError(
                f"{path!r}: the name is not UTF-8, so a pair cannot hold it; rename it"
            )
        if path in seen:
            raise InputError(f"{path} stands there twice (images {seen[path]} and {row})")
        seen[path] = row


def _images(count: int) -> str:
    return f"{count:,} image{'s' * (count > 1)}"
