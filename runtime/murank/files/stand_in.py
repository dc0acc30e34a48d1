"""What lies where a file should be: a pointer of Git LFS, a web page that was saved, nothing.

Whoever cannot make sense of a file, or cannot open it, asks here before saying that it is damaged.
"""

import re
from pathlib import Path

from murank._exceptions import InputError

_LOOKED_AT = 512  # bytes
EMPTY = "is empty (0 bytes): copy or download it again"
_WHOLE = "not the file itself"
_KNOWN = (
    (
        re.compile(rb"version https://(git-lfs|hawser)\.github\.com/"),
        f"is a Git LFS pointer, {_WHOLE}: run `git lfs pull` in its repository, or download it",
    ),
    (
        re.compile(rb"/annex/objects/|\.\./.*/?annex/objects/"),
        f"is a git-annex pointer, {_WHOLE}: run `git annex get` on it",
    ),
    (
        re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head|\?xml[^<]*<(html|error))", re.I),
        f"is a web page, {_WHOLE}: what was saved is a login or an error; download it again",
    ),
    (
        re.compile(rb'\s*\{"(error|message|detail)":\s*"[^"]*"'),
        f"is a server's answer, {_WHOLE}: what was saved is an error; download it again",
    ),
    (re.compile(rb"\x1f\x8b"), "is packed with gzip: unpack it first, as with gunzip"),
    (
        re.compile(rb"\x00\x05\x16\x07"),
        f"is what macOS keeps beside a file (AppleDouble), {_WHOLE}: delete it",
    ),
    (re.compile(rb"\Z"), EMPTY),
)


def stands_in(head: bytes) -> str | None:
    """Say what the first bytes of a file are that stand in for it; None: nothing known."""
    return next((what for pattern, what in _KNOWN if pattern.match(head)), None)


def stand_in(path: Path) -> str | None:
    """Say what lies at a path where a file should be; None: perhaps the file."""
    try:
        if path.is_symlink() and not path.exists():
            return f"is a link to {path.readlink()}, which is missing: copy or download that file"
        if not path.is_file():  # a FIFO would be waited for
            return None
        with path.open("rb") as file:
            return stands_in(file.read(_LOOKED_AT))
    except OSError:  # who reads it tells
        return None


def check_no_stand_in(path: Path) -> None:
    """Raise InputError if something else lies where a file should be."""
    what = stand_in(path)
    if what is not None:
        raise InputError(f"{path} {what}")


def misread(path: Path, why: str) -> InputError:
    """Return the error of a file that cannot be used; `why` follows its name, unless it is none."""
    what = stand_in(path)
    return InputError(f"{path}{why}" if what is None else f"{path} {what}")
