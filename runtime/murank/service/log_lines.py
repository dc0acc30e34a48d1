"""What the service says: a JSON line a request on standard output, warnings on standard error."""

import contextlib
import json
import sys
import traceback
from typing import Any

from murank.checks.text import plain
from murank.files.line_log import now


def log(**facts: Any) -> None:
    """Write a line. A log that nobody reads any more is no reason to stop."""
    with contextlib.suppress(Exception):
        sys.stdout.write(json.dumps({"time": now(), **facts}) + "\n")
        sys.stdout.flush()


def warn(text: str) -> None:
    """Tell the operator."""
    with contextlib.suppress(Exception):
        sys.stderr.write(f"murank: {plain(text)}\n")
        sys.stderr.flush()


def warn_of_bug(error: BaseException) -> None:
    """Tell the operator where something of ours broke."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    with contextlib.suppress(Exception):
        sys.stderr.write("".join(f"{plain(line)}\n" for line in lines))
        sys.stderr.flush()
