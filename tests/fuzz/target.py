"""What is made of a kind of file: seeds, how they are changed, and what reads them."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fuzz import mutate
from fuzz.mutate import BYTES, Mutation

MINIATURE = Path(__file__).parents[2] / "benchmarks" / "miniature"
JSON: tuple[Mutation, ...] = (
    mutate.json_tree,
    mutate.json_tree,
    mutate.json_tree,
    mutate.text_numbers,
    *BYTES,
)


@dataclass(frozen=True)
class Target:
    """A kind of file, and its reader."""

    name: str
    seeds: Sequence[bytes]
    mutations: Sequence[Mutation]
    read: Callable[[Path], object]  # given the file
    file: str  # its name, or its path in a folder of the case's own
    cases: int = 60  # in CI
    prepare: Callable[[Path], object] = lambda _folder: None  # what must lie around the file
    warm: Callable[[], object] = lambda: None  # what is imported before the first fork


def archive(**arrays: Any) -> bytes:
    """Return an .npz of arrays."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()
