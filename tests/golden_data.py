"""The golden vectors, and inputs that more than one test needs."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.testing import assert_allclose
from numpy.typing import NDArray

FOLDER = Path(__file__).parent / "golden"
TOLERANCE = 2e-6  # absolute, float32 kernels against float64 references


@lru_cache
def golden(name: str) -> dict[str, NDArray[Any]]:
    with np.load(FOLDER / f"{name}.npz") as stored:
        arrays = {key: stored[key] for key in stored.files}
    for array in arrays.values():
        array.flags.writeable = False  # shared by all tests
    return arrays


@dataclass(frozen=True)
class Case:
    """One input of re-ranking."""

    features: NDArray[np.float32]
    num_query: int
    camids: Any = None  # [N] int, where the file has them
    mu: Any = None  # [Q,K] float
    candidates: Any = None  # [Q,K] int

    @property
    def fusion(self) -> dict[str, Any]:
        return {"mu": self.mu, "candidates": self.candidates}


@lru_cache
def main_case() -> Case:
    stored = golden("main_inputs")
    return Case(
        stored["X"],
        int(stored["num_query"]),
        stored["camid"],
        stored["mu"],
        stored["gallery_indices"],
    )


@lru_cache
def degenerate_case(name: str) -> Case:
    stored = golden("degenerate")
    return Case(
        stored[f"{name}_X"],
        int(stored[f"{name}_num_query"]),
        stored.get(f"{name}_camid"),
        stored.get(f"{name}_mu"),
        stored.get(f"{name}_gallery_indices"),
    )


@lru_cache
def tiny_case() -> Case:
    stored = golden("tiny12")
    return Case(
        stored["X"], int(stored["num_query"]), None, stored["mu"], stored["gallery_indices"]
    )


def check_close(actual: object, desired: NDArray[Any], rtol: float = 2**-24) -> None:
    """A kernel's float32 output against a float64 one."""
    assert isinstance(actual, np.ndarray)
    assert actual.dtype == np.float32
    assert_allclose(actual, desired, rtol=rtol, atol=TOLERANCE)
