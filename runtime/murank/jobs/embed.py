"""The first stage: images to features.npz."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.engine.encoder import NoFeatureError
from murank.images import ReadyImage
from murank.images.ahead import Unreadable, ready_ahead
from murank.jobs.job_images import Images
from murank.jobs.job_log import JobLog
from murank.jobs.lazy_engine import LazyEngine
from murank.jobs.stage import Arrays, Parts, Record, StageFile, batches, fingerprint
from murank.jobs.workspace import FEATURES_FILE, Workspace
from murank.rerank.features import FeatureSet, feature_arrays

_PART = 256  # images; what a killed run loses at most
_BATCH = 32  # images that the engine is given at once

_Skipped = Sequence[Sequence[Any]]  # row and reason of each


@dataclass(frozen=True)
class Embedded:
    """The features of the images that can be read."""

    features: FeatureSet
    images: Images  # the same rows
    skipped: list[dict[str, str]]  # path and reason of the others
    record: Record
    state: str  # "made", "resumed" or "reused"


def embed(
    images: Images, engine: LazyEngine, workspace: Workspace, *, strict: bool, report: JobLog
) -> Embedded:
    """Embed images; those that cannot be read are left out.

    Raises
    ------
    InputError
        An image cannot be read and `strict` is set, or no query or no gallery image is left.
    """
    fingerprints = [
        fingerprint(
            "features",
            engine.exported_sha256,
            engine.read_as,
            images.signatures[start : start + _PART],
        )
        for start in range(0, len(images.paths), _PART)
    ]
    wanted = fingerprint(fingerprints)
    stage = workspace.read(FEATURES_FILE)
    if stage is not None and stage.record["fingerprint"] == wanted:
        report.say(f"{FEATURES_FILE}: reused")
        rows, record, state = stage.arrays["features"], stage.record, "reused"
        made_by = _made_by(stage.arrays, engine)
        _check_skipped(record["skipped"], strict=strict)
    else:
        parts = workspace.parts(FEATURES_FILE, fingerprints)
        state = parts.announce(FEATURES_FILE, report)
        _check_skipped(_skipped(parts), strict=strict)
        _embed_missing(images, engine, parts, strict=strict, report=report)
        rows, made_by = parts.merged()["features"], engine.encoder_sha256
        record = {
            "fingerprint": wanted, "features": wanted, "providers": engine.providers("encoder"),
            "skipped": _skipped(parts),
        }  # fmt: skip
    readable = _readable(images, record["skipped"])
    features = readable.with_features(rows, made_by)
    if state != "reused" or not _holds(stage, feature_arrays(features)):  # labels may differ
        workspace.write(FEATURES_FILE, feature_arrays(features), record)
    skipped = [{"path": str(images.paths[i]), "reason": why} for i, why in record["skipped"]]
    return Embedded(features, readable, skipped, record, state)


def given_record(made_from: str) -> Record:
    """Return the record of features from elsewhere, of which `made_from` is the fingerprint."""
    return {"fingerprint": made_from, "features": made_from, "providers": {}, "skipped": []}


def keep_given(features: FeatureSet, record: Record, workspace: Workspace) -> str:
    """Keep features from elsewhere as those of the job; return "given" or "reused"."""
    stage, arrays = workspace.read(FEATURES_FILE), feature_arrays(features)
    if stage is not None and stage.record == record and _holds(stage, arrays):
        return "reused"
    workspace.write(FEATURES_FILE, arrays, record)
    return "given"


def _embed_missing(
    images: Images, engine: LazyEngine, parts: Parts, *, strict: bool, report: JobLog
) -> None:
    total = len(images.paths)
    work = batches(total, part=_PART, batch=_BATCH, parts=parts.missing)
    needed = ([images.paths[i] for i in rows] for _, rows in work)
    ready = ready_ahead(needed, engine.encoder.preprocessing)
    show = report.part("embed")
    for number, group in groupby(zip(work, ready, strict=True), lambda item: item[0][0]):
        feature_rows = [np.empty((0, engine.encoder.dim), np.float32)]
        skipped: list[tuple[int, str]] = []
        for (_, rows), batch in group:
            features, unreadable = _embed_batch(rows, batch, images.paths, engine)
            feature_rows.append(features)
            skipped += unreadable
            _check_skipped(skipped, strict=strict)
            show("images", rows.stop, total)
        parts.save(number, _as_arrays(np.concatenate(feature_rows), skipped))


def _embed_batch(
    rows: range,
    images: Sequence[ReadyImage | Unreadable],
    paths: Sequence[Path],
    engine: LazyEngine,
) -> tuple[NDArray[np.float32], list[tuple[int, str]]]:
    """Return the features of what can be used, and row and reason of what cannot."""
    pairs = list(zip(rows, images, strict=True))
    skipped = [(row, image.reason) for row, image in pairs if isinstance(image, Unreadable)]
    usable = {row: image for row, image in pairs if isinstance(image, ReadyImage)}
    if not usable:
        return np.empty((0, engine.encoder.dim), np.float32), skipped
    named = [paths[row] for row in usable]
    try:
        features = engine.loaded.embed(list(usable.values()))
    except NoFeatureError as error:
        raise NoFeatureError(engine.folder, error.place, named[error.place]) from error
    _check_features(features, named)
    return features, skipped


def _made_by(arrays: Arrays, engine: LazyEngine) -> str | None:
    """Return the hash of the encoder that made a stage of this engine: as it says, if it does."""
    stored = arrays.get("encoder_sha256")
    return engine.encoder_sha256 if stored is None else str(stored)


def _as_arrays(features: NDArray[np.float32], skipped: _Skipped) -> Arrays:
    return {
        "features": features,
        "skipped": np.array([row for row, _ in skipped], np.int64),
        "reasons": np.array([reason for _, reason in skipped], str),
    }


def _skipped(parts: Parts) -> list[list[Any]]:
    """Row and reason of the images left out, JSON-ready."""
    return [
        [row, reason]
        for arrays in parts
        for row, reason in zip(arrays["skipped"].tolist(), arrays["reasons"].tolist(), strict=True)
    ]


def _check_skipped(skipped: _Skipped, *, strict: bool) -> None:
    if skipped and strict:
        raise InputError(f"{skipped[0][1]} (--strict)")


def _check_features(features: NDArray[np.float32], paths: list[Path]) -> None:
    bad = ~np.isfinite(features).all(axis=1) | ~features.any(axis=1)
    if bad.any():
        path = paths[int(np.argmax(bad))]
        raise InputError(
            f"{path}: the encoder gives NaN, infinity or zeros for it; leave the image out, or "
            "export the encoder with another precision"
        )


def _readable(images: Images, skipped: _Skipped) -> Images:
    kept = np.ones(len(images.paths), bool)
    kept[[row for row, _ in skipped]] = False
    for name, part in (
        ("query", slice(images.num_query)),
        ("gallery", slice(images.num_query, None)),
    ):
        if not kept[part].any():
            first = next(reason for row, reason in skipped if row in range(len(kept))[part])
            raise InputError(f"no {name} image can be read; the first: {first}")
    return images.kept(kept)


def _holds(stage: StageFile | None, arrays: Arrays) -> bool:
    return (
        stage is not None
        and stage.arrays.keys() == arrays.keys()
        and all(np.array_equal(stage.arrays[name], arrays[name]) for name in arrays)
    )
