"""Queries that lie in the gallery themselves: each would find itself first."""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path


def note_of_shared(queries: Sequence[Path], gallery: Sequence[Path]) -> tuple[str, ...]:
    """Return a note that counts the queries whose file, or whose bytes, the gallery has; or none.

    Files that cannot be read are passed over.
    """
    shared = list(_shared(queries, gallery))
    if not shared:
        return ()
    return (
        f"{len(shared):,} of {len(queries):,} queries are in the gallery, too, and find themselves "
        f"there; the first is {shared[0]}",
    )


def _shared(queries: Sequence[Path], gallery: Sequence[Path]) -> Iterator[Path]:
    of_size: dict[int, list[Path]] = {}
    identities = set()
    for path, status in _statuses(gallery):
        identities.add((status.st_dev, status.st_ino))
        of_size.setdefault(status.st_size, []).append(path)
    digests: dict[int, set[bytes]] = {}  # of the gallery's files of a size, where it is asked for
    for path, status in _statuses(queries):
        size = status.st_size
        if (status.st_dev, status.st_ino) in identities:
            yield path
        elif size in of_size:
            if size not in digests:
                digests[size] = {_digest(other) for other in of_size[size]} - {b""}
            if _digest(path) in digests[size]:
                yield path


def _statuses(paths: Sequence[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    for path in paths:
        with contextlib.suppress(OSError):
            yield path, path.stat()


def _digest(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return b""
