"""How the file of a gallery is opened or made: by its writer or a reader, for one encoder."""

from pathlib import Path

from murank._exceptions import InputError
from murank.engine.encoder import Encoder
from murank.engine.engine import Engine
from murank.gallery.database import create
from murank.gallery.gallery_file import GalleryFile
from murank.gallery.state import State
from murank.gallery.writer_lock import WriterLock
from murank.rerank.alignment import Alignment


def encoder_of(engine: Engine) -> Encoder:
    """Return what makes features. Raises InputError."""
    if engine.encoder is None:
        raise InputError("a gallery needs features, and this engine has no encoder loaded")
    return engine.encoder


def opened(
    path: Path, engine: Engine | None, alignment: Alignment, *, writes: bool
) -> tuple[State, WriterLock | None]:
    """Return what is searched and, for the writer, its lock. Raises InputError, OutputError."""
    dim = None if engine is None else encoder_of(engine).part.dim
    writer = WriterLock(path) if writes else None
    files: list[GalleryFile] = []
    try:
        if writes and engine is not None and dim is not None and not path.exists():
            create(path, {"encoder_sha256": str(engine.encoder_sha256), "dim": int(dim)})
        for one in [True, False] if writes else [False]:
            files.append(GalleryFile(path, writes=one))  # noqa: PERF401  closed if one fails
        if engine is not None and files[0].meta("encoder_sha256") != engine.encoder_sha256:
            raise InputError(
                f"{path} holds features of another encoder: open it with that engine, or name "
                "another file"
            )
        return State(engine, files[0] if writes else None, files[-1], alignment), writer
    except BaseException:
        for file in files:
            file.close()
        if writer is not None:
            writer.release()
        raise
