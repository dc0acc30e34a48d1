"""Sections in processes of their own: one that crashes or hangs costs its own rows, no more."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import TimeoutExpired

from gpu.context import Context
from gpu.rows import Row, read_row

ROOT = Path(__file__).resolve().parents[2]
_FOLDERS = ("benchmarks", "export", "runtime", "kernels", "tests")
_TAIL = 4000  # characters of a failed section's output that are shown


def run_section(name: str, context: Context, limit: float) -> list[Row]:
    """Run one section for at most `limit` seconds; its rows, and one more if it failed."""
    file = context.run / f"{name}.jsonl"
    command = [sys.executable, "-m", "gpu.child", name, str(file), context.to_json()]
    return run_command(command, file, limit)


def run_command(command: Sequence[str], file: Path, limit: float) -> list[Row]:
    """Run a process that appends rows to `file`, and its output to a log beside it."""
    log = file.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment(os.environ),
            start_new_session=True,
        )  # fmt: skip
        try:
            ended = _why(process.wait(limit), log)
        except TimeoutExpired:
            ended = f"stopped: it took longer than its {limit:.0f} s"
        finally:
            _end(process)
    rows = _rows(file)
    if ended is None and not rows:
        ended = "it found nothing"
    if ended is not None:
        print(log.read_text(errors="replace")[-_TAIL:], file=sys.stderr)
        rows.append(Row(what="the section", state="failed", note=ended))
    return rows


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Let a child import this working tree, and nothing that lies in the current folder."""
    own = [str(ROOT / name) for name in _FOLDERS]
    path = os.pathsep.join([*own, *filter(None, [given.get("PYTHONPATH")])])
    return {**given, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def _rows(file: Path) -> list[Row]:
    if not file.exists():
        return []
    found = map(read_row, file.read_text().splitlines())
    return [row for row in found if row is not None]


def _why(code: int, log: Path) -> str | None:
    """Say how a process ended; None: well."""
    if code == 0:
        return None
    if code < 0:
        known = {one.value: one.name for one in signal.Signals}
        return f"its process was ended by {known.get(-code, str(-code))}"
    last = (log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
    return last[:300]


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End what a section started, and itself, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
