"""The kernels on the device against the CPU's, and against the golden vectors."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from gpu.context import Context, need_kernels
from gpu.inputs import CHECKED, TINY, Inputs, made_inputs
from gpu.rows import Row
from numpy.typing import NDArray

from murank_kernels import (
    ca_jaccard_blocks,
    ecn_blocks,
    evaluate_rank,
    k_reciprocal_blocks,
    simple,
    simple_blocks,
)

TOLERANCE = 2e-6  # absolute, as of the tests
ROUNDING = 2.0**-24  # relative, of one float32
MOST_BEYOND = 1e-4  # share: where distances nearly tie, a neighbour may change, and a row with it
TOP = 100
Method = Callable[..., Any]
_ZHONG: dict[str, Any] = {"squared": True, "lambda_value": 0.3, "k1": 20, "k2": 6}


def rows(context: Context) -> Iterator[Row]:
    """One row a check."""
    need_kernels(context)
    inputs = made_inputs(CHECKED if context.on_gpu else TINY, twins=20)
    for name, method in methods(inputs).items():
        yield against_cpu(name, method, context.device)
    yield evaluation(inputs, context)
    yield from golden_rows(context.device)


def bound(method: Method, *given: Any, **settings: Any) -> Method:
    """A method that lacks its device only."""
    return partial(method, *given, **settings)


def methods(inputs: Inputs) -> dict[str, Method]:
    """Every method with mu fused: callables of `device` that return DistanceBlocks."""
    given = (inputs.features, inputs.num_query)
    cameras = bound(ca_jaccard_blocks, *given, inputs.camids, **inputs.fusion)
    return {
        "k_reciprocal, MUSE's": bound(k_reciprocal_blocks, *given, **inputs.fusion),
        "k_reciprocal, Zhong's": bound(k_reciprocal_blocks, *given, **_ZHONG, **inputs.fusion),
        "ca_jaccard": cameras,
        "ca_jaccard, clqe": bound(cameras, clqe=True),
        "ecn": bound(ecn_blocks, *given, **inputs.fusion),
        "simple": bound(simple_blocks, *given, **inputs.fusion),
    }


def against_cpu(name: str, method: Method, device: str) -> Row:
    """Compare all distances, and see that the best are those that a stable sort finds."""
    made = method(device=device)
    found = np.concatenate([np.asarray(part) for _, part in made])
    row = compared(
        f"{name}, against the CPU", found, method(device="cpu").dense(),
        roundings=2, most=MOST_BEYOND,
    )  # fmt: skip
    k = min(TOP, found.shape[1])
    best, indices = (np.asarray(one) for one in made.top_k(k))
    # Of the same blocks: other products may round differently, and then equals are no equals.
    order = np.argsort(found, axis=1, kind="stable")[:, :k]
    head = np.take_along_axis(found, order, axis=1)
    if np.array_equal(indices, order) and np.array_equal(best, head):
        return row
    note = f"{row.note}; top_k={k} is not what a stable sort of the distances gives"
    return Row(what=row.what, state="wrong", figure=row.figure, note=note)


def compared(
    what: str, found: NDArray[Any], wanted: NDArray[Any], *, roundings: int = 1, most: float = 0.0
) -> Row:
    """Right if no more than a share `most` of the entries is beyond the tolerance.

    Parameters
    ----------
    roundings
        How many of the two were rounded to float32.
    """
    if found.shape != wanted.shape:
        return Row(what=what, state="wrong", note=f"shape {found.shape}, not {wanted.shape}")
    apart = np.abs(found.astype(np.float64) - wanted)
    beyond = ~(apart <= TOLERANCE + roundings * ROUNDING * np.abs(wanted))  # NaN is beyond
    share = float(beyond.mean())
    return Row(
        what=what,
        state="right" if share <= most else "wrong",
        figure=f"largest difference {apart.max():.1e}",
        note=f"{share:.1e} of {apart.size} entries beyond {TOLERANCE:.0e} and rounding; values up "
        f"to {np.abs(wanted).max():.3g}",
    )


def evaluation(inputs: Inputs, context: Context) -> Row:
    """Evaluate the same distances where they lie and on the host."""
    from gpu.accelerators import for_kernels

    features = for_kernels(context).put(inputs.features)
    distances: Any = simple(features, inputs.num_query, device=context.device, **inputs.fusion)
    on_host = distances.get() if hasattr(distances, "get") else distances
    q = inputs.num_query
    labels = (inputs.pids[:q], inputs.pids[q:], inputs.camids[:q], inputs.camids[q:])
    found, wanted = evaluate_rank(distances, *labels), evaluate_rank(on_host, *labels)
    apart = float(np.nanmax(np.abs(found.all_AP - wanted.all_AP)))
    same = np.array_equal(found.cmc, wanted.cmc) and found.num_valid == wanted.num_valid
    return Row(
        what="evaluate_rank, against the CPU",
        state="right" if same and apart <= 1e-10 else "wrong",
        figure=f"largest difference of AP {apart:.1e}",
        note=f"mAP {found.mAP:.4f}, {found.num_valid} queries",
    )


def golden_rows(device: str) -> Iterator[Row]:
    """Float64 references of the repository's tests; all entries must agree."""
    try:
        from golden_data import FOLDER, golden, main_case
    except ImportError as error:
        yield Row(what="golden", state="cannot run", note=f"cannot run because: {error}")
        return
    if not FOLDER.is_dir():
        why = "cannot run because: tests/golden is not here"
        yield Row(what="golden", state="cannot run", note=why)
        return
    case = main_case()
    inputs = (case.features, case.num_query)
    fused = bound(k_reciprocal_blocks, *inputs, **case.fusion)
    zhong = bound(k_reciprocal_blocks, *inputs, k1=30, k2=10, lambda_value=0.5, squared=True)
    cameras = bound(ca_jaccard_blocks, *inputs, case.camids, **case.fusion)
    checks: tuple[tuple[str, str, Method], ...] = (
        ("main_muse_krnn", "dist_mu", fused),
        ("main_muse_krnn", "dist_mu_k20_6_a50", bound(fused, k1=20, k2=6, alpha=0.5)),
        ("main_zhong", "dist_k30_10_l50", zhong),
        ("main_caj", "dist_ck1_clqe0_mu", bound(cameras, ckrnns=True, clqe=False)),
        ("main_caj", "dist_ck1_clqe1_mu", bound(cameras, ckrnns=True, clqe=True)),
        ("main_caj", "dist_ck0_clqe1_mu", bound(cameras, ckrnns=False, clqe=True)),
        ("main_ecn", "dist_rankdist_mu", bound(ecn_blocks, *inputs, **case.fusion)),
        ("main_muse_simple", "dist_a20", bound(simple_blocks, *inputs, **case.fusion)),
    )
    for file, key, method in checks:
        found = np.asarray(method(device=device).dense())
        yield compared(f"golden {file} {key}", found, golden(file)[key])
