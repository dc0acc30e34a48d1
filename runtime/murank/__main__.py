"""The `murank` command, also `python -m murank`: a signal is told in one line from the start."""

import sys
from types import TracebackType

from murank.machine import process as _process


def main() -> int:
    """Run the command line and return its exit code."""
    _process.plug_streams()
    sys.excepthook = _show
    _process.leave_on_signals()
    try:
        from murank.cli import main as run

        return run()
    finally:
        _process.release_signals()


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Show the traceback of a bug; what it quotes may come from outside."""
    import traceback

    from murank.checks.text import plain, plain_lines

    *lines, last = traceback.format_exception(kind, error, trace)
    print(plain_lines("".join(lines)), plain(last.rstrip("\n")), sep="", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
