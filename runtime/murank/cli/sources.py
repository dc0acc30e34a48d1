"""Where `murank rerank` takes images, features and mu from, and which options go together."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from murank._exceptions import UsageError
from murank.cli.parser import Parser, positive
from murank.cli.reading_options import check_reading
from murank.datasets import DATASETS, list_images, load_dataset
from murank.jobs import Images
from murank.rerank.methods import METHODS

_BOXES = ("detected", "labeled")

RUNNING_NEEDS: Mapping[str, Sequence[str]] = {
    "order": ("engine",),
    "strict": ("engine",),
    "providers": ("engine",),
    "threads": ("engine",),
    "vision_cache_mb": ("engine",),
    "cache_dir": ("engine",),
    "cache_max_mb": ("cache_dir",),
    "cache_max_days": ("cache_dir",),
    "engine_sha256": ("engine",),
}
# An option and those that it is of no use without.
_NEEDS: Mapping[str, Sequence[str]] = {
    "query": ("gallery", "engine"),
    "gallery": ("query", "engine"),
    "dataset": ("root", "engine"),
    "root": ("dataset",),
    "split": ("dataset",),
    "boxes": ("dataset",),
    "num_query": ("features",),
    "image_root": ("features",),
    "mu_swapped": ("mu",),
    "mu_gallery": ("features",),
    "mu_gallery_swapped": ("mu_gallery",),
    "gallery_mu": ("engine",),
    "no_mu": ("engine",),
    "top_k_candidates": ("engine",),
    **RUNNING_NEEDS,
}
_SCORING = ("order", "vision_cache_mb", "cache_dir")  # of any pairs
GALLERY_MU_USERS = ", ".join(name for name, method in METHODS.items() if method.takes_gallery_mu)


def add_source_options(result: Parser) -> None:
    """Add the options that name what is ranked."""
    group = result.add_argument_group("source: one of these, images need --engine too")
    group.add_argument("--features", metavar="F.npz", help="features, queries first")
    group.add_argument(
        "--query", metavar="DIR|CSV", help="folder of images, or list (path,pid,camid)"
    )
    group.add_argument("--gallery", metavar="DIR|CSV", help="the same, to be ranked")
    group.add_argument("--dataset", choices=tuple(DATASETS), help="query and gallery of a data set")
    group = result.add_argument_group("more about the source")
    group.add_argument("--root", metavar="DIR", help="folder of the data set")
    group.add_argument("--split", type=int, metavar="N", help="which of its random halves (0)")
    group.add_argument("--boxes", choices=_BOXES, help="of cuhk03-np (detected)")
    group.add_argument("--num-query", type=positive, metavar="N", help="leading rows = queries")
    group.add_argument(
        "--image-root", metavar="DIR", help="where paths in F.npz start (the current folder)"
    )
    group.add_argument("--mu", metavar="M.npz", help="mu-distances of the candidates, to fuse")
    group.add_argument("--mu-swapped", metavar="M.npz", help="the same, images in swapped order")
    group.add_argument(
        "--mu-gallery", metavar="M.npz",
        help=f"mu-distances between gallery images, to fuse too [{GALLERY_MU_USERS}]",
    )  # fmt: skip
    group.add_argument(
        "--mu-gallery-swapped", metavar="M.npz", help="the same, images in swapped order"
    )


def images_of(args: argparse.Namespace) -> Images:
    """List the images of --query and --gallery, or of --dataset."""
    if args.dataset is None:
        return Images.of(list_images(args.query), list_images(args.gallery))
    found = load_dataset(args.dataset, args.root, split=args.split or 0, boxes=args.boxes)
    return Images.of(found.query, found.gallery)


def engine_scores(args: argparse.Namespace) -> bool:
    """Whether the engine is asked for mu of the queries' candidates."""
    return args.engine is not None and _why_not_scored(args) is None


def engine_scores_gallery(args: argparse.Namespace) -> bool:
    """Whether the engine is asked for mu between gallery images."""
    return args.gallery_mu is not None


def image_root(args: argparse.Namespace) -> Path:
    """Return where paths in the features file start; those of images that were listed: here."""
    return Path(args.image_root or "")


def method_name(args: argparse.Namespace) -> str:
    """Return the name of what the distances went through."""
    parts = ["mu"] * fuses_mu(args) + ["gallery mu"] * fuses_gallery_mu(args)
    return " + ".join([args.method, *parts])


def fuses_mu(args: argparse.Namespace) -> bool:
    """Whether there is mu of the queries' candidates, from a file or from the engine."""
    return args.mu is not None or engine_scores(args)


