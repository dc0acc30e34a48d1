"""record.json beside plans: what they were made of, by what, and for what; sealed.

The seal is an HMAC under a key that never leaves this machine: plans are code, and hashes alone
would vouch for plans that came with the engine from anywhere.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from murank._exceptions import InputError
from murank._version import __version__
from murank.files.json_object import parse_json, read_bounded, write_json
from murank.files.records import Record
from murank.folder.manifest import (
    FileEntry,
    FileName,
    Name,
    SchemaVersion,
    Sha256,
)

RECORD = "record.json"
_FINGERPRINT_DIGITS = 16
_SEAL = "seal"


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
    graph_sha256: Sha256  # of the graph with its weights
    flags: Mapping[str, Any]
    profiles: Mapping[str, Any]  # in the order of their indices
    seconds: float  # that building took

    def fits(self, graph_sha256: str, flags: Mapping[str, Any], profiles: Any) -> bool:
        """Whether it is what would be built again; the order of profiles counts."""
        return (
            self.graph_sha256 == graph_sha256
            and dict(self.flags) == dict(flags)
            and list(self.profiles.items()) == list(profiles.items())
        )


@dataclass(frozen=True, kw_only=True)
class PlanRecord(Record):
    """All that record.json says, besides its seal."""

    schema_version: SchemaVersion = 1
    murank_version: Name = __version__
    target: PlanPlatform
    plans: Mapping[Name, PlanEntry]
    extra: Mapping[FileName, FileEntry]  # the timing cache


def record_bytes(record: PlanRecord, key: bytes) -> bytes:
    """Return record.json."""
    data = record.to_json()
    return write_json({**data, _SEAL: _seal(data, key)})


def read_record(folder: Path, key: bytes | None) -> PlanRecord:
    """Read record.json; without a key of this machine nothing bears its seal.

    Raises
    ------
    InputError
        It is missing, damaged, or not sealed by this machine.
    """
    path = folder / RECORD
    data = parse_json(read_bounded(path), path)
    seal = data.pop(_SEAL, None) if isinstance(data, dict) else None
    sealed_here = (
        key is not None
        and isinstance(seal, str)
        and hmac.compare_digest(seal.encode(), _seal(data, key).encode())
    )
    if not sealed_here:
        raise InputError(
            f"{folder} was not built by this machine (its record does not bear this machine's "
            "seal), and plans are code: run murank build again"
        )
    return PlanRecord.from_json(data)


def _seal(data: Any, key: bytes) -> str:
    return hmac.new(key, write_json(data), hashlib.sha256).hexdigest()
