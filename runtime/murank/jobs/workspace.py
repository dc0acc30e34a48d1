"""The folder a job works in: who may write there, finished stages, the journal."""

import contextlib
import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

from murank._exceptions import OutputError
from murank.files.atomic import (
    abandoned,
    check_writable,
    made_folder,
    readable_errors,
    sole_writer,
    write_files,
)
from murank.jobs.needs import check_room
from murank.jobs.share import Share
from murank.jobs.stage import Arrays, Record, read_stage, stage_record, stage_writer
from murank.journal.journal import Digest, Journal
from murank.journal.pruning import prune
from murank.rerank.ranking import ranked_files

FEATURES_FILE = "features.npz"
MU_FILES: Mapping[str, str] = {"given": "mu.npz", "swapped": "mu_swapped.npz"}
GALLERY_MU_FILES: Mapping[str, str] = {
    "given": "mu_gallery.npz", "swapped": "mu_gallery_swapped.npz"
}  # fmt: skip

_STAGE_FILES = (FEATURES_FILE, *MU_FILES.values(), *GALLERY_MU_FILES.values())
_HIDDEN = ".murank-batch"
JOURNAL = "journal"  # stays when the job is finished: the next one asks for what is new
JOB_FILE = "job.json"  # of a finished job; in the hidden folder, of an unfinished one
_REDO = "pass --overwrite (what still fits is used again) or another name"


def is_unfinished(folder: Path) -> bool:
    """Whether a job was stopped there: its files may be of two runs."""
    return (folder / _HIDDEN).is_dir() and not (folder / JOB_FILE).exists()


class Workspace(Protocol):
    """Where stages are kept."""

    def record(self, name: str) -> Record | None:
        """Return what the file of a stage says of itself, None if there is none."""

    def check_room(self, size: int) -> None:
        """Raise OutputError unless so many bytes can be written."""

    def write(self, name: str, arrays: Arrays, record: Record) -> None:
        """Write the file of a stage."""


class InMemory:
    """Keeps nothing."""

    def record(self, name: str) -> Record | None:
        """Return None."""
        del name
        return None

    def check_room(self, size: int) -> None:
        """Do nothing."""

    def write(self, name: str, arrays: Arrays, record: Record) -> None:
        """Do nothing."""


