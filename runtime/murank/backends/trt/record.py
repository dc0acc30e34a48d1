"""record.json beside plans: what they were made of, by what, and for what."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from murank._version import __version__
from murank.files.json_object import write_json
from murank.files.records import Record
from murank.folder.manifest import FileEntry
from murank.folder.manifest_fields import FileName, Name, SchemaVersion, Sha256

RECORD = "record.json"
_FINGERPRINT_DIGITS = 16


@dataclass(frozen=True, kw_only=True)
class PlanPlatform(Record):
    """What a plan runs on; of another library, version, GPU or driver it is another plan."""

    library: Name
    version: Name
    compute_capability: Name
    device: Name  # plans are tuned for its number of processors, too
    driver: Name

    @property
    def fingerprint(self) -> str:
        """The name of the folder of its plans."""
        return hashlib.sha256(write_json(self.to_json())).hexdigest()[:_FINGERPRINT_DIGITS]

    @property
    def title(self) -> str:
        """What it is, for people."""
        return (
            f"{self.library} {self.version} on {self.device}, compute capability "
            f"{self.compute_capability}, driver for CUDA {self.driver}"
        )


@dataclass(frozen=True, kw_only=True)
class PlanEntry(Record):
    """One plan."""

    file: FileEntry
    flags: Mapping[str, Any]
    profiles: Mapping[str, Any]  # in the order of their indices
    seconds: float  # that building took

    def fits(self, flags: Mapping[str, Any], profiles: Mapping[str, Any]) -> bool:
        """Whether it is what would be built again; the order of profiles counts."""
        same_profiles = list(self.profiles.items()) == list(profiles.items())
        return same_profiles and dict(self.flags) == dict(flags)


@dataclass(frozen=True, kw_only=True)
class PlanRecord(Record):
    """All that record.json says."""

    schema_version: SchemaVersion = 1
    murank_version: Name = __version__
    engine: Sha256  # of all its files
    target: PlanPlatform
    plans: Mapping[Name, PlanEntry]
    extra: Mapping[FileName, FileEntry]  # the timing cache
