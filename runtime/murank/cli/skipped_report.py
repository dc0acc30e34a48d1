"""Images that were left out, as lines."""

from collections.abc import Sequence
from typing import Any

from murank.cli.in_flags import reason_in_flags

_NAMED = 3


def skipped_lines(skipped: Sequence[dict[str, Any]]) -> list[str]:
    """Return how many there are, and the first of them."""
    if not skipped:
        return []
    lines = [f"{len(skipped)} image{'s' * (len(skipped) > 1)} skipped (listed in job.json):"]
    lines += [f"  {_why(one)}" for one in skipped[:_NAMED]]
    return lines + ["  ..."] * (len(skipped) > _NAMED)


def _why(skipped: dict[str, Any]) -> str:
    path, reason = str(skipped["path"]), reason_in_flags(str(skipped["reason"]))
    return reason if path in reason else f"{path}: {reason}"
