"""job.json: what a finished job folder holds, and how it came about."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from murank._exceptions import InputError
from murank._version import __version__
from murank.files.plain import open_file
from murank.files.records import Record
from murank.folder.manifest import MuDefaults
from murank.jobs.workspace import (
    FEATURES_FILE,
    GALLERY_MU_FILES,
    JOB_FILE,
    MU_FILES,
    is_unfinished,
)
from murank.rerank.alignment import Alignment, Asked, load_alignment


@dataclass(frozen=True)
class AskedEngine(Record):
    """The engine that was asked."""

    folder: str
    sha256: str
    answers_sha256: str  # of all that mu depends on
    precision: str
    providers: Mapping[str, Any]  # of each graph: what ran it


@dataclass(frozen=True)
class AskedAlignment(Record):
    """The alignment that candidates were chosen by, as it was asked for."""

    level: Asked
    dims: Any
    file: str | None  # of one that was given
    sha256: str | None  # of what that held

    @classmethod
    def of(cls, asked: Alignment) -> "AskedAlignment":
        """Describe it."""
        given = asked.given
        if given is None:
            return cls(asked.level, asked.dims, None, None)
        return cls(asked.level, asked.dims, str(Path(given.name).absolute()), given.sha256)

    def again(self) -> Alignment:
        """Return what was asked for. Raises InputError if its file is not what it was."""
        if self.file is None:
            return Alignment(self.level, self.dims)
        given = load_alignment(self.file)
        if given.sha256 != self.sha256:
            raise InputError(
                f"{self.file} is not the alignment that candidates were chosen by; pass "
                "--alignment or --align-cameras"
            )
        return Alignment(given=given)


@dataclass(frozen=True, kw_only=True)
class JobReport(Record):
    """All that job.json says."""

    schema_version: int = 1
    murank_version: str = __version__
    engine: AskedEngine
    candidates: int | None  # of a query; None: no mu
    gallery_candidates: int | None
    order: Literal["given", "swapped", "both"] | None
    counts: Mapping[str, int]
    images_embedded: int = 0  # by the run that finished the job
    pairs_asked: int = 0  # by the same; in each order
    vision_tokens: Any = None  # of the same: images looked up, and those of them computed
    skipped: Any  # list of objects: path, reason and, of an image in pairs, how many
    stages: Mapping[str, str]  # files of the job, and how each came about
    asked_alignment: AskedAlignment
    alignment: Mapping[str, Any]  # what was done
    image_root: str  # where paths in the features start
    unlabelled: str | None  # why ids are not known
    bits: int | None  # of 16-bit grey images, as asked for
    mu_defaults: Mapping[str, MuDefaults]  # of the engine, by method
    inputs: Any = None
    notes: Any = ()
    seconds: Any = None


@dataclass(frozen=True)
class FinishedJob:
    """A folder that `murank score` finished."""

    folder: Path
    report: JobReport

    @property
    def features(self) -> Path:
        """Its features file."""
        return self.folder / FEATURES_FILE

    @property
    def image_root(self) -> Path:
        """Where paths in it start."""
        return Path(self.report.image_root)

    @property
    def mu(self) -> list[Path]:
        """Mu of the queries' candidates: no file, one prompt order, or both."""
        return self._of_stages(MU_FILES)

    @property
    def gallery_mu(self) -> list[Path]:
        """The same between gallery images."""
        return self._of_stages(GALLERY_MU_FILES)

    def _of_stages(self, names: Mapping[str, str]) -> list[Path]:
        return [self.folder / name for name in names.values() if name in self.report.stages]


def is_job(folder: Path) -> bool:
    """Whether it is a folder of `murank score`, finished or not."""
    return (folder / JOB_FILE).is_file() or is_unfinished(folder)


def read_job(folder: Path) -> FinishedJob:
    """Read job.json. Raises InputError if there is none, or the job is not finished."""
    if is_unfinished(folder):
        raise InputError(f"{folder} holds an unfinished job; run murank score again to finish it")
    file = folder / JOB_FILE
    if not file.is_file():
        raise InputError(
            f"{folder} has no {JOB_FILE}; name a folder that murank score wrote, or a features file"
        )
    with open_file(file) as handle:
        raw = handle.read()
    try:
        return FinishedJob(folder, JobReport.from_json(json.loads(raw)))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not as murank score writes it: {error}") from error
