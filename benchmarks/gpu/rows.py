"""One line of the report, and the report."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, get_args

State = Literal["measured", "right", "wrong", "cannot run", "failed"]
_HEADS = ("section", "what", "figure", "floor", "figure / floor", "state", "note")
NO_GPU, BAD, GOOD = 3, 1, 0


class CannotRun(Exception):  # noqa: N818 - it is no error
    """A section, or the rest of it, needs what is not here; says what."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one measurement or check found."""

    what: str
    state: State = "measured"
    figure: str = ""  # with its unit
    floor: str = ""  # the same quantity, as low as the hardware allows
    ratio: str = ""  # figure / floor
    note: str = ""

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))


def read_row(line: str) -> Row | None:
    """Return the row of a line; None where a process that ended early left half of one."""
    try:
        row = Row(**json.loads(line))
    except (ValueError, TypeError):
        return None
    return row if row.state in get_args(State) else None


def timed(what: str, seconds: float, floor: float | None = None, note: str = "") -> Row:
    """A time, beside its floor where that is known; both in seconds."""
    known = floor is not None and floor > 0
    return Row(
        what=what,
        figure=milliseconds(seconds),
        floor=milliseconds(floor) if floor is not None and known else "",
        ratio=f"{seconds / floor:.2f}" if floor is not None and known else "",
        note=note,
    )


def milliseconds(seconds: float) -> str:
    """Three digits: "0.123 ms", "12.3 ms", "1230 ms"."""
    value = 1e3 * seconds
    return f"{value:.0f} ms" if value >= 1000 else f"{value:#.3g}".rstrip(".") + " ms"


def exit_code(rows: Iterable[Row], *, has_gpu: bool) -> int:
    """0: all that could run was right; 1: something was wrong or failed; 3: there is no GPU."""
    if any(row.state in ("wrong", "failed") for row in rows):
        return BAD
    return GOOD if has_gpu else NO_GPU


def table(found: Sequence[tuple[str, Row]]) -> str:
    """Markdown, of (section, row)."""
    lines = [_line(_HEADS), "|---|---|---:|---:|---:|---|---|"]
    for section, row in found:
        cells = (section, row.what, row.figure, row.floor, row.ratio, row.state, row.note)
        lines.append(_line(cells))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", "/").split()) for cell in cells) + " |"
