"""Which backends can run an engine, and all of its graphs on one of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, get_args

from murank._exceptions import InputError, MachineError
from murank.backends.onnx.integer_probe import products_are_exact
from murank.backends.onnx.session import onnxruntime
from murank.backends.protocol import Products
from murank.backends.providers import (
    CPU,
    CUDA,
    OPENVINO,
    PLANS,
    PROVIDER_NAMES,
    TENSORRT,
    Providers,
    name_of,
    openvino_device,
)
from murank.checks.text import shown, warn
from murank.folder.precision import ARITHMETIC, INTEGER, Backend, Precision
from murank.machine.driver import has_driver
from murank.machine.integer_products import multiplies_exactly

Loaded = TypeVar("Loaded")
# Onnxruntime's TensorRT provider has TensorRT's products, as plans have.
_OF_NAME: Mapping[str, Backend] = {
    "cpu": "cpu", "cuda": "cuda", "tensorrt": "plans", PLANS: "plans",
    CPU: "cpu", CUDA: "cuda", TENSORRT: "plans",
}  # fmt: skip
_WITHOUT_VNNI: Mapping[Precision, str] = {"int8": "about 0.7", "w8a16": "about 1.3"}  # AVX2
# What "auto" asks for: on CUDA, a node that has no kernel there may stay on the CPU.
_AUTO: Mapping[Backend, str] = {"cpu": "cpu", "cuda": "auto", "plans": PLANS}


def backend_of(providers: Providers) -> Backend | None:
    """Return what runs the products under these providers; None: not known ("auto", others)."""
    if openvino_device(providers) is not None:
        return "openvino"
    named = providers if isinstance(providers, str) or not providers else name_of(providers[0])
    return _OF_NAME.get(named) if isinstance(named, str) else None


def check_form(providers: Providers) -> None:
    """Raise InputError unless it is a name, or a list of onnxruntime's names with options."""
    if isinstance(providers, str):
        return
    entries = list(providers) if isinstance(providers, Sequence) else [None]
    names = [one[0] if isinstance(one, tuple) and one else one for one in entries]
    if not entries or not all(isinstance(name, str) for name in names):
        raise InputError(
            f"providers must be one of {', '.join(PROVIDER_NAMES)}, or a list of onnxruntime's "
            f"names, got {providers!r}"
        )
    for name in names:
        if name in PROVIDER_NAMES:
            raise InputError(f"pass providers={name!r} by itself: a list holds onnxruntime's names")


def check_products(providers: Providers, products: Products) -> None:
    """Raise InputError unless these providers can be asked to multiply so."""
    known = get_args(Products)
    if products not in known:
        raise InputError(f"products must be one of {', '.join(known)}, got {products!r}")
    if products != "float32" and openvino_device(providers) is None:
        raise InputError(
            f"products='{products}' is for providers='{OPENVINO}', and providers are "
            f"{shown(providers)}: pass both, or leave products out"
        )


def refusal(precision: Precision, backend: Backend | None) -> str | None:
    """Return why a backend cannot run scorers of this precision, and what to do; None: it can."""
    able = ARITHMETIC[precision].backends
    if backend in able or (backend is None and precision not in INTEGER):
        return None
    if backend == "openvino":
        # 2026.4 gives logits of shape 0 x 0 x 2 of integer products with a scale a token.
        broken = "answers nothing of" if precision in INTEGER else "has no products for"
        return (
            f"OpenVINO {broken} {precision} graphs; leave providers= out, or run murank export "
            "with --dtype fp32 or w8"
        )
    if able == ("cpu",):  # GPUs' providers lack the products, which would go to and fro
        return f"{precision} runs on CPUs only; run murank export with --dtype fp16 for GPUs"
    if backend == "cpu":
        return (
            f"{precision} does not run on CPUs; pass providers='cuda' or providers='{PLANS}' on a "
            "machine with a GPU, or run murank export with --dtype fp32 or int8"
        )
    return (
        f"the products of {precision} are TensorRT's; run murank build and pass "
        f"providers='{PLANS}', or run murank export with --dtype fp16"
    )


