"""Options of an engine that is asked about pairs: how, and how it runs."""

import argparse
from pathlib import Path
from typing import Any, get_args

from murank._exceptions import InputError
from murank.backends.choose import check_products
from murank.backends.protocol import Products
from murank.backends.providers import PROVIDER_NAMES, openvino_device
from murank.cli.parser import add_cache_limits, not_negative, threads
from murank.cli.reading_options import add_reading_options, reading_of
from murank.engine.engine import Part
from murank.engine.pair_orders import ORDERS
from murank.folder.integrity import check_pinned
from murank.jobs import LazyEngine

CACHE_NEEDS = {"cache_max_mb": ("cache_dir",), "cache_max_days": ("cache_dir",)}
BACKEND = ("providers", "products", "plans", "threads")
RUNNING = ("order", "strict", *BACKEND, "vision_cache_mb", "cache_dir", "sha256")
_KEPT = ("vision_cache_mb", "cache_dir", "cache_max_mb", "cache_max_days")


def add_order(group: argparse._ArgumentGroup) -> None:
    """Add which image of a pair is named first."""
    group.add_argument(
        "--order",
        choices=ORDERS,
        help="of the two images in the prompt (given); both: asked twice, the mean, 3 x the cost",
    )


def add_backend(group: Any, of: str = "") -> None:
    """Add what runs the graphs; `backend_of` reads it."""
    group.add_argument(
        "--providers", type=_providers, metavar="LIST",
        help=f"{of}{', '.join(PROVIDER_NAMES)}, or onnxruntime's names, with commas (auto)",
    )  # fmt: skip
    group.add_argument(
        "--products", choices=get_args(Products),
        help=f"{of}with openvino: what it multiplies in (float32)",
    )  # fmt: skip
    add_plans(group, of)
    group.add_argument("--threads", type=threads, metavar="N", help=f"{of}of one operator")


def add_plans(group: Any, of: str = "") -> None:
    """Add where TensorRT plans are kept."""
    group.add_argument(
        "--plans", type=Path, metavar="DIR",
        help=f"{of}where TensorRT plans, and what OpenVINO compiled, are kept (your cache folder)",
    )  # fmt: skip


def backend_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return what was given, as keyword arguments of `Engine.from_pretrained`.

    Raises InputError if they do not fit together.
    """
    given = {key: value for key in BACKEND if (value := getattr(args, key)) is not None}
    check_products(given.get("providers", "auto"), given.get("products", "float32"))
    return given


def add_running_options(group: argparse._ArgumentGroup) -> None:
    """Add how the engine runs; `running_of` reads it, and `add_rare_running_options`."""
    add_backend(group)
    group.add_argument("--cache-dir", metavar="DIR", help="keep vision tokens there across runs")
    group.add_argument("--sha256", metavar="HEX", help="what the engine's must be")


def add_rare_running_options(group: argparse._ArgumentGroup) -> None:
    """Add what few need to say of it."""
    group.add_argument(
        "--strict", action="store_true", help="stop at an image that cannot be used, skip none"
    )
    group.add_argument(
        "--vision-cache-mb", type=not_negative, metavar="MB", help="vision tokens in memory (256)"
    )
    add_cache_limits(group)
    add_reading_options(group)


def running_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return what was given, as keyword arguments of `Engine.from_pretrained`."""
    kept = {key: value for key in _KEPT if (value := getattr(args, key)) is not None}
    return {**backend_of(args), **kept, **reading_of(args)}


def opened(args: argparse.Namespace, parts: list[Part]) -> LazyEngine:
    """Return the engine, not loaded; InputError if it lacks one of the parts."""
    engine = LazyEngine(Path(args.engine), parts, running_of(args))
    check_pinned(args.engine, engine.sha256, args.sha256)
    engine.check()
    return engine


def _providers(text: str) -> str | list[str]:
    try:
        if text in PROVIDER_NAMES or openvino_device(text) is not None:
            return text
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    names = [name.strip() for name in text.split(",")]
    if not all(name.endswith("ExecutionProvider") for name in names):
        raise argparse.ArgumentTypeError(
            f"must be {', '.join(PROVIDER_NAMES)}, or a list like "
            "CUDAExecutionProvider,CPUExecutionProvider"
        )
    return names
