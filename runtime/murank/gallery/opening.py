"""How the file of a gallery is opened or made: by its writer or a reader, for one encoder."""

import contextlib
from pathlib import Path

from murank._exceptions import InputError
from murank.engine.encoder import Encoder
from murank.engine.engine import Engine
from murank.gallery.database import connect, content_errors, create
from murank.gallery.gallery_file import GalleryFile
from murank.gallery.milvus import Milvus, MilvusCollections
from murank.gallery.state import State
from murank.gallery.writer_lock import WriterLock
from murank.rerank.alignment import Alignment


def encoder_of(engine: Engine) -> Encoder:
    """Return what makes features. Raises InputError."""
    if engine.encoder is None:
        raise InputError("a gallery needs features, and this engine has no encoder loaded")
    return engine.encoder


def opened(
    path: Path, engine: Engine | None, alignment: Alignment, milvus: Milvus | None, *,
    writes: bool,
) -> tuple[State, WriterLock | None]:  # fmt: skip
    """Return what is searched and, for the writer, its lock. Raises as `Gallery.open`."""
    dim = None if engine is None else encoder_of(engine).part.dim
    if milvus is not None and not writes:
        raise InputError("milvus is filled by the process that writes: leave it out with mode='r'")
    with contextlib.ExitStack() as made:  # closed if one fails
        writer = None
        if writes:
            if engine is None or path.exists():
                connect(
                    path, writes=False, any_format=True
                ).close()  # nothing is left beside what is none
            writer = WriterLock(path)
            made.callback(writer.release)
            if engine is not None and dim is not None and not path.exists():
                create(path, {"encoder_sha256": str(engine.encoder_sha256), "dim": int(dim)})
        files: list[GalleryFile] = []
        for one in [True, False] if writes else [False]:
            files.append(GalleryFile(path, writes=one))
            made.callback(files[-1].close)
        if engine is not None and files[0].meta("encoder_sha256") != engine.encoder_sha256:
            raise InputError(
                f"{path} holds features of another encoder: open it with that engine, or name "
                "another file"
            )
        elsewhere = None
        if milvus is not None:
            elsewhere = MilvusCollections(milvus)
            made.callback(elsewhere.close)
        with content_errors(path):
            state = State(engine, files[0] if writes else None, files[-1], alignment, elsewhere)
        made.pop_all()
    return state, writer
