"""Engines for tests of the gallery: one that has an encoder's face alone, and what it embeds."""

from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from search_parts import make_engine, make_images

from murank import Engine

DIM = 16


def feature_engine(dim: int = DIM, sha256: str = "a" * 64) -> Any:
    """Return an engine for features: nothing is embedded, and nobody is asked."""
    encoder = SimpleNamespace(part=SimpleNamespace(dim=dim))
    return SimpleNamespace(
        encoder=encoder, scorer=None, encoder_sha256=sha256, forget_key=lambda _key: False
    )


def people(count: int, shots: int, *, dim: int = DIM, seed: int = 0) -> NDArray[np.float32]:
    """Return features [count * shots, dim] of people, a person's shots near each other."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((count, 1, dim))
    rows = centres + 0.3 * random.standard_normal((count, shots, dim))
    return rows.reshape(-1, dim).astype(np.float32)


def seeing_engine() -> Engine:
    """Return an engine with an encoder and an MLLM, both by hand."""
    engine = make_engine()
    engine.encoder_sha256 = "a" * 64
    return engine


def large(seed: int, count: int) -> list[Any]:
    """Return pictures that a gallery takes: 32 x 16, of blocks that survive JPEG."""
    return [np.kron(one, np.ones((8, 8, 1), np.uint8)) for one in make_images(count, seed)]
