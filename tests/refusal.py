"""What all refusals of a verb have in common."""

from pathlib import Path
from typing import Protocol

import pytest

from murank.cli import main


class Refuse(Protocol):
    """Run a verb that refuses; return what it says.

    Its exit code, nothing on standard output, one line of error that names the file, flag or
    argument; in the test's folder nothing appears, nothing changes, nothing goes.
    """

    def __call__(self, *words: object, names: object, code: int = 2) -> str:
        """Run `murank *words`."""


def refusing(folder: Path, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Return the check, for a test with this folder."""

    def refuse(*words: object, names: object, code: int = 2) -> str:
        before = written(folder)
        capsys.readouterr()
        assert main([*map(str, words)]) == code
        out, err = capsys.readouterr()
        assert out == ""
        *steps, said = err.splitlines()
        assert all(step.endswith(" ...") or step.startswith("note: ") for step in steps), err
        assert said.startswith("murank: error: ")
        assert str(names) in said
        assert written(folder) == before
        return said

    return refuse


def written(folder: Path) -> dict[Path, tuple[int, int]]:
    """Return size and time of everything in a folder."""
    found = {path: path.lstat() for path in folder.rglob("*")}
    return {path: (state.st_size, state.st_mtime_ns) for path, state in found.items()}
