"""Every seed of NumPy and torch moved by SEED_SHIFT: what then fails was fitted to its numbers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

SHIFT = int(os.environ.get("SEED_SHIFT", "0")) * 1_000_003  # no seed, moved, is one of another


def move_seeds() -> None:
    """Move NumPy's, where the environment asks for it."""
    if not SHIFT:
        return
    made = np.random.default_rng

    def default_rng(seed: Any = None) -> np.random.Generator:
        if isinstance(seed, (int, np.integer)):
            return made(int(seed) + SHIFT)
        return made([*seed, SHIFT] if isinstance(seed, Sequence) else seed)

    np.random.default_rng = default_rng


def move_seeds_of_torch() -> None:
    """Move torch's, which is imported where it is needed only."""
    if not SHIFT:
        return
    import torch

    manual_seed = torch.manual_seed

    class Generator(torch._C.Generator):
        def manual_seed(self, seed: int) -> Generator:
            super().manual_seed(seed + SHIFT)
            return self

    torch.manual_seed = lambda seed: manual_seed(seed + SHIFT)
    torch.Generator = Generator  # type: ignore[misc]
