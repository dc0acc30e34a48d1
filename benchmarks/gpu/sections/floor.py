"""What the hardware does at its best: large matrix products, and copies."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from gpu.accelerators import Accelerator, for_floor
from gpu.context import Context, Rates, write_rates
from gpu.rows import Row

_COPIED = {"float32": "float32, no TF32"}


@dataclass(frozen=True)
class _Extent:
    """How much is measured."""

    side: int  # of the matrices
    copied: int  # bytes
    runs: int


def rows(context: Context) -> Iterator[Row]:
    """Rates, which are left for the other sections, too."""
    accelerator = for_floor(context)
    rates = Rates()
    for row, rates in measured(accelerator, extent(context)):
        write_rates(context, rates)  # after each: the next may fail
        yield row


def extent(context: Context) -> _Extent:
    """Return what fits the time."""
    if not context.on_gpu:
        return _Extent(128, 1 << 20, 3)
    return _Extent(4096, 1 << 28, 5) if context.quick else _Extent(8192, 1 << 30, 10)


def measured(accelerator: Accelerator, how: _Extent) -> Iterator[tuple[Row, Rates]]:
    """Each row, with all rates known by then."""
    products: dict[str, float] = {}
    for dtype in accelerator.dtypes:
        call = accelerator.product(how.side, dtype)
        seconds = statistics.median(accelerator.seconds(call, how.runs))
        products[dtype] = 2.0 * how.side**3 / seconds
        row = Row(
            what=f"product, {_COPIED.get(dtype, dtype)}",
            figure=f"{products[dtype] / 1e12:.3g} TFLOP/s",
            note=f"{how.side} x {how.side} by {accelerator.name}, {1e3 * seconds:.3g} ms",
        )
        yield row, Rates(dict(products))
        del call
    seconds = statistics.median(accelerator.seconds(accelerator.copy(how.copied), how.runs))
    rate = 2.0 * how.copied / seconds
    note = f"{how.copied >> 20} MiB, read and write counted"
    yield Row(what="copy", figure=f"{rate / 1e9:.4g} GB/s", note=note), Rates(products, rate)
