"""The plans of an engine for one target: whole, and in a place that is this user's own.

A plan is mapped once, hashed, and loaded from that same map, which shows what its file becomes in
between. So folders and file must belong to this user or to root, and nobody else may write to them.
What remains: root, and other processes of this user, which can do anything to this one as well;
and who had the file open for writing before it belonged to this user, which a file that
`murank build` wrote never did.
"""

import contextlib
import hashlib
import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from murank._exceptions import InputError, MachineError, OutputError
from murank.backends.plan_folder import files_sha256, plans_of
from murank.backends.trt.record import RECORD, PlanEntry, PlanPlatform, PlanRecord
from murank.files.atomic import made_folder, readable_errors, sole_writer, sweep, write_files
from murank.files.damage import DamagedError
from murank.files.json_object import parse_json, read_bounded, write_json
from murank.files.plain import check_folder, open_file
from murank.files.private import is_ours_alone
from murank.folder.contents import EngineFiles
from murank.folder.manifest import FileEntry

TIMING_CACHE = "timing.cache"
_AGAIN = "run murank build again"


class PlanStore:
    """The plans of one engine for one target."""

    def __init__(self, files: EngineFiles, target: PlanPlatform, plans: Path | None = None) -> None:
        """See `plans_of`."""
        of_engine = plans_of(files.manifest, plans)
        self._engine, self._of_engine = files.folder, of_engine
        self.folder = of_engine / target.fingerprint
        self.empty = PlanRecord(
            engine=files_sha256(files.manifest), target=target, plans={}, extra={}
        )

    def read(self) -> PlanRecord:
        """Return the record.

        Raises
        ------
        MachineError
            There are no plans for this target.
        InputError
            They are damaged, or others may write to them.
        """
        if not self.folder.exists():
            raise MachineError(self._why_none())
        path = self.folder / RECORD
        for folder in self._folders:
            with _told_again(folder):
                check_folder(folder)
            _check_ours(folder, folder.stat())
        with _told_again(path):
            data = parse_json(read_bounded(path), path)
            _check_ours(path, path.lstat())
        try:
            record = PlanRecord.from_json(data)
        except InputError as error:
            raise _damaged(path) from error
        if (record.engine, record.target) != (self.empty.engine, self.empty.target):
            raise InputError(
                f"{self.folder} holds plans of another engine, or for {record.target.title}: "
                f"{_AGAIN}"
            )
        return record

    @property
    def _folders(self) -> tuple[Path, Path, Path]:
        return self._of_engine.parent, self._of_engine, self.folder

    def _why_none(self) -> str:
        has = (
            "has TensorRT plans of another device, driver or TensorRT only, none"
            if self._of_engine.is_dir() and any(self._of_engine.iterdir())
            else "has no TensorRT plans"
        )
        return f"{self._engine} {has} for {self.empty.target.title}: run murank build there"

    @contextlib.contextmanager
    def open_plan(self, name: str, entry: PlanEntry) -> Iterator[mmap.mmap]:
        """Map a plan, after a look at all of it: InputError if it is not what was built."""
        with self._open(f"{name}.plan", entry.file) as content:
            yield content

    def timing_cache(self, record: PlanRecord) -> bytes:
        """Return what earlier builds left; nothing, if that is not whole."""
        entry = record.extra.get(TIMING_CACHE)
        if entry is None:
            return b""
        with contextlib.suppress(InputError), self._open(TIMING_CACHE, entry) as content:
            return bytes(content)
        return b""

    def is_whole(self, name: str, entry: PlanEntry) -> bool:
        """Whether a plan's file is what was built."""
        with contextlib.suppress(InputError), self.open_plan(name, entry):
            return True
        return False

    @contextlib.contextmanager
    def _open(self, name: str, entry: FileEntry) -> Iterator[mmap.mmap]:
        path = self.folder / name
        with _told_again(path), open_file(path) as file:
            status = os.fstat(file.fileno())
            _check_ours(path, status)
            if status.st_size != entry.size or entry.size == 0:
                raise _damaged(path)
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        # Not closed: TensorRT, or an exception's traceback, may still refer to it.
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise _damaged(path)
        yield content

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Keep other builds out.

        Raises
        ------
        OutputError
            One is at work, or nothing can be written.
        InputError
            The folder is there, and others may write to it.
        """
        for folder in self._folders:
            if folder.is_symlink():
                raise OutputError(f"{folder} is a symlink, which is not followed: remove it")
        with contextlib.ExitStack() as stack:
            with readable_errors(self.folder):
                stack.enter_context(made_folder(self.folder))
                descriptor = stack.enter_context(sole_writer(self.folder, follow=False))
                _check_ours(self.folder, os.fstat(descriptor))
                sweep(self.folder)
            yield

    def add(
        self, record: PlanRecord, name: str, plan: Any, made: Mapping[str, Any],
        timing_cache: bytes,
    ) -> PlanRecord:  # fmt: skip
        """Write a plan (bytes, or what looks like them) and what `PlanEntry` says of it."""
        entry = PlanEntry(file=_entry(plan), **made)
        files: dict[str, Any] = {f"{name}.plan": plan}
        extra = dict(record.extra)
        if timing_cache:
            files[TIMING_CACHE] = timing_cache
            extra[TIMING_CACHE] = _entry(timing_cache)
        record = replace(record, plans={**record.plans, name: entry}, extra=extra)
        files[RECORD] = write_json(record.to_json())  # last: it vouches for the others
        # Content is bound now, not when the loop has moved on.
        writers = {file: (lambda to, what=what: to.write(what)) for file, what in files.items()}
        write_files(self.folder, writers)
        return record


def _check_ours(path: Path, status: os.stat_result) -> None:
    """Raise InputError if another user than this one and root could change it."""
    if not is_ours_alone(status):
        raise InputError(
            f"{path} must belong to you or to root, and nobody else may write to it, since plans "
            f"are code: chmod go-w it, or delete it and {_AGAIN}"
        )


@contextlib.contextmanager
def _told_again(path: Path) -> Iterator[None]:
    """Let what is wrong with a plan's files end in the advice that helps."""
    try:
        yield
    except DamagedError as error:
        raise InputError(
            f"{path} cannot be used ({error.what}): delete it, and {_AGAIN}"
        ) from error


def _damaged(path: Path) -> InputError:
    """Return the error for a plan that is not what was built."""
    return InputError(f"{path} is not what murank build wrote: {_AGAIN}")


def _entry(content: Any) -> FileEntry:
    view = memoryview(content)
    return FileEntry(sha256=hashlib.sha256(view).hexdigest(), size=view.nbytes)
