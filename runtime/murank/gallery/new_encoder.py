"""A gallery for a new encoder: features anew from the pictures that it keeps."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from murank._exceptions import InputError
from murank.engine.encoder import Encoder
from murank.gallery.erased_shots import erase
from murank.gallery.gallery_file import GalleryFile, checked
from murank.gallery.shot_records import F32
from murank.gallery.unit_features import unit_rows
from murank.gallery.vectors import seal
from murank.images import prepare

_AT_ONCE = 64


def embed_again(
    file: GalleryFile, encoder: Encoder, sha256: str, progress: Callable[[int, int], None] | None
) -> int:
    """Replace all features wholly or not at all; shots without a picture go. Returns the shots.

    Raises InputError where no picture is kept, or one is damaged.
    """
    total = file.one("SELECT count(*) FROM pictures WHERE jpeg NOT NULL")[0]
    if not total:
        raise InputError(f"{file.path} keeps no crop to embed again: it was filled without any")
    with file.writing() as generation:
        without = file.all(
            "SELECT shot FROM shots WHERE shot NOT IN "
            "(SELECT shot FROM pictures WHERE jpeg NOT NULL) ORDER BY shot"
        )
        erase(file, np.array([row[0] for row in without], np.int64), generation)
        file.run("DELETE FROM recent")
        file.run("DELETE FROM chunks")
        file.run("DELETE FROM alignment")
        file.run("UPDATE shots SET chunk = NULL, place = NULL")
        file.run("UPDATE units SET changed = ?", generation)
        done = 0
        for shots, features in _features(file, encoder):
            rows = [(shot, row.tobytes(), checked(row.tobytes())) for shot, row in
                    zip(shots, features, strict=True)]  # fmt: skip
            file.many("INSERT INTO recent VALUES (?, ?, ?)", rows)
            done += len(rows)
            if progress is not None:
                progress(done, total)
        file.set_meta("encoder_sha256", sha256)
        file.set_meta("dim", int(encoder.part.dim))
        file.set_meta("pending", 1)
    seal(file)
    return int(total)


def _features(file: GalleryFile, encoder: Encoder) -> Iterator[tuple[list[int], F32]]:
    """Yield shots and their unit features [n,D], in order."""
    after, how = -1, encoder.part.preprocessing
    while rows := _pictures(file, after):
        after = rows[-1][0]
        for _, shot_id, jpeg, check in rows:
            if checked(jpeg) != check:
                raise InputError(
                    f"{file.path}: the crop of shot {shot_id} is damaged; erase that shot first"
                )
        pixels = [prepare(jpeg, how, name=f"shot {name}").pixels for _, name, jpeg, _ in rows]
        yield [row[0] for row in rows], unit_rows(encoder.features(np.stack(pixels)))


def _pictures(file: GalleryFile, after: int) -> list[Any]:
    return file.all(
        "SELECT shot, id, jpeg, picture_check FROM pictures JOIN shots USING (shot) "
        "WHERE jpeg NOT NULL AND shot > ? ORDER BY shot LIMIT ?", after, _AT_ONCE,
    )  # fmt: skip
