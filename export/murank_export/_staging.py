"""A folder that takes its place once it is whole."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from murank import OutputError
from murank._atomic import made_folder
from murank.engine.manifest import MANIFEST
from murank_export._steps import Report


@contextlib.contextmanager
def staged(output: Path, *, overwrite: bool, report: Report) -> Iterator[Path]:
    """Yield a folder beside `output` that takes its place once all went well."""
    if output.is_symlink():
        raise OutputError(f"{output} is a symlink; name the folder itself")
    if output.exists():
        if not overwrite:
            raise OutputError(f"{output} exists; pass --overwrite or another name")
        if not (output / MANIFEST).is_file():
            raise OutputError(f"{output} is no engine folder, so it is not overwritten")
    parent = output.absolute().parent
    left = [path.name for path in parent.glob(f".{output.name}-*") if path.is_dir()]
    if left:
        report(f"note: {parent / left[0]} is left from an export that was killed; delete it")
    stage = parent / f".{output.name}-{secrets.token_hex(8)}"
    try:
        with made_folder(parent):
            try:
                stage.mkdir(mode=0o700)
                yield stage
                _sync(stage)
                _put_in_place(stage, output, overwrite=overwrite)
            finally:
                shutil.rmtree(stage, ignore_errors=True)
        _sync(parent, deep=False)
    except OSError as error:
        # A source that vanished on the way is an OSError, too: name the file that it is about.
        name = error.filename or output
        raise OutputError(f"cannot write {output}: {name}: {error.strerror or error}") from error


def _put_in_place(stage: Path, output: Path, *, overwrite: bool) -> None:
    if not (overwrite and output.exists()):
        stage.rename(output)  # refused by the system if a folder came to be there meanwhile
        return
    old = stage.with_name(f"{stage.name}-old")
    output.rename(old)
    try:
        stage.rename(output)
    except BaseException:
        old.rename(output)
        raise
    shutil.rmtree(old)


def _sync(folder: Path, *, deep: bool = True) -> None:
    """Make what was written there durable."""
    for path in [*(folder.rglob("*") if deep else ()), folder]:
        if deep:  # weights of a model, nobody's face: whoever runs the engine may read it
            path.chmod(0o755 if path.is_dir() else 0o644)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
