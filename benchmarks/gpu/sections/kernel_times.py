"""From features on the device to the re-ranked top 100, at the sizes of the field."""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from gpu.accelerators import Cpu, CupyGpu, for_kernels
from gpu.context import Context, Rates, need_kernels, read_rates
from gpu.inputs import MARKET, MSMT, TINY, Size, made_inputs
from gpu.rows import Row, timed

from murank_kernels import k_reciprocal, simple

TOP = 100
GOALS = {"Market-1501": "goal on an H200: 10 ms", "MSMT17": "goal on an H200: 200 ms"}


def rows(context: Context) -> Iterator[Row]:
    """Times, peak memory and stages of each size."""
    need_kernels(context)
    rates = read_rates(context)
    for name, size, runs in sizes(context):
        yield from size_rows(name, size, runs, context, rates)


def sizes(context: Context) -> list[tuple[str, Size, int]]:
    """Name, size and runs."""
    if not context.on_gpu:
        return [("tiny", TINY, 3)]
    market = ("Market-1501", MARKET, 5 if context.quick else 20)
    return [market] if context.quick else [market, ("MSMT17", MSMT, 5)]


def size_rows(name: str, size: Size, runs: int, context: Context, rates: Rates) -> Iterator[Row]:
    """Whole calls, then one that is halted between stages."""
    accelerator = for_kernels(context)
    made = made_inputs(size, device=context.device)
    features = accelerator.put(made.features)
    fusion = {key: accelerator.put(value) for key, value in made.fusion.items()}
    settings: dict[str, Any] = {"top_k": min(TOP, size.num_gallery), "device": context.device}
    given = (features, size.num_query)
    ours: Callable[..., Any] = k_reciprocal
    direct: Callable[..., Any] = simple
    plain = partial(ours, *given, k1=20, k2=6, squared=True, **settings)
    fused = partial(plain, **fusion)
    calls = {
        "k_reciprocal with mu": fused,
        **(
            {"k_reciprocal with mu, tf32": partial(fused, products="tf32")}
            if context.on_gpu
            else {}
        ),
        "k_reciprocal": plain,
        "simple with mu": partial(direct, *given, **fusion, **settings),
    }
    floor = rates.rerank_seconds(size.num_rows, size.dim)
    for what, call in calls.items():
        seconds = statistics.median(accelerator.seconds(call, runs))
        is_goal = what == "k_reciprocal with mu"
        note = f"median of {runs}" + (f"; {GOALS[name]}" if is_goal and name in GOALS else "")
        of_it = floor if "reciprocal" in what else None
        yield timed(f"{name} size: {what}", seconds, of_it, note)
    if context.on_gpu:
        yield tf32_row(name, fused)
    peak = accelerator.peak_bytes(fused)
    if peak is not None:
        what = f"{name} size: memory at most"
        yield Row(what=what, figure=f"{peak / 2**30:.2f} GiB", note="CuPy's pool, input included")
    for stage, seconds in stages(fused, accelerator).items():
        what = f"{name} size: stage {stage}"
        yield timed(what, seconds, note="one run, halted at each report of progress")


def tf32_row(name: str, call: Callable[..., Any]) -> Row:
    """What it changes that the search's factors are rounded to ten bits."""
    (_, wanted), (_, found) = call(), call(products="tf32")
    wanted, found = (
        np.asarray(one.get() if hasattr(one, "get") else one) for one in (wanted, found)
    )
    others = np.mean([len(set(a) - set(b)) / len(a) for a, b in zip(found, wanted, strict=True)])
    return Row(
        what=f"{name} size: tf32 against float32",
        figure=f"{others:.4%} of the first {wanted.shape[1]} are others",
        note=f"{np.mean((found != wanted).any(1)):.2%} of the queries have another order",
    )


def stages(call: Callable[..., Any], accelerator: CupyGpu | Cpu) -> dict[str, float]:
    """Seconds of one run by the stage that reports; the steps between two belong to the later."""
    found: dict[str, float] = {}
    accelerator.synchronize()
    mark = time.perf_counter()

    def report(stage: str, _done: int, _total: int) -> None:
        nonlocal mark
        accelerator.synchronize()
        now = time.perf_counter()
        found[stage] = found.get(stage, 0.0) + now - mark
        mark = now

    call(progress=report)
    return found
