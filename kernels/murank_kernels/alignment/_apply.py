"""Centred rows times a matrix, at unit length."""

import numpy as np

from murank_kernels import _parallel
from murank_kernels._compiled import compiled
from murank_kernels._exceptions import InvalidInputError
from murank_kernels._types import F32, I64
from murank_kernels.alignment._means import CameraMeans

_ROWS_A_TASK = 1024
_FEW = 8  # rows for which starting workers costs more than the product
_ROUNDING = 1e-6  # length below which a centred unit row is rounding: its camera saw it alone


@compiled(fastmath={"contract"})
def _few_products(rows: F32, matrix: F32, out: F32) -> None:
    """Out = rows @ matrix, in this thread."""
    for i in range(rows.shape[0]):
        out[i] = 0
        for t in range(matrix.shape[0]):
            value = rows[i, t]
            for p in range(matrix.shape[1]):
                out[i, p] += value * matrix[t, p]


def aligned(rows: F32, camids: I64, means: CameraMeans, matrix: F32 | None) -> F32:
    """Unit rows [N,P] of unit rows [N,D]: centred by camera, times `matrix` [D,P].

    A row that is its camera's mean has no direction of its own; it keeps that of the mean.
    """
    out = np.empty((len(rows), rows.shape[1] if matrix is None else matrix.shape[1]), np.float32)

    def some_rows(part: slice) -> None:
        centred = means.centred(rows[part], camids[part])
        lengths = np.sqrt(np.einsum("ij,ij->i", centred, centred, dtype=np.float64))
        alone = lengths < _ROUNDING
        centred[alone] = rows[part][alone]
        if matrix is None:
            out[part] = centred
        elif len(centred) <= _FEW:
            _few_products(centred, matrix, out[part])
        else:
            np.matmul(centred, matrix, out=out[part])
        _normalise(out[part], part.start)

    if len(rows) <= _FEW:
        some_rows(slice(0, len(rows)))
    else:
        ranges = _parallel.row_ranges(len(rows), _ROWS_A_TASK)
        _parallel.run(some_rows, [slice(*part) for part in ranges], "camera alignment")
    return out


def _normalise(rows: F32, first: int) -> None:
    """Divide rows by their lengths, in place; `first` is the number of the first one."""
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    if not lengths.all():
        row = first + int(np.argmax(lengths == 0))
        raise InvalidInputError(
            f"features row {row} has no direction left after alignment; remove that image"
        )
    rows /= lengths[:, None].astype(np.float32)
