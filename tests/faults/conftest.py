"""What the tests of the runtime have, here too; and how often which verb was stopped where."""

import pytest
from faults.everywhere import TRIED
from shared_fixtures import gpu as gpu
from shared_fixtures import job as job
from shared_fixtures import trt as trt


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line a test."""
    if TRIED:
        terminalreporter.section("stops by kind of step: failed and killed")
        for name, counts in TRIED.items():
            told = ", ".join(f"{what} {count}" for what, count in sorted(counts.items()))
            terminalreporter.write_line(f"{name}: {told}")
