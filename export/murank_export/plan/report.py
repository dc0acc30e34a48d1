"""What `murank plan` prints: stages, memory, what it rests on; for people or as JSON."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from murank.machine.device_kind import has_bfloat16
from murank_export.plan.check import Checked
from murank_export.plan.prediction import Prediction, StagePlan

_PREDICTION = "prediction, not measured"
_MIB = 1 << 20


def as_json(folder: Path, plan: Prediction, checked: Checked | None) -> dict[str, Any]:
    """Return all of the plan; seconds, bytes, operations a second."""
    device = plan.device
    return {
        "schema_version": 1,
        "kind": _PREDICTION,
        "engine": str(folder),
        "sha256": plan.sha256,
        "precision": plan.manifest.precision,
        "candidates": plan.workload.candidates,
        "gallery_size": plan.workload.gallery_size,
        "device": {
            "name": device.name, "title": device.title, "architecture": device.architecture,
            "rates": dict(device.rates), "bandwidth": device.bandwidth,
            "memory_bytes": device.memory_bytes, "source": device.source,
            "notes": list(device.notes), "assumed": vars(device.assumed),
        },
        "stages": [_stage(one, checked) for one in plan.stages],
        "query": {
            name: {
                "floor_s": plan.floor(cached=cached), "predicted_s": plan.predicted(cached=cached)
            }
            for name, cached in (("cached", True), ("uncached", False))
        },
        "memory": {
            "parts": [vars(part) for part in plan.memory.parts],
            "needed_bytes": plan.memory.needed,
            "budget_bytes": plan.memory.budget,
            "fits": plan.memory.fits,
            "of_graphs_bytes": plan.memory.of_graphs,
            "measured_of_graphs_bytes": None if checked is None else checked.grown_bytes,
            "changes": [vars(change) for change in plan.changes],
        },
        "uncounted": plan.uncounted,
    }  # fmt: skip


def _stage(one: StagePlan, checked: Checked | None) -> dict[str, Any]:
    return {
        "stage": one.work.stage, "title": one.work.title,
        "only_uncached": one.work.cached,
        "operations": one.work.operations, "bytes": one.work.bytes,
        "floor_s": one.seconds.floor, "predicted_s": one.seconds.predicted,
        "bound": one.seconds.bound,
        "measured_s": None if checked is None else checked.seconds.get(one.work.title),
    }  # fmt: skip


def as_lines(folder: Path, plan: Prediction, checked: Checked | None) -> Iterator[str]:
    """Yield the same for people."""
    size = plan.workload
    yield f"{folder}: {plan.manifest.precision}, {plan.device.title}"
    yield (
        f"one query, {size.candidates} candidates, gallery of {size.gallery_size} images: "
        f"{_PREDICTION}"
    )
    yield ""
    yield from _stages(plan, checked)
    yield from _memory(plan, checked)
    yield from _grounds(plan)


def _stages(plan: Prediction, checked: Checked | None) -> Iterator[str]:
    width = max(len(title) for title in (*(one.work.title for one in plan.stages), _UNKNOWN))
    measured = f"{'measured ms':>13}{'error':>8}" if checked is not None else ""
    yield (
        f"{'stage':<{width}}{'GFLOP':>10}{'MB':>10}{'floor ms':>11}{'predicted ms':>14}{measured}"
        "  bound by"
    )
    for one in plan.stages:
        figures = f"{one.work.operations / 1e9:>10.3f}{one.work.bytes / 1e6:>10.1f}"
        took = None if checked is None else checked.seconds.get(one.work.title)
        yield (
            f"{one.work.title:<{width}}{figures}{_times(one.seconds.floor, one.seconds.predicted)}"
            + _error(one.seconds.predicted, took, shown=checked is not None)
            + f"  {one.seconds.bound}"
        )
    totals = [(_UNKNOWN, False)]
    if any(one.work.cached for one in plan.stages):
        totals.append((_KNOWN, True))
    for title, cached in totals:
        times = _times(plan.floor(cached=cached), plan.predicted(cached=cached))
        yield f"{title:<{width}}{'':>20}{times}"
    if checked is not None and any(_beats_its_products(one, checked) for one in plan.stages):
        yield "a stage took less than its floor: the rates were measured on a busy machine; repeat"
    yield ""


def _beats_its_products(one: StagePlan, checked: Checked) -> bool:
    """Whether that is more than a cache can do: memory's share of the floor it may undercut."""
    took = checked.seconds.get(one.work.title)
    return took is not None and one.seconds.bound == "compute" and took < one.seconds.floor


