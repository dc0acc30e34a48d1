"""What `murank rerank` wrote from images, as others read it."""

from pathlib import Path

from murank._exceptions import InputError
from murank.jobs.workspace import FEATURES_FILE, is_unfinished


def features_of_run(folder: Path) -> Path:
    """Return its features file. Raises InputError if it is no such folder, or not finished."""
    file = folder / FEATURES_FILE
    if not file.is_file():
        raise InputError(
            f"{folder} has no {FEATURES_FILE}; name a folder that `murank rerank --engine` wrote "
            "from images, or a features file"
        )
    if is_unfinished(folder):
        raise InputError(f"{folder} holds an unfinished run; run it again to finish it")
    return file
