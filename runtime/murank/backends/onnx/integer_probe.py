"""Whether onnxruntime adds up products of uint8 and int8 exactly here: it is asked."""

from functools import cache
from pathlib import Path

import numpy as np

from murank.backends.onnx.session import Session, SessionSettings
from murank.backends.onnx.tiny_onnx import integer_product

_INPUTS, _OUTPUTS = 64, 16
_ROWS = (1, 7)  # a single row has kernels of its own


@cache
def products_are_exact() -> bool:
    """Multiply the largest steps, whose sums leave 16 bits at the second product."""
    weight = np.full((_INPUTS, _OUTPUTS), 127, np.int8)
    weight[:, 1::2] *= -1
    graph = integer_product(weight)
    session = Session(Path("the test of int8 products"), SessionSettings("cpu", 1), graph=graph)
    for count in _ROWS:
        x = np.full((count, _INPUTS), 255, np.uint8)
        (y,) = session.run({"x": x}, ["y"])
        if not np.array_equal(y.numpy(), x.astype(np.int32) @ weight.astype(np.int32)):
            return False
    return True
