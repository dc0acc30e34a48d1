"""The plan of an engine on a device: time of each stage, memory, and whether it fits."""

from dataclasses import dataclass
from pathlib import Path

from murank._exceptions import InputError, UsageError
from murank.backends.trt.arithmetic import why_not
from murank.files.plain import check_utf8
from murank.folder.integrity import check_engine
from murank.folder.manifest import Manifest, read_manifest_once
from murank.folder.precision import ARITHMETIC, Precision
from murank_export.plan.changes import Change, changes
from murank_export.plan.devices import Device, capability_of
from murank_export.plan.engine_memory import Footprint, Memory
from murank_export.plan.roofline import Seconds, seconds
from murank_export.plan.work import EngineRuns, Work


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
class Prediction:
    """What an engine will need on a device. Nothing of it was measured there."""

    manifest: Manifest
    sha256: str
    device: Device
    workload: Workload
    stages: tuple[StagePlan, ...]
    memory: Memory
    changes: tuple[Change, ...]  # empty where it fits
    uncounted: dict[str, int]  # nodes of the encoder, by operator

    def predicted(self, *, cached: bool) -> float:
        """Seconds of a query, with or without the candidates' vision tokens known."""
        return sum(one.seconds.predicted for one in self._stages(cached))

    def floor(self, *, cached: bool) -> float:
        """The least seconds of the same."""
        return sum(one.seconds.floor for one in self._stages(cached))

    def _stages(self, cached: bool) -> list[StagePlan]:
        return [one for one in self.stages if not (cached and one.work.cached)]


def check_plan(
    folder: Path,
    workload: Workload,
    *,
    device: str,
    architecture: str | None,
    precision: Precision | None,
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
    precision
        What the engine's must be; None: any.

    Raises
    ------
    UsageError
        More candidates than the gallery has images, or a precision that the device cannot compute.
    InputError
        The folder is no whole engine, has another precision, or one that does not run there.
    """
    if workload.candidates > workload.gallery_size:
        raise UsageError(
            f"{workload.candidates} candidates cannot come from a gallery of "
            f"{workload.gallery_size}: pass a smaller --candidates or a larger --gallery-size"
        )
    reason = None if precision is None else _why_not(precision, device, architecture)
    if reason is not None:
        raise UsageError(reason)
    manifest = check_engine(folder, hashes=False)
    check_utf8(folder)
    found = manifest.precision
    if precision not in (None, found):
        raise InputError(
            f"{folder} is {found}, and an engine has one precision: export it again with "
            f"--dtype {precision}"
        )
    # An encoder is in floats, whatever the precision.
    reason = None if manifest.scorer is None else _why_not(found, device, architecture)
    if reason is not None:
        raise InputError(f"{folder} is {found}, and {reason}")
    return manifest


def _why_not(precision: Precision, device: str, architecture: str | None) -> str | None:
    """Return why such an engine does not run on a device; None if it does."""
    backends = ARITHMETIC[precision].backends
    if architecture is None:
        on_cpu = "cpu" in backends
        return None if on_cpu else f"{device} has no {precision} arithmetic: use int8 or fp32"
    if not {"cuda", "plans"} & {*backends}:
        return (
            f"{precision} runs on CPUs only: export with --dtype int8-qdq (or fp16) for {device}, "
            "or plan for --board cpu"
        )
    return why_not(precision, capability_of(architecture), device)


def plan_engine(
    folder: Path, device: Device, workload: Workload, *, memory_bytes: int | None = None
) -> Prediction:
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
    manifest, sha256 = read_manifest_once(folder)
    check_engine(folder, hashes=False, manifest=manifest)
    runs = EngineRuns.read(folder, manifest, on_cpu=device.kind == "cpu")
    pairs = workload.max_pairs or (manifest.scorer.max_pairs if manifest.scorer else 1)
    candidates, size = workload.candidates, workload.gallery_size
    works = runs.stages(candidates=candidates, gallery_size=size, max_pairs=pairs)
    budget = device.usable_bytes if memory_bytes is None else memory_bytes
    footprint = Footprint(runs, device, budget, candidates, size, pairs)
    needed = footprint.memory()
    return Prediction(
        manifest, sha256, device, workload,
        tuple(StagePlan(work, seconds(work, device)) for work in works),
        needed, () if needed.fits else changes(footprint),
        {} if runs.encoder is None else dict(runs.encoder.uncounted),
    )  # fmt: skip
