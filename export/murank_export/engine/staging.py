"""The folder of an engine, which takes its place once it is whole."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from murank import OutputError
from murank.files.atomic import new_folder
from murank.folder.manifest_fields import MANIFEST


@contextlib.contextmanager
def staged(output: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a folder beside `output` that takes its place once all went well."""
    if output.is_symlink():
        raise OutputError(f"{output} is a symlink; name the folder itself")
    if output.exists():
        if not overwrite:
            raise OutputError(f"{output} exists; pass --overwrite or another name")
        if not (output / MANIFEST).is_file():
            raise OutputError(f"{output} is no engine folder, so it is not overwritten")
    with new_folder(output.absolute(), replace=overwrite) as stage:
        try:
            yield stage
            _open_to_readers(stage)
        except OSError as error:
            # A source that vanished on the way is an OSError, too: name the file it is about.
            name, what = error.filename or output, error.strerror or error
            raise OutputError(f"cannot write {output}: {name}: {what}") from error


def _open_to_readers(folder: Path) -> None:
    """Weights of a model, nobody's face: whoever runs the engine may read it."""
    for path in (*folder.rglob("*"), folder):
        path.chmod(0o755 if path.is_dir() else 0o644)
