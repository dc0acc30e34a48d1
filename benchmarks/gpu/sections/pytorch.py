"""PyTorch on the GPU, the released way and with the prefix shared."""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from gpu.context import Context, need_torch, read_rates, write_times
from gpu.rows import Row, timed
from gpu.sections.engine import (
    CANDIDATE_SEED,
    LAYOUT,
    PARITY_PAIRS,
    QUERY_SEED,
    need_made,
    parity,
    parity_images,
    shapes_of,
)


def rows(context: Context) -> Iterator[Row]:
    """Parity and time of each baseline, by a clock around calls that wait for the device."""
    need_torch(context)
    where = need_made(context)
    import torch
    from gpu.baseline import Baseline
    from scoring import CANDIDATES, gflop, pixels

    from murank_export.mllm.checkpoint import load_checkpoint

    dtype = torch.float16 if context.on_gpu else torch.float32
    model = Baseline(load_checkpoint(where.checkpoint), LAYOUT, context.device, dtype)
    candidates = pixels(CANDIDATES, CANDIDATE_SEED)
    known = model.vision(candidates)
    query, few = parity_images(pixels)
    yield parity("PyTorch, released way: parity", model.released(query, few), where.reference)
    reused = model.reuse(query, known[:PARITY_PAIRS])
    yield parity("PyTorch, prefix reuse: parity", reused, where.reference)
    flop = 1e9 * gflop(shapes_of(where, context), where.folder, cached=True)
    floor = read_rates(context).product_seconds(flop, "float16")
    runs = 3 if context.quick or not context.on_gpu else 7
    calls: dict[str, Callable[[Any], Any]] = {
        "released": lambda image: model.released(image, candidates),
        "reuse": lambda image: model.reuse(image, known),
    }
    titles = {
        "released": "PyTorch, released way, ms a query",
        "reuse": "PyTorch, prefix reuse, candidates' tokens known, ms a query",
    }
    times: dict[str, float] = {}
    for name, call in calls.items():
        times[name] = seconds_a_query(call, runs)
        write_times(context, times)
        what = f"{CANDIDATES} candidates, median of {runs}"
        yield timed(titles[name], times[name], floor if name == "reuse" else None, what)
    if context.on_gpu:
        peak = torch.cuda.max_memory_allocated() / 2**30
        yield Row(what="PyTorch: memory at most", figure=f"{peak:.2f} GiB")


def seconds_a_query(call: Callable[[Any], Any], runs: int) -> float:
    """Median seconds of queries never seen before, after two that warm up."""
    from scoring import pixels

    found = []
    for turn in range(2 + runs):
        image = pixels(1, QUERY_SEED + 1 + turn)[0]
        start = time.perf_counter()
        call(image)
        found.append(time.perf_counter() - start)
    return statistics.median(found[2:])
