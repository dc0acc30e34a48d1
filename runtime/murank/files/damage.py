"""How defects of an engine folder are told."""

from pathlib import Path

from murank._exceptions import InputError
from murank.files.stand_in import EMPTY, stand_in


class DamagedError(InputError):
    """A folder is not as export left it; `what` says how."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path}: {what}; copy the engine's folder again, or export it again")
        self.what = what


def damaged(path: Path, what: str) -> InputError:
    """Return the error for a folder that is not as export left it."""
    instead = stand_in(path)
    return DamagedError(path, what if instead in (None, EMPTY) else f"it {instead}")
