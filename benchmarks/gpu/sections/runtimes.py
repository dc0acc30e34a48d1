"""An engine on the GPU: by onnxruntime, and by TensorRT plans."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from gpu.context import Context, need, need_driver, read_rates, read_times
from gpu.rows import CannotRun, Row, timed
from gpu.sections.engine import (
    CANDIDATE_SEED,
    PARITY_PAIRS,
    QUERIES_AT_ONCE,
    QUERY_SEED,
    Made,
    need_made,
    parity,
    parity_images,
)

from murank.folder.precision import ARITHMETIC, Backend, Precision

T = TypeVar("T")
GOALS = {"onnxruntime": "25 ms", "TensorRT": "under 3x the floor"}


def onnxruntime_rows(context: Context) -> Iterator[Row]:
    """The CUDA provider; on a CPU, for a trial, its own."""
    if context.on_gpu:
        need_driver()
        need("onnxruntime")
        import onnxruntime

        from murank.doctor.probes import product

        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise CannotRun("this onnxruntime is no GPU build: it has no CUDAExecutionProvider")
        _must_work(lambda: product("CUDAExecutionProvider"))
    where = need_made(context)
    for precision in with_backend("cuda" if context.on_gpu else "cpu", context):
        if (why := why_not(where, precision)) is not None:
            yield why
            continue
        yield from scored("onnxruntime", context.device, precision, where, context)


def tensorrt_rows(context: Context) -> Iterator[Row]:
    """Build the plans, then run them."""
    if not context.on_gpu:
        raise CannotRun("TensorRT has no CPU to be tried on")
    need_driver()
    from murank.backends.trt import BuildSettings, build_plans, this_machine

    machine = _must_work(this_machine)
    where = need_made(context)
    from scoring import CANDIDATES

    settings = BuildSettings(
        max_queries=QUERIES_AT_ONCE, candidates=CANDIDATES, parts=("scorer",)
    )  # fmt: skip
    has = tuple(map(int, machine.target.compute_capability.split(".")))
    for precision in with_backend("plans", context):
        if (why := why_not(where, precision, has)) is not None:
            yield why
            continue
        built = build_plans(where.engine(precision), settings, machine)
        for plan in built.plans:
            note = "kept from an earlier run" if plan.kept else ""
            what = f"TensorRT {precision}: build {plan.name}"
            yield Row(what=what, figure=f"{plan.seconds:.1f} s", note=note)
        yield from scored("TensorRT", "tensorrt-plans", precision, where, context)


def with_backend(backend: Backend, context: Context) -> list[Precision]:
    """Return the precisions asked for that a backend runs."""
    found = [one for one in context.precisions if backend in ARITHMETIC[one].backends]
    if not found:
        raise CannotRun(f"none of {', '.join(context.precisions)} is for this backend")
    return found


def why_not(where: Made, precision: Precision, has: tuple[int, ...] | None = None) -> Row | None:
    """Return a row that says why an engine cannot be tried, or None."""
    why, least = None, ARITHMETIC[precision].least_capability
    if not where.engine(precision).exists():
        why = "the section engine did not make it"
    elif has is not None and has < least:
        why = f"it needs compute capability {least[0]}.{least[1]}"
    if why is None:
        return None
    note = f"cannot run because: {why}"
    return Row(what=f"the {precision} engine", state="cannot run", note=note)


def _must_work(call: Callable[[], T]) -> T:
    """Raise CannotRun where a small trial, before ours, says what is missing."""
    from murank import MachineError

    try:
        return call()
    except MachineError as error:
        raise CannotRun(str(error)) from error


def scored(
    library: str, providers: str, precision: Precision, where: Made, context: Context
) -> Iterator[Row]:
    """Parity, one query a call, several queries a call."""
    from scoring import CANDIDATES, gflop, pixels

    from murank import Engine

    name = f"{library} {precision}"
    folder = where.engine(precision)
    engine = Engine.from_pretrained(folder, providers=providers, parts=["scorer"])
    scorer = engine.scorer
    assert scorer is not None
    query, few = parity_images(pixels)
    found = scorer.logits(query, list(few))
    assert len(found) == PARITY_PAIRS
    yield parity(f"{name}: parity", found, where.reference, precision)
    candidates = list(pixels(CANDIDATES, CANDIDATE_SEED))
    scorer.vision.of(candidates)  # known from now on
    flop = 1e9 * gflop(scorer.part, where.folder, cached=True)
    floor = read_rates(context).product_seconds(flop, "float16")
    runs = 3 if context.quick or not context.on_gpu else 15
    for queries in (1, QUERIES_AT_ONCE):
        seconds = seconds_a_query(scorer, candidates, queries, runs)
        note = f"{CANDIDATES / seconds:.0f} pairs/s, median of {runs}"
        note += share_of_peak(seconds, floor) + against(seconds, read_times(context))
        if context.on_gpu and queries == 1:
            note += f"; goal for the 2B architecture on an H200: {GOALS[library]}"
        yield timed(f"{name}, {queries} a call, ms a query", seconds, floor, note)


def seconds_a_query(scorer: Any, candidates: list[Any], queries: int, runs: int) -> float:
    """Median, of queries never seen before; logits come back to the host, which waits for them."""
    from scoring import pixels

    found = []
    for turn in range(2 + runs):
        images = list(pixels(queries, QUERY_SEED + 1 + turn))
        start = time.perf_counter()
        scorer.logits_of_many(images, [candidates] * queries)
        found.append((time.perf_counter() - start) / queries)
    return statistics.median(found[2:])


def share_of_peak(seconds: float, floor: float | None) -> str:
    """Say how much of the measured fp16 product rate is used; nothing where it is not known."""
    return "" if floor is None else f", {floor / seconds:.0%} of the fp16 product rate"


def against(seconds: float, times: Mapping[str, float]) -> str:
    """Say how much longer the baselines take."""
    return "".join(
        f"; PyTorch {name} takes {value / seconds:.2f} times as long"
        for name, value in times.items()
    )
