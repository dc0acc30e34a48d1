"""Every mistake in mu between gallery images names the argument."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from murank_kernels import (
    InvalidInputError,
    ca_jaccard,
    ca_jaccard_blocks,
    ecn,
    ecn_blocks,
    k_reciprocal,
    k_reciprocal_blocks,
    simple,
    simple_blocks,
)

Q, G, M = 3, 7, 2
FEATURES = np.random.default_rng(0).standard_normal((Q + G, 5)).astype(np.float32)
CAMIDS = np.arange(Q + G) % 2
METHODS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "k_reciprocal": (k_reciprocal, ()),
    "k_reciprocal_blocks": (k_reciprocal_blocks, ()),
    "ecn": (ecn, ()),
    "ecn_blocks": (ecn_blocks, ()),
    "ca_jaccard": (ca_jaccard, (CAMIDS,)),
    "ca_jaccard_blocks": (ca_jaccard_blocks, (CAMIDS,)),
}


def mu(value: float = 0.5) -> NDArray[np.float32]:
    values = np.full((G, M), 0.25, np.float32)
    values[4, 1] = value
    return values


def others(value: int = 0, dtype: Any = np.int64) -> NDArray[Any]:
    values = (np.arange(G)[:, None] + [1, 2]) % G
    values[4, 1] = value
    return values.astype(dtype)


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("no mu", {"gallery_mu": None}, "gallery_mu is missing: gallery_candidates was given"),
    ("no candidates", {"gallery_candidates": None}, "gallery_candidates is missing: gallery_mu"),
    ("NaN", {"gallery_mu": mu(np.nan)}, r"gallery_mu must be in \[0, 1\] without NaN"),
    ("above 1", {"gallery_mu": mu(1.01)}, r"gallery_mu must be in \[0, 1\]"),
    ("below 0", {"gallery_mu": mu(-0.01)}, r"gallery_mu must be in \[0, 1\]"),
    ("int mu", {"gallery_mu": np.ones((G, M), int)}, "gallery_mu must be floating point"),
    ("of the queries", {"gallery_mu": mu()[:Q]}, r"gallery_mu must have shape \[7, M\]"),
    ("no columns", {"gallery_mu": mu()[:, :0]}, r"gallery_mu must have shape \[7, M\]"),
    ("1-d", {"gallery_mu": mu()[0]}, r"gallery_mu must have shape \[7, M\]"),
    ("ragged", {"gallery_mu": [[0.5], [0.5, 0.1]]}, "gallery_mu cannot be read as an array"),
    ("shapes", {"gallery_candidates": others()[:, :1]}, "must have the shape of gallery_mu"),
    ("float", {"gallery_candidates": others(dtype=float)}, "gallery_candidates must be integers"),
    ("negative", {"gallery_candidates": others(-2)}, r"gallery indices in 0\.\.6, found -2"),
    ("too large", {"gallery_candidates": others(G)}, r"gallery_candidates .* found 0\.\.7"),
    ("itself", {"gallery_candidates": others(4)}, "of gallery image 4 name that image itself"),
    ("twice", {"gallery_candidates": others(5)}, "of gallery image 4 name one item twice"),
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("change", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD]
)
def test_bad_input(method: str, change: dict[str, Any], message: str) -> None:
    call, more = METHODS[method]
    scores = {"gallery_mu": mu(), "gallery_candidates": others()}
    call(FEATURES, Q, *more, **scores)
    with pytest.raises(InvalidInputError, match=message):
        call(FEATURES, Q, *more, **{**scores, **change})


def test_a_gallery_of_one_image_has_no_pair() -> None:
    with pytest.raises(InvalidInputError, match="of gallery image 0 name that image itself"):
        k_reciprocal(
            FEATURES[:3], 2, gallery_mu=np.zeros((1, 1)), gallery_candidates=np.zeros((1, 1), int)
        )


@pytest.mark.parametrize("call", [simple, simple_blocks])
def test_simple_has_no_use_for_it(call: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="gallery_mu"):
        call(FEATURES, Q, gallery_mu=mu(), gallery_candidates=others())
