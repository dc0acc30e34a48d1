"""Whether an engine can run on this machine, and with which providers."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from murank.backends.choose import backend_of, refusal
from murank.backends.plan_folder import has_plans
from murank.backends.protocol import Products
from murank.backends.providers import may_take_gpu
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
# What `providers` and `products` may be, and the trial that must have worked.
_WAYS: tuple[tuple[str, Products, str], ...] = (
    ("cpu", "float32", "onnxruntime-cpu"),
    ("cuda", "float32", "onnxruntime-cuda"),
    ("tensorrt-plans", "float32", "tensorrt"),
    ("openvino", "float32", "openvino"),
    ("openvino", "bf16", "openvino"),
)


@dataclass(frozen=True)
class EngineTry:
    """An engine with one of the providers."""

    providers: str
    runs: bool
    said: str
    products: Products = "float32"
    query_ms: float | None = None  # see `murank.doctor.pace`; None: it does not run

    @property
    def title(self) -> str:
        """How it is asked for."""
        return self.providers + ("" if self.products == "float32" else f", {self.products}")


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
    """Replay the golden images with each of the providers that may run the engine, and time it.

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
    named = [] if plans is None else [str(plans.resolve())]
    for providers, products, needed in _WAYS:
        if needed not in works and products != "float32":
            continue  # said once
        why_not = _why_not(manifest, machine, needed in works, providers, plans)
        if why_not is not None:
            tries.append(EngineTry(providers, False, why_not, products))
            continue
        way = (str(folder.resolve()), providers, products, *named)
        progress(f"the engine with providers {providers}, {products}")
        answer = ask("golden", *way, seconds=_SECONDS)
        if answer.works:
            progress(f"its speed with providers {providers}, {products}: five seconds")
        pace = ask("pace", *way, seconds=_SECONDS).more if answer.works else None
        tries.append(EngineTry(providers, answer.works, answer.said, products, pace))
    return tuple(tries)


def fastest(tries: Sequence[EngineTry]) -> EngineTry | None:
    """Return the one whose query took least; None if none was timed."""
    timed = [(one.query_ms, place) for place, one in enumerate(tries) if one.query_ms is not None]
    return tries[min(timed)[1]] if timed else None


def _why_not(
    manifest: Manifest, machine: MachineReport, works: bool, providers: str, plans: Path | None
) -> str | None:
    if not works:
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
    wide = ARITHMETIC[manifest.precision].widening(backend_of(providers) or "cpu")
    needed = int(_SPARE * wide * manifest.size)
    shared = machine.is_jetson or not may_take_gpu(providers)
    free = available_bytes() if shared else machine.gpus[0].memory_bytes
    if free is None or needed <= free:
        return None
    return (
        f"not tried: its weights need about {size(needed)}, and {size(free)} are "
        f"{'free' if shared else 'on the GPU'}; run murank export with a "
        "smaller --dtype, or see murank plan"
    )