def load_on_one(
    providers: Providers,
    precision: Precision,
    folder: Path,
    load: Callable[[Providers], Loaded],
    *,
    has_plans: bool,
) -> tuple[Loaded, str | None]:
    """Load all graphs of an engine on one backend.

    Values go from graph to graph, so that under "auto" a GPU on which one of them cannot be loaded
    is given up for all, with a warning in the log.

    Parameters
    ----------
    providers
        What was asked for.
    precision
        Of the graphs: an encoder alone counts as fp32.
    folder
        The engine's.
    load
        Loads every graph with the providers that it is given.
    has_plans
        Whether plans were built of this engine, for whatever target.

    Returns
    -------
    tuple
        What `load` returned; and why a GPU that seems to be here is not used, None if it is, or
        was not asked for.

    Raises
    ------
    InputError
        The backend cannot run this precision, or the graphs do not fit the manifest.
    MachineError
        None of the providers can be used here.
    """
    check_form(providers)
    if providers != "auto":
        _check(providers, precision, folder)
        return load(providers), None
    choice = _choice(precision, folder, has_plans)
    loaded, used, failed = _first_that_loads(choice.attempts, load)
    why = choice.why_not or failed
    if why is not None:
        warn(f"'auto' runs all graphs of {folder} with {used!r}: {why}")
    return loaded, why


def _first_that_loads(
    attempts: Sequence[str], load: Callable[[Providers], Loaded]
) -> tuple[Loaded, str, str | None]:
    """Return what was loaded, with which providers, and why not with those before."""
    first, *others = attempts
    if not others:
        return load(first), first, None
    try:
        return load(first), first, None
    except (MachineError, InputError) as error:
        if isinstance(error, InputError) and first != PLANS:
            raise  # the graphs themselves are at fault; plans may be those of another engine
        why = str(error)  # not the error: its traceback would keep what was loaded in memory
    loaded, used, _ = _first_that_loads(others, load)
    return loaded, used, why


@dataclass(frozen=True)
class _Choice:
    """What "auto" is on this machine."""

    attempts: Sequence[str]  # what a session is asked for, in turn
    why_not: str | None  # the usual backend is none of them


def _choice(precision: Precision, folder: Path, has_plans: bool) -> _Choice:
    able = ARITHMETIC[precision].backends
    has_cuda = _has_cuda()
    # A home folder may be shared by machines: plans alone say nothing of this one.
    has_plans = has_plans and has_driver()
    # What both run without anything having been built is what one has a GPU for; plans next.
    fastest: Sequence[Backend] = ("cuda", "plans", "cpu")
    order = fastest if set(fastest) <= set(able) else able
    here = {"cpu": True, "cuda": has_cuda, "plans": has_plans, "openvino": False}  # by name only
    usable = [backend for backend in order if here[backend]]
    if not usable:
        raise MachineError(f"{folder}: {refusal(precision, 'cpu')}")
    if "cpu" in usable:
        _check_products(precision, folder)
    why_not = None
    if order[0] == "plans" and not has_plans and has_cuda:
        why_not = refusal(precision, "cuda")
    return _Choice([_AUTO[backend] for backend in usable], why_not)


def _check(providers: Providers, precision: Precision, folder: Path) -> None:
    backend = backend_of(providers)
    why_not = refusal(precision, backend)
    if why_not is not None:
        raise InputError(f"{folder}: {why_not}")
    if backend == "cpu":
        _check_products(precision, folder)


def _check_products(precision: Precision, folder: Path) -> None:
    if precision not in INTEGER or multiplies_exactly():
        return
    if not products_are_exact():
        raise MachineError(
            f"{folder} has int8 weights, and this CPU lacks VNNI: sums of its products saturate "
            "unseen with this onnxruntime; install a newer one, or run murank "
            "export with --dtype fp32"
        )
    warn(
        f"{folder} is {precision} and this CPU lacks VNNI: its products are exact, of uint8 "
        f"weights; a layer takes {_WITHOUT_VNNI[precision]} times as long as one in fp32"
    )


def _has_cuda() -> bool:
    """Whether this onnxruntime has CUDA's provider, which may not work."""
    try:
        return CUDA in onnxruntime().get_available_providers()
    except MachineError:  # plans do without it; what does not will say so
        return False
