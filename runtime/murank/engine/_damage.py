"""How defects of an engine folder are told."""

from pathlib import Path

from murank._exceptions import InputError


def damaged(path: Path, what: str) -> InputError:
    """Return the error for a folder that is not as export left it."""
    return InputError(f"{path}: {what}; copy the engine's folder again, or export it again")
