"""A gallery's rows as a customary .npz of the field, and back."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from murank._exceptions import InputError
from murank.files.atomic import write_files
from murank.files.npz import check_array, read_npz
from murank.gallery.gallery_file import GalleryFile
from murank.gallery.vectors import all_vectors
from murank.rerank.features import check_file

_TEXTS = ("paths", "tracks", "subjects", "attributes")


def write_rows(file: GalleryFile, path: Path, *, overwrite: bool) -> int:
    """Write features, ids (as `paths`), camids, times and the rest; returns the rows.

    What is damaged is left out. Raises OutputError.
    """
    check_file(path, overwrite=overwrite)
    with file.reading():
        parts = list(all_vectors(file))
        said = {
            row[0]: row[1:]
            for row in file.each(
                "SELECT shot, id, camera, time, track, subject FROM shots JOIN units USING (unit)"
            )
        }
        attributes: dict[int, dict[str, Any]] = {}
        for shot, key, value in file.each("SELECT shot, key, value FROM attributes"):
            attributes.setdefault(shot, {})[key] = value
    shots = [shot for part in parts for shot in part.shots.tolist()]
    ids, cameras, times, tracks, subjects = (
        [said[shot][place] for shot in shots] for place in range(5)
    )
    arrays: dict[str, Any] = {
        "features": np.concatenate([part.features for part in parts])
        if parts else np.empty((0, file.dim), np.float32),
        "paths": np.array(ids, "U"), "camids": np.array(cameras, np.int64),
        "times": np.array(times, np.float64),
        "tracks": np.array([one or "" for one in tracks], "U"),
        "subjects": np.array([one or "" for one in subjects], "U"),
        "attributes": np.array(
            [json.dumps(attributes.get(shot, {}), sort_keys=True) for shot in shots], "U"
        ),
        "encoder_sha256": np.array(file.meta("encoder_sha256")), "num_query": np.array(0),
    }  # fmt: skip
    write_files(path.parent, {path.name: lambda handle: np.savez(handle, **arrays)})
    return len(shots)


def read_rows(path: str | os.PathLike[str], encoder_sha256: str) -> dict[str, Any]:
    """Return what `write_rows` wrote as the arguments of `Gallery.add`. Raises InputError."""
    file = Path(path)
    arrays = read_npz(file, ("features", "camids", "times", "encoder_sha256", *_TEXTS), ())
    if str(arrays["encoder_sha256"]) != encoder_sha256:
        raise InputError(f"{file} holds features of another encoder than the gallery")
    check_array(arrays["features"], f"{file}: features", kinds="f", shape=(None, None))
    count = (len(arrays["features"]),)
    for name, kinds in [("camids", "i"), ("times", "f"), *((name, "U") for name in _TEXTS)]:
        check_array(arrays[name], f"{file}: {name}", kinds=kinds, shape=count)
    try:
        attributes = [json.loads(one) for one in arrays["attributes"].tolist()]
    except ValueError as error:
        raise InputError(f"{file}: attributes are not JSON: {error}") from error
    return {
        "features": arrays["features"], "camera": arrays["camids"], "time": arrays["times"],
        "id": arrays["paths"].tolist(), "attributes": attributes,
        "track": [one or None for one in arrays["tracks"].tolist()],
        "subject": [one or None for one in arrays["subjects"].tolist()],
    }  # fmt: skip
