"""The `murank` command, also `python -m murank`: a signal is told in one line from the start."""

import sys

from murank import _process


def main() -> int:
    """Run the command line and return its exit code."""
    _process.plug_streams()
    _process.leave_on_signals()
    try:
        from murank.cli import main as run

        return run()
    finally:
        _process.release_signals()


if __name__ == "__main__":
    sys.exit(main())
