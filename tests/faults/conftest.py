"""What the tests of the runtime have, here too; and how often which verb was stopped where."""

from typing import Any

import pytest
from faults.everywhere import TRIED
from PIL import Image
from shared_fixtures import gpu as gpu
from shared_fixtures import job as job
from shared_fixtures import trt as trt


@pytest.fixture(autouse=True)
def small_sheets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write sheets an eighth as large: to compress one takes longer than a hundred writes."""
    save = Image.Image.save

    def small(image: Image.Image, file: Any, format: str | None = None, **options: Any) -> None:  # noqa: A002
        save(image.reduce(8) if format == "PNG" else image, file, format, **options)

    monkeypatch.setattr(Image.Image, "save", small)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line a test."""
    if TRIED:
        terminalreporter.section("stops by kind of step: failed and killed")
        for name, counts in TRIED.items():
            told = ", ".join(f"{what} {count}" for what, count in sorted(counts.items()))
            terminalreporter.write_line(f"{name}: {told}")
