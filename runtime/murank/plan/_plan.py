"""The plan of an engine on a device: time of each stage, memory, and whether it fits."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from murank._exceptions import InputError, UsageError
from murank.engine.integrity import check_engine
from murank.engine.manifest import INTEGER, Manifest, Precision, engine_sha256
from murank.plan._changes import Change, changes
from murank.plan._memory import Memory, graph_memory, memory
from murank.plan._roofline import Seconds, seconds
from murank.plan._work import Graphs, Work, score_shapes, stages, uncounted
from murank.plan.devices import Device

_FP8_FROM = "sm_89"
_WRITTEN = ", ".join(get_args(Precision))


@dataclass(frozen=True)
class Workload:
    """What one query is."""

    candidates: int = 20
    gallery_size: int = 1000
    max_pairs: int | None = None  # in one run of the decoder; None: the engine's own number


@dataclass(frozen=True)
class StagePlan:
    """One stage of one query."""

    work: Work
    seconds: Seconds


@dataclass(frozen=True)
class Plan:
    """What an engine will need on a device. Nothing of it was measured there."""

    manifest: Manifest
    sha256: str
    device: Device
    workload: Workload
    stages: tuple[StagePlan, ...]
    memory: Memory
    changes: tuple[Change, ...]  # empty where it fits
    uncounted: dict[str, int]

    def predicted(self, *, cached: bool) -> float:
        """Seconds of a query, with or without the candidates' vision tokens known."""
        return sum(one.seconds.predicted for one in self._stages(cached))

    def floor(self, *, cached: bool) -> float:
        """The least seconds of the same."""
        return sum(one.seconds.floor for one in self._stages(cached))

    def _stages(self, cached: bool) -> list[StagePlan]:
        return [one for one in self.stages if not (cached and one.work.cached)]


def check_plan(
    folder: Path, workload: Workload, *, device: str, architecture: str | None, dtype: str | None
) -> Manifest:
    """Check what can be checked before anything is counted or measured.

    Parameters
    ----------
    folder
        The engine; its structure is checked, its files are not read.
    workload
        Of a query.
    device, architecture
        Name of the device; its GPU's architecture, None for a CPU.
    dtype
        What the engine's precision must be; None: any.

    Raises
    ------
    UsageError
        More candidates than the gallery has images, or a dtype that the device cannot compute.
    InputError
        The folder is no whole engine, has another precision, or one that does not run there.
    """
    if workload.candidates > workload.gallery_size:
        raise UsageError(
            f"{workload.candidates} candidates cannot come from a gallery of "
            f"{workload.gallery_size}: pass a smaller --candidates or a larger --gallery-size"
        )
    if dtype == "fp8":
        _refuse_fp8(device, architecture)
    manifest = check_engine(folder, hashes=False)
    if dtype not in (None, manifest.precision):
        again = f"export it again with --dtype {dtype}"
        raise InputError(
            f"{folder} is {manifest.precision}, and an engine has one precision: "
            + (again if dtype != "fp8" else f"murank export writes {_WRITTEN}, no fp8 yet")
        )
    integer = manifest.precision in INTEGER and manifest.scorer is not None
    if integer and architecture is not None:
        raise InputError(
            f"{folder} is {manifest.precision}, which runs on CPUs only; export with --dtype fp16 "
            f"for {device}, or plan for --device cpu"
        )
    return manifest


def _refuse_fp8(device: str, architecture: str | None) -> None:
    number = int((architecture or "sm_0").partition("_")[2])
    if number < int(_FP8_FROM.partition("_")[2]):
        has = "a CPU" if architecture is None else f"its GPU is {architecture}"
        raise UsageError(
            f"{device} has no fp8 arithmetic ({has}; fp8 needs {_FP8_FROM} or newer): use fp16"
        )


def plan_engine(
    folder: Path, device: Device, workload: Workload, *, memory_bytes: int | None = None
) -> Plan:
    """Count an engine's graphs and return the plan; weights are not loaded.

    Parameters
    ----------
    folder
        The engine.
    device
        One of `DEVICES`, or `this_cpu`.
    workload
        Of a query.
    memory_bytes
        The budget; None: the device's usable memory.

    Raises
    ------
    InputError
        The folder is no whole engine, or a graph cannot be read.
    MachineError
        onnx is not installed.
    """
    manifest = check_engine(folder, hashes=False)
    graphs = Graphs.read(folder, manifest, device.half_bytes)
    pairs = workload.max_pairs or (manifest.scorer.max_pairs if manifest.scorer else 1)
    works = stages(
        manifest, graphs, candidates=workload.candidates, gallery_size=workload.gallery_size,
        max_pairs=pairs,
    )  # fmt: skip
    kept = graph_memory(works)
    budget = device.usable_bytes if memory_bytes is None else memory_bytes
    size = workload.gallery_size
    needed = memory(manifest, kept, device, gallery_size=size, budget=budget)

    def live(candidates: int) -> int:
        """The decoder's largest activations with that many candidates in a run."""
        if manifest.scorer is None or graphs.decoder is None:
            return 0
        score = graphs.decoder.cost(score_shapes(manifest.scorer, candidates))
        prefill = (cost for one in works if one.stage == "prefill" for cost, _ in one.runs)
        return max(cost.live_bytes for cost in (score, *prefill))

    advice: tuple[Change, ...] = ()
    if not needed.fits:
        advice = changes(
            manifest, kept, device, gallery_size=size, budget=budget,
            pairs=min(pairs, workload.candidates), live=live,
        )  # fmt: skip
    return Plan(
        manifest, engine_sha256(folder), device, workload,
        tuple(StagePlan(work, seconds(work, device)) for work in works),
        needed, advice, uncounted(works),
    )  # fmt: skip
