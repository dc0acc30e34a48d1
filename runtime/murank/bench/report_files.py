"""Reports as files: one JSON object, read as strictly as it is written."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from murank._exceptions import InputError
from murank.bench.schema import SCHEMA_VERSION, BenchReport
from murank.files.atomic import write_files
from murank.files.stand_in import misread

_LARGEST = 64 << 20  # bytes
_OLDER = (1, 2, 3)
_ALIGNED = 3  # first version whose features may be aligned
_SINCE_4 = ("target", "arrivals_us", "waits_us", "services_us")
_PARTS_SINCE_4: Mapping[str, tuple[str, ...]] = {
    "latency": ("p90_early_ms", "p99_early_ms"), "server": ("late", "least_queries")
}  # fmt: skip


def report_text(report: BenchReport) -> str:
    """Return JSON on one line; InputError if `load_report` would not take it."""
    text = json.dumps(report.to_json(), allow_nan=False)
    BenchReport.from_json(json.loads(text))
    return text


def write_report(path: Path, report: BenchReport) -> None:
    """Write the JSON, whole or not at all. Raises OutputError."""
    raw = (report_text(report) + "\n").encode()
    write_files(path.parent, {path.name: lambda file: file.write(raw)})


def load_report(path: Path) -> BenchReport:
    """Read what `murank bench --json` wrote.

    Raises
    ------
    InputError
        It cannot be read, is no JSON, of another murank, or a key is missing, unknown or of
        another type.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST + 1)
    except OSError as error:
        raise misread(path, f": {error.strerror or error}") from error
    try:
        if len(raw) > _LARGEST:
            raise InputError("it is too large")
        data = json.loads(raw)
        version = data.get("schema_version") if isinstance(data, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise InputError(
                f"it was made by a newer murank (schema_version {version}, this one reads "
                f"{SCHEMA_VERSION}); upgrade murank"
            )
        return BenchReport.from_json(_of_today(data))
    except (ValueError, RecursionError) as error:  # InputError is a ValueError
        raise misread(path, f" is no report of murank bench: {error}") from error


def _of_today(data: Any) -> Any:
    """Return an older report as one of today: what it did not have is null, or as it was then."""
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version not in _OLDER or isinstance(version, bool):
        return data
    missing: dict[str, Any] = {"notes": []} if version == 1 else {}
    settings = data.get("settings")
    if version < _ALIGNED and isinstance(settings, dict):
        settings = {**settings, "alignment": "off"}
    sections = {name: _section(data[name]) for name in ("cached", "uncached") if name in data}
    if isinstance(data.get("sweep"), dict):
        sections["sweep"] = {count: _section(one) for count, one in data["sweep"].items()}
    today = {"schema_version": SCHEMA_VERSION, "settings": settings}
    return {**missing, **data, **sections, **today}


def _section(old: Any) -> Any:
    if not isinstance(old, dict):
        return old
    parts = {
        name: {**dict.fromkeys(since), **old[name]}
        for name, since in _PARTS_SINCE_4.items()
        if isinstance(old.get(name), dict)
    }
    return {**dict.fromkeys(_SINCE_4), **old, **parts}
