"""What lies in a `cache_dir`, of whichever engines, and how it is erased without one."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from murank._exceptions import InputError
from murank.engine.token_files import TokenFile, TokenFolders, erasing
from murank.folder.contents import EngineFiles
from murank.folder.graph_hash import vision_sha256
from murank.folder.integrity import check_engine
from murank.folder.manifest import read_manifest_once


@dataclass(frozen=True)
class CacheUsage:
    """The files of one engine's vision part."""

    name: str  # of their folder: "vision-" and the first digits of the part's hash
    files: tuple[TokenFile, ...]

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.bytes for file in self.files)

    @property
    def oldest(self) -> float | None:
        """When the oldest was written, seconds since 1970; None if there is none."""
        return min((file.time for file in self.files), default=None)

    @property
    def newest(self) -> float | None:
        """When the newest was written."""
        return max((file.time for file in self.files), default=None)

    @property
    def aside(self) -> int:
        """Files that are being written, or were when their writer was killed."""
        return sum(file.is_aside for file in self.files)


def folders_of(engine: Path) -> Collection[str]:
    """Return the names that an engine's folder has, and had up to murank 0.1 (before calibration).

    Raises
    ------
    InputError
        It is no whole engine, or has no vision part.
    """
    manifest, sha256 = read_manifest_once(engine)
    check_engine(engine, hashes=False, manifest=manifest)
    part = vision_sha256(EngineFiles(engine, manifest))
    if part is None:
        raise InputError(f"{engine} has no scorer of image pairs, so it keeps no vision tokens")
    return {TokenFolders.name_of(part), TokenFolders.name_of(sha256)}


def cache_usage(root: Path, only: Collection[str] | None = None) -> list[CacheUsage]:
    """Return what is there, of all engines or of these folders only.

    Raises
    ------
    InputError
        There is no such folder, or it cannot be read.
    OutputError
        It, or one of ours in it, is a symlink, no folder, or another user's.
    """
    folders = TokenFolders(root)
    try:
        usages = []
        for name in folders.names():
            if only is None or name in only:
                with folders.open(name) as folder:
                    usages.append(CacheUsage(name, tuple(folder.files())))
    except OSError as error:
        raise InputError(f"{root}: {error.strerror or error}") from error
    return usages


def clear_usage(root: Path, usages: Collection[CacheUsage], older_than: float) -> list[CacheUsage]:
    """Delete the files of `cache_usage` that are older than so many seconds; return those.

    Raises
    ------
    OutputError
        One may have stayed.
    """
    folders, before, deleted = TokenFolders(root), time.time() - older_than, []
    for one in usages:
        old = tuple(file for file in one.files if older_than <= 0 or file.time < before)
        with erasing(root / one.name), folders.open(one.name) as folder:
            for file in old:
                folder.delete(file.name)
        if len(old) == len(one.files):
            folders.remove_empty(one.name)
        deleted.append(CacheUsage(one.name, old))
    return deleted
