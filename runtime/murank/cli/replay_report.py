"""How an engine answered its golden images on this machine, for `murank inspect --verify`."""

import math
from collections.abc import Sequence
from pathlib import Path

from murank._exceptions import ParityError
from murank.engine.golden import Replay


def replay_lines(replays: Sequence[Replay]) -> list[str]:
    """Return a line a part."""
    return [
        f"{one.name:<8} {'ok' if one.passed else 'DIFFERS':<8} largest difference "
        f"{one.largest:.1e} of {one.unit} (tolerance {one.tolerance:.0e}) on {one.providers[0]}"
        for one in replays
    ]


def replay_row(one: Replay) -> dict[str, object]:
    """Return a part's answers, JSON-ready."""
    return {
        "part": one.name, "passed": one.passed,
        "largest": one.largest if math.isfinite(one.largest) else None,
        "tolerance": one.tolerance, "providers": one.providers, "fault": one.fault,
    }  # fmt: skip


def check_replayed(engine: Path, replays: Sequence[Replay]) -> None:
    """Raise ParityError unless all parts answered as they did at export."""
    for one in replays:
        if one.fault is not None:
            raise ParityError(f"{engine}: the {one.name} {one.fault}; do not use it")
    failed = [one.name for one in replays if not one.passed]
    if failed:
        raise ParityError(
            f"{engine}: {' and '.join(failed)} does not answer here as it did at export; do "
            "not use it on this machine: try --providers cpu, or export again with --dtype fp32"
        )
