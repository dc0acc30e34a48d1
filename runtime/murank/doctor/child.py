"""Probes in processes of their own: a driver that crashes, or hangs, takes nothing with it."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from murank.doctor.redact import without_paths

_SECONDS = 120


@dataclass(frozen=True)
class ProbeAnswer:
    """What a probe found."""

    works: bool
    said: str  # what it did, or what went wrong
    more: Any = None


def ask(probe: str, *arguments: str, seconds: float = _SECONDS) -> ProbeAnswer:
    """Run a probe of `murank.doctor.probes` and return its answer."""
    command = [sys.executable, "-m", "murank.doctor", probe, *arguments]
    # What lies in the current folder is no module of ours.
    env = {**os.environ, "PYTHONSAFEPATH": "1"}
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            command, capture_output=True, text=True, timeout=seconds, check=False, env=env
        )
    except subprocess.TimeoutExpired:
        return ProbeAnswer(works=False, said=f"it gave no answer within {seconds:.0f} seconds")
    except OSError as error:
        return ProbeAnswer(
            works=False, said=f"no process could be started: {error.strerror or error}"
        )
    if done.returncode != 0:
        return ProbeAnswer(works=False, said=_end(done.returncode, done.stderr))
    return _parsed(done.stdout)


def _parsed(output: str) -> ProbeAnswer:
    last = (output.strip().splitlines() or [""])[-1]  # libraries may have printed before
    try:
        told = json.loads(last)
        return ProbeAnswer(bool(told["works"]), without_paths(str(told["said"])), told["found"])
    except (ValueError, KeyError, TypeError):
        return ProbeAnswer(works=False, said="its process ended without an answer")


def _end(code: int, errors: str) -> str:
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        memory = ": out of memory?" if -code == signal.SIGKILL else ""
        return f"its process was ended by {name}{memory}"
    last = (errors.strip().splitlines() or ["it said nothing"])[-1]
    return f"its process ended with code {code}: {without_paths(last)[:300]}"