class JobFolder:
    """The folder of `-o`: unused, unfinished (a hidden folder says of which job), or finished.

    Nothing is written before the first answer is there; finished means `job.json`. Runs that each
    do a share of the job work in one folder at once: each writes to a journal of its own.
    """

    def __init__(
        self,
        path: Path,
        job: Mapping[str, Any],
        *,
        overwrite: bool,
        writes: Collection[str],
        inputs: Collection[Path] = (),
        share: Share | None = None,
    ) -> None:
        """Prepare; the context manager takes the folder and opens the journal.

        `job` is what the stages depend on, by option; `writes` names the files that they make, of
        which none may be among the `inputs`.
        """
        self._path = path
        self._job = job
        self._overwrite = overwrite
        self._writes = writes
        self._inputs = {file.absolute() for file in inputs}
        self._lock: contextlib.ExitStack | None = None
        self._begun = False
        self._share = share
        self.journal = Journal()

    def __enter__(self) -> "JobFolder":
        """Take the folder.

        Raises
        ------
        OutputError
            The job may not work there, or another process does.
        MachineError
            Its file system cannot keep a second run out.
        """
        if self._path.exists() and not self._path.is_dir():
            raise OutputError(f"{self._path} is a file; name a folder")
        check_writable(self._path)
        if self._path.is_dir():
            self._take()
        root, part = self._path / JOURNAL, self._share.name if self._share else ""
        self.journal = Journal(root, root / part, self._begin)
        return self

    def __exit__(self, *_error: object) -> None:
        try:
            self.journal.close()
        finally:
            if self._lock is not None:
                self._lock.close()

    def record(self, name: str) -> Record | None:
        """Return what the file of a stage says of itself, None if there is none."""
        return stage_record(self._path / name)

    def check_room(self, size: int) -> None:
        """Raise OutputError unless so many bytes can be written."""
        check_room(self._path, size)

    def write(self, name: str, arrays: Arrays, record: Record) -> None:
        """Write the file of a stage. A ranking is of what was there before, so it goes."""
        self._begin()
        writers = {name: stage_writer(arrays, record)}
        ranked = ranked_files([file.name for file in self._path.iterdir()])
        write_files(self._path, writers, remove=ranked)

    def finish(self, report: Mapping[str, object], *, features: str) -> None:
        """Write job.json; what is of other features than these (fingerprint) goes."""
        text = json.dumps(report, indent=2, allow_nan=False) + "\n"
        self.journal.close()
        write_files(self._path, {JOB_FILE: lambda file: file.write(text.encode())})
        for name in _STAGE_FILES:
            record = stage_record(self._path / name)
            is_other = record is not None and record.get("features") != features
            if is_other and read_stage(self._path / name) is not None:  # else it is not ours
                _delete(self._path / name)
        _delete(self._path / _HIDDEN)

    def prune(self, contents: Collection[Digest], paths: Collection[str]) -> None:
        """Forget all contents but these and those of these files; once it is finished."""
        recorded = self.journal.recorded(paths)
        prune(self._path / JOURNAL, {*contents, *recorded}, paths)

    def _begin(self) -> None:
        """Mark the folder as unfinished, before anything in it changes."""
        if self._begun:
            return
        if self._share is not None and (self._path / JOB_FILE).exists():
            self._begun = True  # it was finished meanwhile: answers are kept for the next run
            return
        text = json.dumps({"schema_version": 1, "job": self._job}, indent=2) + "\n"
        with readable_errors(self._path), made_folder(self._path):
            if self._lock is None:
                self._take()
            write_files(self._path / _HIDDEN, {JOB_FILE: lambda file: file.write(text.encode())})
        _delete(self._path / JOB_FILE)
        self._begun = True

    def _take(self) -> None:
        """Keep other processes out until this one leaves, and check what is there."""
        with contextlib.ExitStack() as stack:
            if self._share is None:
                stack.enter_context(sole_writer(self._path, must_lock=True))
            else:
                place = self._path / JOURNAL / self._share.name
                stack.enter_context(made_folder(place))
                stack.enter_context(sole_writer(place))
            self._check()
            self._lock = stack.pop_all()

    def _check(self) -> None:
        names = {file.name for file in self._path.iterdir()} - set(abandoned(self._path))
        names.discard(JOURNAL)  # of content, whatever the job
        if names and not self._overwrite:
            self._check_unfinished(names)
        for file in self._inputs & {(self._path / name).absolute() for name in self._writes}:
            raise OutputError(f"{file} would be read and replaced; name another folder")
        for name in sorted(names & set(self._writes)):
            if read_stage(self._path / name) is None:
                raise OutputError(
                    f"{self._path / name} would be replaced, but it has been changed or is not of "
                    "murank score; move it away, or name another folder"
                )

    def _check_unfinished(self, names: set[str]) -> None:
        """Raise OutputError unless this is the unfinished folder of the same job."""
        if JOB_FILE in names:
            raise OutputError(f"{self._path} is not empty: it holds a finished job; {_REDO}")
        if _HIDDEN not in names:
            raise OutputError(f"{self._path} is not empty; {_REDO}")
        foreign = names - {*_STAGE_FILES, *ranked_files(names), _HIDDEN}
        if foreign:
            foreign_names = ", ".join(sorted(foreign))
            raise OutputError(f"{self._path} holds files of others ({foreign_names}); {_REDO}")
        before = _read_job(self._path / _HIDDEN / JOB_FILE)
        changed = [key for key in {**before, **self._job} if before.get(key) != self._job.get(key)]
        if changed:
            raise OutputError(
                f"{self._path} holds an unfinished run of another job ({', '.join(changed)} "
                f"changed); {_REDO}"
            )


def _read_job(file: Path) -> Mapping[str, Any]:
    try:
        job = json.loads(file.read_bytes())["job"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return job if isinstance(job, dict) else {}


def _delete(path: Path) -> None:
    with readable_errors(path.parent):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
