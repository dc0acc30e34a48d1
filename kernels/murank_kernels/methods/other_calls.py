"""Calls of re-ranking as other toolkits have them: which of ours they mean."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from murank_kernels._exceptions import InvalidInputError
from murank_kernels.checks.validate import as_array

_FEATURES = ("probFea", "galFea", "qf", "gf", "prob_fea", "gal_fea", "q_feat", "g_feat",
             "local_distmat", "only_local")  # fmt: skip


def check_matrices_given(
    matrices: tuple[Any, Any, Any], settings: tuple[Any, Any, Any], others: Mapping[str, Any]
) -> None:
    """Raise InvalidInputError, with the call that was meant, unless there are three matrices.

    `matrices` as `re_ranking` takes them, `settings` its k1, k2 and lambda_value, `others` what was
    given by names that it does not have.
    """
    unknown = [name for name in others if name not in _FEATURES]
    if unknown:
        raise InvalidInputError(f"re_ranking takes no {unknown[0]}")
    if others.get("local_distmat") is not None or others.get("only_local"):
        raise InvalidInputError(
            "local_distmat and only_local are not offered: add the local distances to the matrices "
            "and call re_ranking(q_g_dist, q_q_dist, g_g_dist)"
        )
    shapes = [_shape(matrix) for matrix in matrices]
    second, third = matrices[1:]
    both_matrices = len(shapes[0]) == len(shapes[1]) == 2
    if others or (both_matrices and shapes[0][1] == shapes[1][1] and not shapes[2]):
        rows = "np.concatenate([qf, gf]), num_query=len(qf)"
        shifted = (third, *settings[:2]) if third is not None else settings
        raise _features_given("qf, gf", rows, shifted, squared=True)
    if isinstance(second, int | np.integer):  # re_ranking(features, num_query, k1, k2)
        raise _features_given("features, num_query", "features, num_query", None, squared=False)
    if all(matrix is not None for matrix in matrices):
        return
    raise InvalidInputError(
        "re_ranking takes three matrices of distances, q_g_dist [Q,G], q_q_dist [Q,Q] and g_g_dist "
        "[G,G]; of features, call k_reciprocal"
    )


def _shape(matrix: Any) -> tuple[int, ...]:
    given = matrix if hasattr(matrix, "shape") else as_array(matrix, "a matrix of distances")
    return tuple(given.shape)


def _features_given(
    given: str, rows: str, settings: tuple[Any, ...] | None, *, squared: bool
) -> InvalidInputError:
    names = ("k1", "k2", "lambda_value")
    known = zip(names, settings or (), strict=False)
    parts = [rows, *(f"{name}={value}" for name, value in known if np.ndim(value) == 0)]
    parts += ["squared=True, normalize=False"] * squared
    return InvalidInputError(
        f"re_ranking({given}, ...) is of features, and this one takes distances: call "
        f"k_reciprocal({', '.join(parts)})"
    )
