"""Rows in host memory, or in that of a GPU: an alignment works on them where they are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from murank_kernels.alignment.rows import HostRows, Rows
from murank_kernels.checks import validate


@contextmanager
def where_they_are(features: Any) -> Iterator[Callable[[Any], Rows]]:
    """Yield what makes unit rows of features; a GPU's faults inside become what callers see."""
    if not validate.on_device(features):
        yield lambda given: HostRows(validate.as_features(given, normalize=True))
        return
    from murank_kernels.alignment.device_rows import unit_rows
    from murank_kernels.cuda.gpu import this_gpu

    gpu = this_gpu()
    with gpu.guarded():
        yield lambda given: unit_rows(gpu, given)
