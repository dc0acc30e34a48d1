"""A folder that takes its place once it is whole."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from murank import OutputError
from murank.engine.manifest import MANIFEST


@contextlib.contextmanager
def staged(output: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a folder beside `output` that takes its place once all went well."""
    if output.exists():
        if not overwrite:
            raise OutputError(f"{output} exists; pass --overwrite or another name")
        if not (output / MANIFEST).is_file():
            raise OutputError(f"{output} is no engine folder, so it is not overwritten")
    stage = output.absolute().parent / f".{output.name}-{secrets.token_hex(8)}"
    try:
        stage.mkdir(mode=0o700, parents=True)
        yield stage
        _sync(stage)
        if output.exists():
            old = stage.with_name(f"{stage.name}-old")
            output.rename(old)
            stage.rename(output)
            shutil.rmtree(old)
        else:
            stage.rename(output)
        _sync(output.absolute().parent, deep=False)
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _sync(folder: Path, *, deep: bool = True) -> None:
    """Make what was written there durable."""
    for path in [*(folder.rglob("*") if deep else ()), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
