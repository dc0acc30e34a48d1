"""Files of an engine, read once: what is hashed is what is used, whatever becomes of the folder.

onnxruntime maps the weights of a graph and reads them for as long as a session lives: written to in
place, the folder would change the answers, and end the process where it became shorter. So a graph
is loaded from a copy of our own, which is hashed while it is made and has no name afterwards. It
takes room in the temporary folder (TMPDIR) and no memory; docs/loading.md has what it costs.
"""

import contextlib
import hashlib
from collections.abc import Callable, Collection, Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, Any

from numpy.typing import NDArray

from murank._exceptions import InputError, MachineError
from murank.checks.text import shown
from murank.files.aside import temporary_folder
from murank.files.damage import damaged
from murank.files.plain import open_file
from murank.folder.manifest import FileEntry, Manifest
from murank.folder.manifest_fields import MANIFEST, is_clean_name
from murank.folder.onnx_references import GraphFacts, facts_of, graph_facts
from murank.folder.operators import check_operators

_CHUNK = 1 << 20


class EngineFiles:
    """Files of an engine folder.

    Attributes
    ----------
    folder
        The engine.
    read_so_far
        Names of the files that were read, and found to be what the manifest says.
    """

    def __init__(
        self, folder: Path, manifest: Manifest | None = None, *, in_place: bool = False
    ) -> None:
        """Take those of a manifest; None: of this process's own making, not to be checked.

        With `in_place` nobody writes to the folder: graphs are loaded from it as they are, and what
        is not read is not looked at.
        """
        self.folder = folder
        self._in_place = in_place or manifest is None
        self._manifest = manifest
        self._entries = None if manifest is None else manifest.files
        self.read_so_far: set[str] = set()

    @property
    def manifest(self) -> Manifest:
        """What the folder says of itself; InputError if it is of this process's own making."""
        if self._manifest is None:
            raise InputError(f"{self.folder} is no engine's folder as yet: it has no {MANIFEST}")
        return self._manifest

    @property
    def has_manifest(self) -> bool:
        """Whether it is a finished engine's folder."""
        return self._manifest is not None

    @property
    def are_hashed(self) -> bool:
        """Whether graphs are what the manifest says; else nobody has looked."""
        return not self._in_place

    def read(self, name: str) -> bytes:
        """Return what a file holds.

        Raises
        ------
        InputError
            It is not what the manifest says.
        """
        content = BytesIO()
        self._take(name, content.write)
        return content.getvalue()

    def check_rest(self) -> None:
        """Raise InputError if a file that was not read is not what the manifest says."""
        if self._in_place:
            return
        for name in (self._entries or {}).keys() - self.read_so_far:
            self._take(name, lambda _: None)

    def tensors(self, name: str) -> dict[str, NDArray[Any]]:
        """Return the arrays of a .safetensors file.

        Raises
        ------
        InputError
            It is not what the manifest says, or is none.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            arrays: dict[str, NDArray[Any]] = load(self.read(name))
        except (SafetensorError, KeyError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{self.folder / name} cannot be read: {error}") from error
        return arrays

    @contextlib.contextmanager
    def graph(self, name: str) -> Iterator[Path]:
        """Copy a graph and its external data; when the context ends the copy loses its name.

        What has mapped it by then keeps it. Nothing is copied `in_place`, nor of this process's own
        making.

        Raises
        ------
        InputError
            A file is not what the manifest says, the graph refers to another one, or it holds an
            operator that murank does not run.
        MachineError
            There is no room for the copy.
        """
        if self._in_place:
            check_graph(self.folder / name)
            yield self.folder / name
            return
        with self._own_folder() as own:
            self._copy_to(own, name)
            facts = check_graph(own / name, self.folder / name)
            for beside in referred(self.folder, name, facts, self.manifest.files):
                self._copy_to(own, beside)
            yield own / name

    def graph_files(self, name: str) -> tuple[str, ...]:
        """Return the names of a graph and of its external data, as the hashed bytes have them.

        Raises
        ------
        InputError
            The graph is not what the manifest says, or refers to a file that is not listed.
        """
        # In memory: whoever erases tokens may have no room on a disk, and weights lie beside.
        facts = facts_of(self.read(name), self.folder / name)
        return (name, *referred(self.folder, name, facts, self.manifest.files))

    @contextlib.contextmanager
    def _own_folder(self) -> Iterator[Path]:
        """Make a folder that nobody else may enter, and that is gone at the end."""
        with contextlib.ExitStack() as stack:
            with self._told_room():
                own = stack.enter_context(temporary_folder("graph"))
            yield own

    def _copy_to(self, own: Path, name: str) -> None:
        with self._told_room():
            (own / name).parent.mkdir(parents=True, exist_ok=True)
            with (own / name).open("xb", buffering=0) as file:
                self._take(name, lambda chunk: self._write(file, chunk))

    def _write(self, file: IO[bytes], chunk: bytes) -> None:
        with self._told_room():  # here: an error of reading is another one
            rest = memoryview(chunk)
            while rest:
                rest = rest[file.write(rest) :]

    def _take(self, name: str, take: Callable[[bytes], object]) -> None:
        path = self.folder / name
        entry = None if self._entries is None else self._entries[name]
        entry_read = hashed(path, take, most=None if entry is None else entry.size)
        if entry is not None and entry_read != entry:
            raise damaged(path, f"its content differs from its sha256 in {MANIFEST}")
        self.read_so_far.add(name)

    @contextlib.contextmanager
    def _told_room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            size = sum(entry.size for entry in (self._entries or {}).values())
            raise MachineError(
                f"{self.folder}: its graphs are loaded from copies, and the temporary folder takes "
                f"none ({error.strerror or error}): set TMPDIR to a folder with {size >> 20} MiB "
                "free"
            ) from error


def hashed(
    path: Path, take: Callable[[bytes], object] = lambda _: None, most: int | None = None
) -> FileEntry:
    """Hand a file's content over, piece by piece; return its size and hash.

    Raises
    ------
    InputError
        It is no regular file, cannot be read, or is larger than `most`.
    """
    digest, size = hashlib.sha256(), 0
    with open_file(path) as file:
        while chunk := file.read(_CHUNK):
            size += len(chunk)
            if most is not None and size > most:
                raise damaged(path, f"it has over {most} bytes")
            digest.update(chunk)
            take(chunk)
    return FileEntry(sha256=digest.hexdigest(), size=size)


def check_graph(file: Path, called: Path | None = None) -> GraphFacts:
    """Return what a graph refers to; InputError if it holds what murank does not run."""
    facts = graph_facts(file, called)
    check_operators(facts, file if called is None else called)
    return facts


def referred(folder: Path, name: str, facts: GraphFacts, listed: Collection[str]) -> Iterator[str]:
    """Yield the files that a graph's external data lie in; InputError if one is not listed."""
    for location in sorted(facts.locations):
        refers = f"it refers to external data in {shown(location)}"
        if not is_clean_name(location):
            raise damaged(folder / name, f"{refers}, which may lie outside the folder")
        beside = str(PurePosixPath(name).parent / location)
        if beside not in listed:
            raise damaged(folder / name, f"{refers}, which {MANIFEST} does not list")
        yield beside