_UNKNOWN, _KNOWN = "query, nothing known", "query, vision known"


def _times(floor: float, predicted: float) -> str:
    return f"{1e3 * floor:>11.3f}{1e3 * predicted:>14.3f}"


def _error(predicted: float, took: float | None, *, shown: bool) -> str:
    if not shown:
        return ""
    if took is None:
        return f"{'-':>13}{'-':>8}"
    return f"{1e3 * took:>13.3f}{100 * (predicted / took - 1):>+7.0f}%"


def _memory(plan: Prediction, checked: Checked | None) -> Iterator[str]:
    memory = plan.memory
    rows = [(part.name, part.bytes, part.on_device) for part in memory.parts]
    width = max(len(name) for name, _, _ in rows) + 2
    yield f"{'memory':<{width}}{'MiB':>10}"
    for name, amount, on_device in rows:
        where = "" if on_device or memory.shared else "  (of the host, not counted)"
        yield f"{name:<{width}}{amount / _MIB:>10.1f}{where}"
    verdict = "fits" if memory.fits else "DOES NOT FIT"
    yield (
        f"{'needed':<{width}}{memory.needed / _MIB:>10.1f}  of {memory.budget / _MIB:.0f} MiB: "
        f"{verdict}"
    )
    if checked is not None and checked.grown_bytes is not None:
        yield (
            f"weights, activations and K/V: {memory.of_graphs / _MIB:.1f} MiB predicted, "
            f"{checked.grown_bytes / _MIB:.1f} MiB measured"
        )
    if plan.changes:
        yield "what to change:"
    for change in plan.changes:
        about = "about " if change.about else ""
        fits = "fits" if change.fits else "does not fit"
        yield f"  {change.what}: {about}{change.needed / _MIB:.1f} MiB, {fits}"
    if not memory.fits and not any(change.fits for change in plan.changes):
        yield "  none of these is enough: take a smaller model or a larger device"
    yield ""


def _grounds(plan: Prediction) -> Iterator[str]:
    device, assumed = plan.device, plan.device.assumed
    rates = ", ".join(f"{kind} {rate / 1e12:.3g}" for kind, rate in device.rates.items())
    yield f"rates: {rates} (10^12 operations a second, dense), {device.bandwidth / 1e9:.3g} GB/s"
    yield f"source: {device.source}"
    yield (
        f"assumed: {assumed.compute:.0%} of these rates, {assumed.memory:.0%} of the bandwidth, "
        f"{1e6 * assumed.node_seconds:g} us to start a node ({assumed.why})"
    )
    if plan.manifest.encoder is not None and device.kind != "cpu":
        yield (
            f"assumed: retrieval and re-ranking on its CPU, at {device.host_bandwidth / 1e9:g} GB/s"
        )
    for note in (*device.notes, *_notes(plan)):
        yield f"note: {note}"


def _of_openvino() -> str:
    if has_bfloat16():
        return (
            "this CPU multiplies bf16, which these figures do not know: --providers openvino "
            "--products bf16 computes the MLLM so, in a third to a half of the time"
        )
    return "--providers openvino computes the same at about these rates: this CPU has no bf16"


def _notes(plan: Prediction) -> Iterator[str]:
    yield "decoding and resizing the image, and Python between the stages, are not counted"
    if plan.device.kind == "cpu":
        yield "what stays in a cache from query to query can be faster than the floor"
    if plan.device.kind == "cpu" and "openvino" in plan.manifest.arithmetic.backends:
        yield _of_openvino()
    if plan.device.kind == "cpu" and plan.manifest.precision == "fp16":
        yield "onnxruntime's CPU kernels compute fp16 as fp32: weights take twice their file's size"
    if plan.manifest.scorer is not None and plan.manifest.arithmetic.backends[0] == "plans":
        yield (
            "onnxruntime's CPU kernels compute Q/DQ graphs in floats, node by node: for checks only"
            if plan.device.kind == "cpu"
            else "Q/DQ graphs are counted as TensorRT multiplies them: murank build"
        )
    if plan.device.kind != "cpu" and "tf32" in plan.device.rates:
        yield "float32 products count in full precision; murank build --tf32 makes faster plans"
    if plan.uncounted:
        named = ", ".join(f"{count} x {op}" for op, count in sorted(plan.uncounted.items()))
        yield f"not counted, since shapes are not known: {named}; the figures are too low"
