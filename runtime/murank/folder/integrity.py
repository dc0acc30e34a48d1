"""Whether an engine folder is what its manifest says, checked before anything is loaded.

What is loaded is checked again, from the bytes that are used: see `murank.folder.contents`.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath

from murank._exceptions import InputError
from murank.checks.text import shown
from murank.files.aside import is_aside
from murank.files.damage import damaged
from murank.files.plain import check_folder, file_size, readable_errors
from murank.folder.contents import check_graph, hashed, referred
from murank.folder.manifest import FileEntry, Manifest, read_manifest, read_manifest_once
from murank.folder.manifest_fields import MANIFEST

Progress = Callable[[str, int, int], None]  # stage, done, total

_SHOWN = 5  # names in a message


def check_engine(
    folder: str | os.PathLike[str],
    *,
    hashes: bool = True,
    manifest: Manifest | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Check an engine folder against its manifest, and return that.

    Every listed file is there, regular, of the stated size and content, and reached through no
    symlink below `folder`; nothing else is there; no ONNX file refers to external data that is not
    listed, or holds an operator that murank does not run.

    Parameters
    ----------
    folder
        The engine; nothing in it is loaded or changed.
    hashes
        False: large files are not read, their sizes alone are compared.
    manifest
        What was read of it already; None: it is read now.
    progress
        Called with a stage, and with MiB hashed and in all.

    Raises
    ------
    InputError
        The first defect found, and what to do.
    """
    root = Path(folder)
    manifest = read_manifest(root) if manifest is None else manifest
    for name, entry in manifest.files.items():
        size = _size(root, name)
        if size != entry.size:
            raise damaged(root / name, f"it has {size} bytes instead of {entry.size}")
    _check_nothing_else(root, manifest)
    if hashes:
        _check_hashes(root, manifest, progress)
    for name in manifest.files:
        if name.endswith(".onnx"):
            list(referred(root, name, check_graph(root / name), manifest.files))
    return manifest


def read_pinned(folder: str | os.PathLike[str], sha256: str | None) -> tuple[Manifest, str]:
    """Return the manifest and its sha256, read once: calibration may replace it meanwhile.

    Raises InputError as `read_manifest` does, and if it is not the engine given (None: any).
    """
    manifest, made = read_manifest_once(folder)
    check_pinned(folder, made, sha256)
    return manifest, made


def check_pinned(folder: str | os.PathLike[str], own: str, sha256: str | None) -> None:
    """Raise InputError if an engine's sha256 is not the one given (None: any)."""
    if sha256 not in (None, own):
        raise InputError(f"{folder} is another engine: its sha256 is {own}, not {sha256}")


def hash_files(folder: str | os.PathLike[str], names: Iterable[str]) -> dict[str, FileEntry]:
    """Return the manifest's entries for files of `folder`, in the order given.

    Raises
    ------
    InputError
        One is missing, not regular, or reached through a symlink.
    """
    root = Path(folder)
    made = {}
    for name in names:
        _size(root, name)
        made[name] = hashed(root / name)
    return made


def _size(root: Path, name: str) -> int:
    """Return the bytes of a file that is reached through plain folders."""
    for parent in _parents(name):
        check_folder(root / parent)
    return file_size(root / name)


def _check_nothing_else(root: Path, manifest: Manifest) -> None:
    names = [shown(name) for name in islice(_unlisted(root, manifest), _SHOWN + 1)]
    if names:
        names[_SHOWN:] = ["..."][: len(names) - _SHOWN]
        raise damaged(root, f"it holds what {MANIFEST} does not list: {', '.join(names)}")


def _unlisted(root: Path, manifest: Manifest) -> Iterator[str]:
    """Yield what is in the folder for no reason, not entering folders of that kind."""
    folders = {parent for name in manifest.files for parent in _parents(name)}
    known = {MANIFEST, *manifest.files, *folders}
    for parent in ("", *sorted(folders)):
        with readable_errors(root / parent), os.scandir(root / parent) as entries:
            for entry in entries:
                name = f"{parent}/{entry.name}" if parent else entry.name
                # A calibration writes its manifest aside, or was killed over it.
                is_ours = not parent and is_aside(name) and entry.is_file(follow_symlinks=False)
                if name not in known and not is_ours:
                    yield name


def _check_hashes(root: Path, manifest: Manifest, progress: Progress | None) -> None:
    done, total = 0, manifest.size

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress("MiB hashed", done >> 20, total >> 20)

    for name, entry in manifest.files.items():
        if hashed(root / name, lambda chunk: advance(len(chunk))) != entry:
            raise damaged(root / name, f"its content differs from its sha256 in {MANIFEST}")


def _parents(name: str) -> list[str]:
    """Folders above a file, outermost first: "a" and "a/b" for "a/b/c"."""
    return [str(parent) for parent in reversed(PurePosixPath(name).parents)][1:]
