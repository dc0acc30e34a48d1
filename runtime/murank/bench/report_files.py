"""Reports as files: one JSON object, read as strictly as it is written."""

import json
from pathlib import Path

from murank._exceptions import InputError
from murank.bench.schema import SCHEMA_VERSION, BenchReport
from murank.files.atomic import write_files

_LARGEST = 64 << 20  # bytes


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
        raise InputError(f"{path}: {error.strerror or error}") from error
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
        return BenchReport.from_json(data)
    except (ValueError, RecursionError) as error:  # InputError is a ValueError
        raise InputError(f"{path} is no report of murank bench: {error}") from error
