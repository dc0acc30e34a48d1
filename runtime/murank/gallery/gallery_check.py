"""What is damaged in the file of a gallery, and what is left of the erased."""

import hashlib
from pathlib import Path

import numpy as np

from murank.gallery.gallery_file import GalleryFile, checked
from murank.gallery.gallery_result import Erasure, GalleryCheck
from murank.gallery.track_pairs import damaged_pairs, stray_pairs
from murank.gallery.vectors import chunk_vectors

_FREE_LIST = 32  # where the header of an SQLite file names the first page of its free list


def check_file(file: GalleryFile, erased: Erasure | None) -> GalleryCheck:
    """Read every byte."""
    with file.reading():
        damaged = sorted({*_damaged_features(file), *_damaged_pictures(file), *damaged_pairs(file)})
        remains = [*_named(file, erased), *_free_pages(file)]
        remains += [*_places(file), *stray_pairs(file)]
        if file.meta("pending"):
            remains.append(
                f"{file.path}-wal: a reader kept an erasure from being complete; purge()"
            )
        return GalleryCheck(tuple(damaged), tuple(remains))


def _damaged_features(file: GalleryFile) -> list[str]:
    found: list[str] = []
    for (chunk,) in file.all("SELECT chunk FROM chunks"):
        data, digest = file.one("SELECT vectors, sha256 FROM chunks WHERE chunk = ?", chunk)
        if hashlib.sha256(data).digest() != digest:
            found += [row[0] for row in file.all("SELECT id FROM shots WHERE chunk = ?", chunk)]
    for shot_id, feature, check in file.all(
        "SELECT id, feature, feature_check FROM shots LEFT JOIN recent USING (shot) "
        "WHERE chunk IS NULL"
    ):
        if feature is None or checked(feature) != check:
            found.append(shot_id)
    return found


def _damaged_pictures(file: GalleryFile) -> list[str]:
    return [
        shot_id
        for shot_id, jpeg, tokens, check in file.each(
            "SELECT id, jpeg, tokens, picture_check FROM pictures JOIN shots USING (shot)"
        )
        if checked(jpeg if jpeg is not None else tokens or b"") != check
    ]


def _named(file: GalleryFile, erased: Erasure | None) -> list[str]:
    """Return which of a receipt's ids are there; they may have been added again."""
    if erased is None:
        return []
    ids = file.texts("SELECT id FROM shots WHERE id IN", erased.ids)
    return [f"{file.path}: the shot {one} is there" for one in ids]


def _places(file: GalleryFile) -> list[str]:
    """Return chunks that hold something at a place that belongs to no shot."""
    found = []
    for (chunk,) in file.all("SELECT chunk FROM chunks"):
        vectors = chunk_vectors(file, chunk)
        rows = file.all("SELECT place FROM shots WHERE chunk = ?", chunk)
        empty = np.ones(len(vectors), bool)
        empty[[row[0] for row in rows]] = False
        if vectors[empty].any():
            found.append(f"{file.path}: chunk {chunk} holds an erased feature")
    return found


def _free_pages(file: GalleryFile) -> list[str]:
    """Return a line if a free page is not empty, of the file as it lies on the disk."""
    (page_size,) = file.one("PRAGMA page_size")
    path = Path(file.path)
    found = []
    with path.open("rb") as stream:
        header = stream.read(100)
        trunk = int.from_bytes(header[_FREE_LIST : _FREE_LIST + 4], "big")
        left = int.from_bytes(header[_FREE_LIST + 4 : _FREE_LIST + 8], "big")
        while trunk and left > 0:
            stream.seek((trunk - 1) * page_size)
            page = stream.read(page_size)
            count = int.from_bytes(page[4:8], "big")
            leaves = [int.from_bytes(page[8 + 4 * i : 12 + 4 * i], "big") for i in range(count)]
            left -= 1 + count
            for leaf in leaves:
                stream.seek((leaf - 1) * page_size)
                if any(stream.read(page_size)):
                    found.append(leaf)
            trunk = int.from_bytes(page[:4], "big")
    if not found:
        return []
    return [f"{path}: {len(found)} free pages are not empty, as page {found[0]}"]
