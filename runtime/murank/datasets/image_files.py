"""Finding folders and image files; nothing is opened."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from murank._exceptions import InputError
from murank.datasets.known_names import letters_of

# What the decoder takes; Thumbs.db, .mat and the like are no images and are passed over.
IMAGE_SUFFIXES = (
    ".bmp", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".webp",
)  # fmt: skip


_DEEPEST = 3  # folders of a data set's names in each other


def images_in(folder: Path) -> list[Path]:
    """Return the images that lie in the folder itself, sorted by name."""
    return [folder / entry.name for entry in _visible(folder) if _is_image(entry)]


def images_below(folder: Path, passed_over: Counter[str] | None = None) -> list[Path]:
    """Return the images of the folder and of all folders in it, sorted by path.

    `passed_over` counts, by suffix, the files that are taken for no image.

    Links to folders are followed, but each folder is read once, under the path that sorts first:
    a link that leads back up cannot go round for ever.
    """
    images: list[Path] = []
    seen: set[tuple[int, int]] = set()
    # The last one goes first: depth first, by name, gives paths in the order of their parts.
    waiting = [(folder, True)]
    while waiting:
        path, is_folder = waiting.pop()
        if not is_folder:
            images.append(path)
        elif (identity := _identity(path)) not in seen:
            seen.add(identity)
            shown = _visible(path)
            inner = [entry for entry in shown if _is_folder(entry) or _is_image(entry)]
            if passed_over is not None:
                names = {entry.name for entry in shown} - {entry.name for entry in inner}
                passed_over.update(Path(name).suffix.lower() or "none" for name in names)
            waiting += [(path / entry.name, _is_folder(entry)) for entry in reversed(inner)]
    return images


def folders_in(folder: Path) -> list[Path]:
    """Return the folders that lie in the folder itself, sorted by name."""
    return [folder / entry.name for entry in _visible(folder) if _is_folder(entry)]


def has_home(root: Path, homes: Sequence[str], needs: Sequence[str]) -> bool:
    """Whether `find_home` would find one."""
    return root.is_dir() and any(not lacking for _, lacking in _places(root, homes, needs))


def find_home(root: Path, homes: Sequence[str], needs: Sequence[str], layout: str) -> Path:
    """Return the first of root/home that has all of `needs`.

    Folders are known by the letters and digits of their names, in any case, and may lie in each
    other: what unpacks into a folder of its own is often put into one more of that name.

    Raises
    ------
    InputError
        None has; the message says what was looked for, where, and how the folder should look.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; it should hold {layout}")
    place, lacking = min(_places(root, homes, needs), key=lambda found: len(found[1]))
    if not lacking:
        return place
    if len(lacking) < len(needs):
        raise InputError(f"{place} lacks {' and '.join(lacking)}; {root} should hold {layout}")
    inner = ", ".join(f"{home}/" for home in homes if home)
    raise InputError(
        f"{root}: {' and '.join(needs)} not found, neither there nor in {inner}; "
        f"it should hold {layout}"
    )


def _places(
    root: Path, homes: Sequence[str], needs: Sequence[str]
) -> Iterator[tuple[Path, list[str]]]:
    """Yield the root, and folders of the homes' names below it, with what each lacks."""
    known = {letters_of(part) for home in homes for part in home.split("/") if part}
    level = [root]
    for _ in range(_DEEPEST + 1):
        for place in level:
            yield place, [need for need in needs if not (place / need).exists()]
        level = [
            inner for place in level for inner in folders_in(place)
            if letters_of(inner.name) in known
        ]  # fmt: skip


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        shown = [entry for entry in entries if not entry.name.startswith(".")]
    return sorted(shown, key=lambda entry: entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_image(entry: os.DirEntry[str]) -> bool:
    """By its name: what cannot be opened, as a link that leads nowhere, is told when it is."""
    return entry.name.lower().endswith(IMAGE_SUFFIXES) and not _is_folder(entry)
