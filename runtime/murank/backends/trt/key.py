"""The key that seals plans: random, of this user on this machine, made at the first build."""

import os
import secrets
import stat
from pathlib import Path

from murank._exceptions import InputError, OutputError
from murank.files.atomic import write_files
from murank.files.plain import open_file

_FILE = "plans.key"
_BYTES = 32


def existing_key() -> bytes | None:
    """Return the key; None if nothing was built here as yet.

    Raises
    ------
    InputError
        Others may read it, or it is damaged.
    """
    path = _folder() / _FILE
    if not path.exists():
        return None
    with open_file(path) as file:
        found = os.fstat(file.fileno())
        key = file.read(_BYTES + 1)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise InputError(f"{path} must be yours, and readable by you alone: chmod 600 it")
    if len(key) != _BYTES:
        raise InputError(f"{path} is damaged: delete it, and run murank build again")
    return key


def key_for_building() -> bytes:
    """Return the key, made if there is none; OutputError if it cannot be kept."""
    key = existing_key()
    if key is None:
        key = secrets.token_bytes(_BYTES)
        write_files(_folder(), {_FILE: lambda file: file.write(key)})
    return key


def _folder() -> Path:
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    try:
        root = state if state.is_absolute() else Path.home() / ".local" / "state"
    except RuntimeError as error:
        raise OutputError("this user has no home folder: set XDG_STATE_HOME to one") from error
    return root / "murank"
