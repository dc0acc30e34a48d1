"""Whether an engine can run on this machine, and with which providers."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from murank.backends.choose import backend_of, refusal
from murank.backends.plan_folder import has_plans
from murank.backends.trt.arithmetic import why_not
from murank.doctor.child import ask
from murank.doctor.machine_report import MachineReport
from murank.doctor.redact import size
from murank.folder.integrity import check_engine
from murank.folder.manifest import Manifest
from murank.folder.precision import ARITHMETIC
from murank.machine.memory import available_bytes

_SECONDS = 900.0  # for loading gigabytes from a slow card
_SPARE = 1.2  # what graphs need beside their weights, at least
# What `providers` may be called: the trial that must have worked.
_NEEDS = {"cpu": "onnxruntime-cpu", "cuda": "onnxruntime-cuda", "tensorrt-plans": "tensorrt"}


@dataclass(frozen=True)
class EngineTry:
    """An engine with one of the providers."""

    providers: str
    runs: bool
    said: str


def check_first(folder: Path) -> Manifest:
    """Return the manifest of an engine; InputError if its structure is not whole."""
    return check_engine(folder, hashes=False)


def try_engine(
    folder: Path,
    manifest: Manifest,
    machine: MachineReport,
    works: Collection[str],
    progress: Callable[[str], None],
    plans: Path | None = None,
) -> tuple[EngineTry, ...]:
    """Replay the golden images with each of the providers that may run the engine.

    Parameters
    ----------
    folder, manifest
        The engine, and what it says of itself.
    machine, works
        This machine, and the names of the trials that went well.
    progress
        Told what is being tried.
    plans
        See `murank.backends.plan_folder`.
    """
    tries = []
    for providers in _NEEDS:
        why_not = _why_not(manifest, machine, works, providers, plans)
        if why_not is None:
            progress(f"the engine with providers {providers}")
            named = [] if plans is None else [str(plans.resolve())]
            answer = ask("golden", str(folder.resolve()), providers, *named, seconds=_SECONDS)
            tries.append(EngineTry(providers, answer.works, answer.said))
        else:
            tries.append(EngineTry(providers, runs=False, said=why_not))
    return tuple(tries)


def _why_not(
    manifest: Manifest, machine: MachineReport, works: Collection[str], providers: str,
    plans: Path | None,
) -> str | None:  # fmt: skip
    if _NEEDS[providers] not in works:
        return "not tried: the backend does not work here, see above"
    refused = _precision(manifest, machine, providers)
    if refused is not None:
        return refused
    if providers == "tensorrt-plans" and not has_plans(manifest, plans):
        return "it has no plans for this device: run murank build"
    if manifest.golden is None:
        return "not tried: it has no golden images; export it again"
    return _memory(manifest, machine, providers)


def _precision(manifest: Manifest, machine: MachineReport, providers: str) -> str | None:
    """Say so if the backend, or the GPU, has no such products."""
    if manifest.scorer is None:
        return None
    refused = refusal(manifest.precision, backend_of(providers))
    if refused is not None or backend_of(providers) != "plans":
        return refused
    return why_not(manifest.precision, machine.gpus[0].compute_capability)


def _memory(manifest: Manifest, machine: MachineReport, providers: str) -> str | None:
    """Say so if the weights alone are more than is free."""
    on_cpu = providers == "cpu"
    wide = ARITHMETIC[manifest.precision].widening(on_cpu=on_cpu)
    needed = int(_SPARE * wide * manifest.size)
    shared = on_cpu or machine.is_jetson
    free = available_bytes() if shared else machine.gpus[0].memory_bytes
    if free is None or needed <= free:
        return None
    return (
        f"not tried: its weights need about {size(needed)}, and {size(free)} are "
        f"{'free' if shared else 'on the GPU'}; export with a smaller --dtype, or see murank plan"
    )
