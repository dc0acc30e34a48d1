from pathlib import Path
from typing import Any

import numpy as np
import pytest

from murank import InputError, load_mu


def saved(file: Path, **changes: Any) -> Path:
    arrays = {
        "probs": np.array([[0.1, 0.2], [0.3, 0.4]], np.float32),
        "gallery_indices": np.array([[0, 1], [2, 1]]),
    }
    np.savez(file, **{**arrays, **changes})
    return file


def test_reads_both_arrays(tmp_path: Path) -> None:
    found = load_mu(saved(tmp_path / "m.npz"))
    assert found.mu.dtype == np.float32
    assert found.candidates.tolist() == [[0, 1], [2, 1]]


def test_swapped_order_is_averaged(tmp_path: Path) -> None:
    one = saved(tmp_path / "m.npz", probs=np.array([[0.1, 0.2], [0.3, 0.4]]))
    two = saved(tmp_path / "s.npz", probs=np.array([[0.3, 0.2], [0.5, 1.0]]))
    np.testing.assert_allclose(load_mu(one, two).mu, [[0.2, 0.2], [0.4, 0.7]])


def test_swapped_order_of_other_candidates(tmp_path: Path) -> None:
    other = saved(tmp_path / "s.npz", gallery_indices=np.array([[1, 0], [2, 1]]))
    with pytest.raises(InputError, match="different candidates"):
        load_mu(saved(tmp_path / "m.npz"), other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probs": np.full((2, 2), 1.5)}, r"in \[0, 1\]"),
        ({"probs": np.full((2, 2), np.nan)}, r"in \[0, 1\]"),
        ({"probs": np.zeros((2, 2), int)}, "probs must be floating point"),
        ({"probs": np.zeros((2, 3))}, r"gallery_indices must have shape \[2, 3\]"),
        ({"gallery_indices": np.zeros((2, 2))}, "gallery_indices"),
        ({"probs": np.array([None, 1])}, "Python objects"),
    ],
)
def test_bad_content(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_mu(saved(tmp_path / "m.npz", **changes))
