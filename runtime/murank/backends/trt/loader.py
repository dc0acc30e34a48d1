"""From an engine's graph to its plan, loaded: nothing is deserialised before all checks passed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from murank._exceptions import InputError, MachineError
from murank.backends.trt.api import first_error, make_logger
from murank.backends.trt.plan_store import PlanStore
from murank.backends.trt.plan_target import PlanMachine, machines
from murank.folder.contents import EngineFiles
from murank.folder.manifest import Manifest


@dataclass(frozen=True)
class Loaded:
    """A plan in GPU memory; the runtime and its logger must outlive the engine."""

    machine: PlanMachine
    logger: Any
    runtime: Any
    engine: Any


def load_plan(files: EngineFiles, graph: str, index: int, plans: Path | None) -> Loaded:
    """Load the plan of a graph of an engine folder for GPU `index`; see `plans_of`.

    Raises
    ------
    MachineError
        TensorRT, PyCUDA or the GPU is missing, or there is no plan for them.
    InputError
        The plan is damaged, or others may write to the place that it is kept in.
    """
    folder = files.folder
    name = _plan_name(files.manifest, graph)
    store, machine = _store(files, machines(index), plans)
    entry = store.read().plans.get(name)
    if entry is None:
        raise MachineError(f"{store.folder} has no plan of the {name}: run murank build {folder}")
    with store.open_plan(name, entry) as content:
        return _deserialise(machine, folder / graph, content)


def _deserialise(machine: PlanMachine, file: Path, content: Any) -> Loaded:
    logger = make_logger(machine.api)
    runtime = machine.api.module.Runtime(logger)
    assert machine.gpu is not None  # noqa: S101 (`machines` opened it)
    machine.gpu.release()  # TensorRT takes its memory from elsewhere than arrays do
    with machine.gpu.active():
        engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise MachineError(
            f"{file}: {machine.api.title} could not load the plan ({first_error(logger)}); stop "
            "what else uses the GPU if memory is short, else run murank build again"
        )
    return Loaded(machine, logger, runtime, engine)


def _store(
    files: EngineFiles, usable: list[PlanMachine], plans: Path | None
) -> tuple[PlanStore, PlanMachine]:
    """Return the plans of the first library that has any; else those of the first choice."""
    stores = [(PlanStore(files, machine.target, plans), machine) for machine in usable]
    return next((one for one in stores if one[0].folder.exists()), stores[0])


def _plan_name(manifest: Manifest, graph: str) -> str:
    names = {}
    if manifest.encoder is not None:
        names[manifest.encoder.graph] = "encoder"
    if manifest.scorer is not None:
        names |= {manifest.scorer.vision: "vision", manifest.scorer.decoder: "decoder"}
    if graph not in names:
        raise InputError(f"{graph} is none of the graphs that the manifest names")
    return names[graph]
