"""A gallery for a new encoder: features anew from the pictures that it keeps."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from murank._exceptions import InputError
from murank.engine.encoder import Encoder
from murank.engine.engine import Engine
from murank.engine.memory_cache import content_key
from murank.gallery.erased_shots import erase
from murank.gallery.gallery_file import GalleryFile, checked
from murank.gallery.shot_records import F32
from murank.gallery.track_pairs import pairs_of_engine
from murank.gallery.unit_features import unit_rows
from murank.gallery.vectors import seal
from murank.images import Preprocessing, prepare

_AT_ONCE = 64


def embed_again(
    file: GalleryFile, engine: Engine, encoder: Encoder,
    progress: Callable[[int, int], None] | None,
) -> int:  # fmt: skip
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
        pairs_of_engine(file, None)
        done = 0
        if engine.scorer is not None:
            _name_again(file, engine.scorer.part.preprocessing)
        for shots, features in _features(file, encoder):
            rows = [(shot, row.tobytes(), checked(row.tobytes())) for shot, row in
                    zip(shots, features, strict=True)]  # fmt: skip
            file.many("INSERT INTO recent VALUES (?, ?, ?)", rows)
            done += len(rows)
            if progress is not None:
                progress(done, total)
        file.set_meta("encoder_sha256", str(engine.encoder_sha256))
        file.set_meta("dim", int(encoder.part.dim))
        file.set_meta("pending", 1)
    seal(file)
    return int(total)


def _features(file: GalleryFile, encoder: Encoder) -> Iterator[tuple[list[int], F32]]:
    """Yield shots and their unit features [n,D], in order."""
    for shots, pixels in _pixels(file, encoder.part.preprocessing):
        yield shots, unit_rows(encoder.features(np.stack(pixels)))


def _name_again(file: GalleryFile, how: Preprocessing) -> None:
    """Let an erasure find what the new MLLM will keep of each picture."""
    for shots, pixels in _pixels(file, how):
        keys = [(content_key(one), shot) for one, shot in zip(pixels, shots, strict=True)]
        file.many("UPDATE pictures SET key = ? WHERE shot = ?", keys)


def _pixels(file: GalleryFile, how: Preprocessing) -> Iterator[tuple[list[int], list[Any]]]:
    """Yield shots and their pictures as a model is shown them."""
    after = -1
    while rows := _pictures(file, after):
        after = rows[-1][0]
        for _, shot_id, jpeg, check in rows:
            if checked(jpeg) != check:
                raise InputError(
                    f"{file.path}: the crop of shot {shot_id} is damaged; erase that shot first"
                )
        pixels = [prepare(jpeg, how, name=f"shot {name}").pixels for _, name, jpeg, _ in rows]
        yield [row[0] for row in rows], pixels


def _pictures(file: GalleryFile, after: int) -> list[Any]:
    return file.all(
        "SELECT shot, id, jpeg, picture_check FROM pictures JOIN shots USING (shot) "
        "WHERE jpeg NOT NULL AND shot > ? ORDER BY shot LIMIT ?", after, _AT_ONCE,
    )  # fmt: skip