def fuses_gallery_mu(args: argparse.Namespace) -> bool:
    """Whether there is mu between gallery images, from a file or from the engine."""
    return args.mu_gallery is not None or engine_scores_gallery(args)


def check_sources(args: argparse.Namespace) -> None:
    """Raise UsageError unless there is one source, and every option has an effect."""
    _check_one_source(args)
    check_needs(args, _NEEDS)
    method = METHODS[args.method]
    if args.mu is not None and not method.takes_mu:
        raise UsageError(f"--method {args.method} does not use --mu; used by: all the others")
    if args.mu is not None and args.no_mu:
        raise UsageError("--mu and --no-mu contradict each other")
    _check_gallery_mu(args)
    if args.engine is not None:
        _check_engine_use(args)
    check_reading(
        args, reads=args.engine is not None or args.sheet is not None, by="--engine or --sheet"
    )
    if args.image_root is not None and args.engine is None and args.sheet is None:
        raise UsageError("--image-root needs --engine or --sheet")
    if method.needs_mu and not fuses_mu(args):
        raise UsageError(
            f"--method {args.method} fuses mu-distances: it needs --mu, or --engine without --no-mu"
        )


def void_flags(args: argparse.Namespace) -> list[str]:
    """Return the flags that were given and have no effect, as the MLLM is not asked after all."""
    names: Sequence[str] = (*_SCORING, "cache_max_mb", "cache_max_days")
    if args.features is not None:  # then nothing else asks the engine
        names = [name for name in RUNNING_NEEDS if name != "engine_sha256"]
    return [_flag(name) for name in names if _given(args, name)]


def check_needs(args: argparse.Namespace, needs: Mapping[str, Sequence[str]]) -> None:
    """Raise UsageError if an option is given without those that it is of no use without."""
    for option, needed in needs.items():
        missing = [other for other in needed if not _given(args, other)]
        if _given(args, option) and missing:
            raise UsageError(f"{_flag(option)} needs {' and '.join(map(_flag, missing))}")


def _check_one_source(args: argparse.Namespace) -> None:
    sources = {
        "--features": args.features is not None,
        "--query and --gallery": args.query is not None or args.gallery is not None,
        "--dataset": args.dataset is not None,
    }
    given = [name for name, there in sources.items() if there]
    if len(given) != 1:
        but = f", but {', '.join(given)} are given" if given else ""
        raise UsageError(
            f"one source is needed: --features, --query and --gallery, or --dataset{but} "
            "(see murank rerank --help)"
        )


def _check_gallery_mu(args: argparse.Namespace) -> None:
    for option in ("gallery_mu", "mu_gallery"):
        if not _given(args, option):
            continue
        if not METHODS[args.method].takes_gallery_mu:
            raise UsageError(
                f"--method {args.method} does not use {_flag(option)}: it looks at no distance "
                f"between gallery images; used by: {GALLERY_MU_USERS}"
            )
        if args.no_mu:
            raise UsageError(f"{_flag(option)} and --no-mu contradict each other")
    if args.gallery_mu is not None and args.mu_gallery is not None:
        raise UsageError("--gallery-mu (asked) and --mu-gallery (read) contradict each other")
    if args.gallery_mu is not None and args.mu is not None and args.features is None:
        # Images that cannot be read are left out: whether M.npz fits would show after the scoring.
        raise UsageError("--mu beside --gallery-mu needs --features, those that M.npz was made for")


def _check_engine_use(args: argparse.Namespace) -> None:
    why_not = _why_not_scored(args)
    if why_not is None:
        return
    if _given(args, "top_k_candidates"):
        raise UsageError(f"--top-k-candidates has no effect with {why_not}")
    if engine_scores_gallery(args):
        return
    if args.features is not None:
        raise UsageError(f"--features and {why_not} leave nothing for --engine to do")
    for option in _SCORING:
        if _given(args, option):
            raise UsageError(f"{_flag(option)} has no effect with {why_not}")


def _why_not_scored(args: argparse.Namespace) -> str | None:
    """Return the option that keeps the engine from scoring pairs."""
    if args.mu is not None:
        return "--mu"
    if args.no_mu:
        return "--no-mu"
    return None if METHODS[args.method].takes_mu else f"--method {args.method}"


def _given(args: argparse.Namespace, option: str) -> bool:
    # --split 0, --vision-cache-mb 0 and a bare --gallery-mu are given, too; a switch off is not.
    value = getattr(args, option)
    return value is not None and value is not False


def _flag(option: str) -> str:
    return "--" + option.replace("_", "-")
