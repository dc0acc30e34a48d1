"""What OpenVINO compiled, kept for the next process: it starts faster, and answers the same.

A file is a graph that will be run, weights and all, so it lies where TensorRT plans lie, and counts
only if folder and file belong to this user or to root, and nobody else may write to them. It is of
one engine, OpenVINO, device and setting; what does not fit, or cannot be kept, is compiled again.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from murank._exceptions import MurankError
from murank._version import __version__
from murank.backends.plan_folder import plans_of
from murank.files.atomic import write_files
from murank.files.json_object import write_json
from murank.files.private import is_ours_alone, open_folder
from murank.folder.contents import EngineFiles

_MOST = 256 << 20  # bytes of an engine: a larger one would be kept twice, and is slow to hash
_DIGEST = hashlib.sha256().digest_size
_DIGITS = 16


class CompiledFiles:
    """The compiled form of one graph, in `openvino/` among the plans of all engines."""

    def __init__(
        self, files: EngineFiles, name: str, plans: Path | None, made_by: Mapping[str, Any]
    ) -> None:
        """See `plans_of`; `made_by` is all that it depends on beside the engine."""
        told = write_json({**made_by, "graph": name, "murank": __version__})
        self._name = f"{hashlib.sha256(told).hexdigest()[:_DIGITS]}.blob"
        self._is_hashed = files.are_hashed
        self._folder: Path | None = None  # a user without a home has none
        if files.has_manifest and files.manifest.size <= _MOST:
            with contextlib.suppress(MurankError):
                of_engine = plans_of(files.manifest, plans)
                self._folder = of_engine.parent / "openvino" / of_engine.name

    def read(self) -> bytes | None:
        """Return what `write` was given; None if it is not there, whole, or ours alone."""
        if self._folder is None:
            return None
        with contextlib.suppress(OSError, MurankError), _opened(self._folder, self._name) as file:
            with os.fdopen(file, "rb", closefd=False) as stream:
                digest, content = stream.read(_DIGEST), stream.read()
            if hashlib.sha256(content).digest() == digest:
                return content
        return None

    def write(self, compiled: Any) -> None:
        """Keep a compiled graph, if there is a place for it, and it is the manifest's for sure."""
        if self._folder is None or not self._is_hashed:
            return
        try:
            content = compiled.export_model().getvalue()
        except RuntimeError:  # not every device can
            return
        digest = hashlib.sha256(content).digest()
        with contextlib.suppress(MurankError):
            write_files(self._folder, {self._name: lambda to: to.writelines((digest, content))})


@contextlib.contextmanager
def _opened(folder: Path, name: str) -> Iterator[int]:
    """Yield a descriptor of a file; PermissionError unless it and its folders are ours alone."""
    with (
        open_folder(folder.parent, ours=False) as above,
        open_folder(folder, within=above, ours=False) as within,
    ):
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=within)
        try:
            if not all(is_ours_alone(os.fstat(one)) for one in (above, within, file)):
                raise PermissionError(name)
            yield file
        finally:
            os.close(file)
