"""Cases that only `make test-numerics` runs, in its run with GPUS=all."""

import os
from typing import TypeVar

import pytest

T = TypeVar("T")
ALL = os.environ.get("GPUS") == "all"
only_longer = pytest.mark.skipif(not ALL, reason="a longer run: GPUS=all")


def longer(*cases: T) -> tuple[T, ...]:
    """Return the cases, or none in the short run."""
    return cases if ALL else ()
