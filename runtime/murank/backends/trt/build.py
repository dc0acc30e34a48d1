"""All plans of an engine: those that are there and fit are kept, so that it can be interrupted."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from murank._exceptions import InputError, MachineError, UsageError
from murank.backends.plan_folder import plans_of
from murank.backends.trt.build_settings import BuildSettings, check_dtype, check_engine_fits
from murank.backends.trt.builder import MadePlan, Progress, make_plan
from murank.backends.trt.plan_store import PlanStore
from murank.backends.trt.plan_target import PlanMachine, check_supported
from murank.backends.trt.profiles import Graph, graphs_of
from murank.backends.trt.record import PlanEntry, PlanPlatform, PlanRecord
from murank.files.atomic import check_writable, write_files
from murank.files.plain import check_utf8, file_size, open_file
from murank.folder.contents import EngineFiles
from murank.folder.integrity import check_engine
from murank.folder.manifest import Manifest

_LARGEST_CACHE = 1 << 30  # bytes


@dataclass(frozen=True)
class BuiltPlan:
    """One plan, as it is now."""

    name: str
    kept: bool  # it was there and fitted
    bytes: int
    seconds: float  # that building took, now or then
    profiles: tuple[str, ...]


@dataclass(frozen=True)
class Built:
    """All of them."""

    folder: Path
    target: PlanPlatform
    plans: tuple[BuiltPlan, ...]


def _silent(stage: str, done: int, total: int) -> None:
    del stage, done, total


def check_request(engine: Path, settings: BuildSettings) -> Manifest:
    """Check what needs neither TensorRT nor a GPU, before they are looked for; return the manifest.

    Raises
    ------
    UsageError
        The timing cache lies in the engine's folder, which holds nothing but what is listed.
    InputError
        The folder is no whole engine, lacks a part asked for, or has a precision that no plan can
        be made of; or the timing cache is no file.
    OutputError
        The folder of plans, or that of the timing cache, cannot be written to.
    """
    manifest = check_engine(engine, hashes=False)
    check_engine_fits(engine, manifest, settings, None)
    check_utf8(engine)
    check_writable(plans_of(manifest, settings.plans))
    if settings.timing_cache is not None:
        _check_timing_cache(engine, settings.timing_cache)
    return manifest


def _check_timing_cache(engine: Path, file: Path) -> None:
    if engine.resolve() in file.resolve().parents:
        raise UsageError(
            f"{file} lies in the engine's folder, which holds only what its manifest lists: name "
            "another place, or leave timing_cache= out (one is kept beside the plans)"
        )
    if file.exists() and not file.is_file():
        raise InputError(f"{file} is no file: name one that TensorRT's timings are kept in")
    check_writable(file.absolute().parent)


def build_plans(
    engine: Path, settings: BuildSettings, machine: PlanMachine, *, progress: Progress = _silent
) -> Built:
    """Make the plans of an engine for a machine, and write them where `plans_of` says.

    Each is written, with the record, as soon as it is made.

    Parameters
    ----------
    engine
        The folder; every file is checked against the manifest first.
    settings
        What is asked for.
    machine
        For which, by which library: `this_machine()`.
    progress
        Called with a stage, and steps of it done and in all.

    Raises
    ------
    UsageError
        A dtype that the GPU cannot compute, or a timing cache for a library that has none.
    InputError
        The folder is no whole engine, lacks a part asked for, has another precision, or one or a
        graph that TensorRT or the GPU does not take; or others may write to the plans there.
    MachineError
        TensorRT does not know this GPU, or its memory is too small.
    OutputError
        The folder of plans cannot be written to, or another build is at work.
    """
    check_supported(machine)
    has = machine.target.compute_capability
    check_dtype(settings.dtype, has)
    if settings.timing_cache is not None and not machine.api.has_timing_cache:
        raise UsageError(f"{machine.api.title} measures nothing when it builds: no timing cache")
    manifest = check_request(engine, settings)
    check_engine_fits(engine, manifest, settings, has)  # before gigabytes are hashed
    check_engine(engine, manifest=manifest, progress=progress)
    files, graphs = EngineFiles(engine, manifest), graphs_of(manifest, settings)
    for graph in graphs:
        _check_memory(files, graph, machine)
    return _Build(files, settings, machine, progress).run(graphs)


class _Build:
    """One call."""

    def __init__(
        self,
        files: EngineFiles,
        settings: BuildSettings,
        machine: PlanMachine,
        progress: Progress,
    ) -> None:
        self._files, self._settings = files, settings
        self._machine, self._progress = machine, progress
        self._store = PlanStore(files, machine.target, settings.plans)

    def run(self, graphs: list[Graph]) -> Built:
        with self._store.writing():
            record = self._known()
            timings = self._first_timings(record)
            built = []
            for graph in graphs:
                entry, kept = record.plans.get(graph.name), True
                if entry is None or not self._can_stay(graph, entry):
                    kept = False
                    record, timings = self._make(graph, record, timings)
                    entry = record.plans[graph.name]
                built.append(_report(graph, entry, kept=kept))
        return Built(self._store.folder, self._machine.target, tuple(built))

    def _known(self) -> PlanRecord:
        """What is there already; of no use if damaged."""
        try:
            return self._store.read()
        except (InputError, MachineError):
            return self._store.empty

    def _first_timings(self, record: PlanRecord) -> bytes:
        file = self._settings.timing_cache
        if file is None:
            return self._store.timing_cache(record)
        if not file.exists():
            return b""
        if file_size(file) > _LARGEST_CACHE:
            raise InputError(f"{file} is over {_LARGEST_CACHE >> 30} GiB: no timing cache")
        with open_file(file) as opened:
            return opened.read()

    def _can_stay(self, graph: Graph, entry: PlanEntry) -> bool:
        if self._settings.rebuild:
            return False
        made = self._made(graph, 0.0)
        return entry.fits(made["flags"], made["profiles"]) and self._store.is_whole(
            graph.name, entry
        )

    def _make(self, graph: Graph, record: PlanRecord, timings: bytes) -> tuple[PlanRecord, bytes]:
        start = time.monotonic()
        plan = self._plan(graph, timings)
        made = self._made(graph, time.monotonic() - start)
        file = self._settings.timing_cache
        own = plan.timing_cache if file is None else b""
        if file is not None and plan.timing_cache:  # first: a plan that is there is not built again
            content = plan.timing_cache
            write_files(file.absolute().parent, {file.name: lambda to: to.write(content)})
        record = self._store.add(record, graph.name, plan.content, made, own)
        return record, plan.timing_cache

    def _plan(self, graph: Graph, timings: bytes) -> MadePlan:
        def progress(stage: str, done: int, total: int) -> None:
            self._progress(f"{graph.name}: {stage}", done, total)

        with self._files.graph(graph.file) as own:
            return make_plan(
                self._machine,
                own,
                graph.profiles,
                self._settings,
                timing_cache=timings,
                progress=progress,
                called=self._files.folder / graph.file,
            )

    def _made(self, graph: Graph, seconds: float) -> dict[str, Any]:
        return {
            "flags": self._settings.flags,
            "profiles": {one.name: one.to_json() for one in graph.profiles},
            "seconds": round(seconds, 3),
        }


def _check_memory(files: EngineFiles, graph: Graph, machine: PlanMachine) -> None:
    """Raise MachineError if not even the weights would fit."""
    if machine.gpu is None:
        return
    needed = sum(files.manifest.files[name].size for name in files.graph_files(graph.file))
    free = machine.gpu.free_bytes()
    if needed > free:
        raise MachineError(
            f"the {graph.name} has {needed >> 20} MiB of weights, and the GPU has {free >> 20} MiB "
            "of memory free: stop what else uses it, or take a smaller engine (fp16, a smaller "
            "MLLM)"
        )


def _report(graph: Graph, entry: PlanEntry, *, kept: bool) -> BuiltPlan:
    names = tuple(one.name for one in graph.profiles)
    return BuiltPlan(graph.name, kept, entry.file.size, entry.seconds, names)
