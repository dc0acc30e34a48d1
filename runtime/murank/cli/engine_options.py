"""Options of the engine: what it is asked for, and how it runs."""

import argparse
from pathlib import Path
from typing import Any

from murank.backends.providers import PROVIDER_NAMES
from murank.cli.parser import Parser, add_cache_options, not_negative, positive, threads
from murank.cli.reading_options import add_reading_options, reading_of
from murank.cli.sources import GALLERY_MU_USERS, engine_scores, engine_scores_gallery
from murank.engine.engine import ORDERS, Part
from murank.folder.integrity import check_pinned
from murank.jobs import LazyEngine

_TOP_K_CANDIDATES = 10
_AS_CANDIDATES = 0  # --gallery-mu without a number
_PASSED_ON = (
    "providers", "threads", "vision_cache_mb", "cache_dir", "cache_max_mb", "cache_max_days"
)  # fmt: skip


def add_engine_options(result: Parser) -> None:
    """Add the options that `engine_of` reads, and those about mu from the engine."""
    group = result.add_argument_group("engine")
    group.add_argument(
        "--engine", metavar="DIR", help="embeds the images, and gives mu of the candidates"
    )
    group.add_argument(
        "--top-k-candidates", type=positive, metavar="K",
        help=f"gallery images a query whose mu is asked for ({_TOP_K_CANDIDATES})",
    )  # fmt: skip
    group.add_argument(
        "--gallery-mu", nargs="?", type=positive, const=_AS_CANDIDATES, metavar="M",
        help="also score each gallery image with the M nearest others (M left out: as K); off-line "
        f"work: M x gallery size pairs more [{GALLERY_MU_USERS}]",
    )  # fmt: skip
    group.add_argument("--no-mu", action="store_true", help="embed the images only")
    add_running_options(group)


def add_running_options(group: argparse._ArgumentGroup) -> None:
    """Add how pairs are asked about, and how the engine runs; `opened` reads most of them."""
    group.add_argument(
        "--order",
        choices=ORDERS,
        help="of the two images in the prompt (given); both: asked twice, the mean, 3 x the cost",
    )
    group.add_argument(
        "--strict", action="store_true", help="stop at an image that cannot be used, skip none"
    )
    group.add_argument(
        "--providers", type=_providers, metavar="LIST",
        help=f"{', '.join(PROVIDER_NAMES)}, or names of onnxruntime, with commas (auto)",
    )  # fmt: skip
    group.add_argument("--threads", type=threads, metavar="N", help="of one operator")
    group.add_argument(
        "--vision-cache-mb", type=not_negative, metavar="MB", help="vision tokens kept (256)"
    )
    add_cache_options(group)
    add_reading_options(group)
    group.add_argument("--engine-sha256", metavar="HEX", help="what the engine's must be")


def candidates_of_query(args: argparse.Namespace) -> int | None:
    """Return how many gallery images a query is scored with; None if the engine is not asked."""
    return _top_k(args) if engine_scores(args) else None


def candidates_of_gallery_image(args: argparse.Namespace) -> int | None:
    """Return the same of a gallery image and others of the gallery."""
    return (args.gallery_mu or _top_k(args)) if engine_scores_gallery(args) else None


def _top_k(args: argparse.Namespace) -> int:
    return args.top_k_candidates or _TOP_K_CANDIDATES


def engine_of(args: argparse.Namespace) -> LazyEngine:
    """Return the engine, not loaded; InputError if it lacks a part that is needed."""
    parts: list[Part] = ["encoder"] if args.features is None else []
    if engine_scores(args) or engine_scores_gallery(args):
        parts.append("scorer")
    return opened(args, parts)


def opened(args: argparse.Namespace, parts: list[Part]) -> LazyEngine:
    """Return the engine, not loaded; InputError if it lacks one of the parts."""
    options: dict[str, Any] = {
        key: value for key in _PASSED_ON if (value := getattr(args, key)) is not None
    }
    options |= reading_of(args)
    engine = LazyEngine(Path(args.engine), parts, options)
    check_pinned(args.engine, engine.sha256, args.engine_sha256)
    engine.check()
    return engine


def _providers(text: str) -> str | list[str]:
    if text in PROVIDER_NAMES:
        return text
    names = [name.strip() for name in text.split(",")]
    if not all(name.endswith("ExecutionProvider") for name in names):
        raise argparse.ArgumentTypeError(
            f"must be {', '.join(PROVIDER_NAMES)}, or a list like "
            "CUDAExecutionProvider,CPUExecutionProvider"
        )
    return names
