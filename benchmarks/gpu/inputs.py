"""Inputs of re-ranking: clustered unit features with ties, and noisy mu of the nearest images."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank_kernels import simple


@dataclass(frozen=True)
class Size:
    """How much."""

    num_query: int
    num_gallery: int
    people: int
    cameras: int
    dim: int = 512

    @property
    def num_rows(self) -> int:
        """Queries and gallery."""
        return self.num_query + self.num_gallery


MARKET = Size(3368, 15913, 1501, 6)
MSMT = Size(11659, 82161, 4101, 15)
CHECKED = Size(500, 2500, 150, 6)
TINY = Size(30, 170, 15, 3, 32)


@dataclass(frozen=True)
class Inputs:
    """Arrays on the host."""

    num_query: int
    features: NDArray[np.float32]  # [N,D] unit rows
    pids: NDArray[np.int64]  # [N]
    camids: NDArray[np.int64]  # [N]
    mu: NDArray[np.float32]  # [Q,K]
    candidates: NDArray[np.int64]  # [Q,K]

    @property
    def fusion(self) -> dict[str, Any]:
        """Arguments of every method."""
        return {"mu": self.mu, "candidates": self.candidates}


def made_inputs(size: Size, *, twins: int = 0, device: str = "cpu") -> Inputs:
    """Draw them; `twins` gallery images are copies of others, so that distances tie.

    The candidates, ten a query, are the nearest, found on `device`.
    """
    random = np.random.default_rng(7)
    pids = np.r_[
        np.arange(size.num_query) % size.people, random.integers(0, size.people, size.num_gallery)
    ]
    camids = random.integers(0, size.cameras, size.num_rows)
    people = random.standard_normal((size.people, size.dim), np.float32)
    cameras = random.standard_normal((size.cameras, size.dim), np.float32)
    features = random.standard_normal((size.num_rows, size.dim), np.float32)
    features *= np.float32(1.2)
    features += people[pids]
    features += np.float32(0.5) * cameras[camids]
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    if twins:
        copied = slice(size.num_query, size.num_query + twins)
        features[-twins:], pids[-twins:] = features[copied], pids[copied]
    _, nearest = simple(features, size.num_query, top_k=10, device=device)
    candidates = np.asarray(nearest).astype(np.int64)
    same = pids[: size.num_query, None] == pids[size.num_query :][candidates]
    mu = np.clip(random.normal(np.where(same, 0.25, 0.75), 0.2), 0, 1).astype(np.float32)
    return Inputs(size.num_query, features, pids, camids, np.round(mu, 1), candidates)
