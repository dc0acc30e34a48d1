"""`murank search`: the images of a gallery that may show the person of a query image."""

import argparse
import contextlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from murank._exceptions import InputError, UsageError
from murank.cli.alignment_options import add_alignment, alignment_of, check_for_engine
from murank.cli.engine_options import (
    CACHE_NEEDS,
    add_rare_running_options,
    add_running_options,
    running_of,
)
from murank.cli.method_options import ALPHA, OPTIONS, add_method_options, add_option
from murank.cli.mu_defaults import defaults_of, is_of, note_of
from murank.cli.output import say, say_json
from murank.cli.parser import (
    Parser,
    check_needs,
    given_flags,
    positive,
    rare_group,
)
from murank.cli.progress import ProgressLine
from murank.cli.query_cameras import add_camid, query_cameras
from murank.cli.search_gallery import GalleryImages, list_gallery
from murank.cli.search_report import as_json, check_sheet, table_of, write_search_sheet
from murank.datasets.shared_files import note_of_shared
from murank.engine.engine import Engine, Part
from murank.files.parquet import is_parquet
from murank.files.text_table import SUFFIXES
from murank.files.urls import refuse_url
from murank.folder.integrity import read_pinned
from murank.folder.manifest import MuDefaults
from murank.rerank.alignment import Alignment
from murank.rerank.methods import METHODS
from murank.search import (
    DEFAULT_CANDIDATES,
    SEARCH_METHODS,
    Searcher,
    SearchResult,
    SearchSettings,
    check_parameters,
)

_PRACTICE = 16  # gallery images looked at before a deadline is to be kept
_OPTIONS = [
    option
    for option in OPTIONS
    if option.keyword == "alpha"
    or any(option.keyword in METHODS[method].parameters for method in SEARCH_METHODS)
]
_ABOUT_MU = ("candidates", "deadline_ms", "settle_top", "warm", "vision_cache_mb", "cache_dir")


def parser() -> Parser:
    """Return the parser of this verb."""
    result = Parser(
        prog="murank search",
        usage="murank search ENGINE --gallery DIR|LIST|JOB|F --query IMG [IMG ...] [options]",
        description="Rank a gallery for one query image after the other: the encoder ranks all of "
        "it, the MLLM looks at the nearest candidates as far as the deadline allows, and mu is "
        "fused in. The results are candidate matches; a person decides.",
    )
    result.add_argument("engine", metavar="ENGINE", type=Path, help="folder of an engine")
    result.add_argument(
        "--gallery", required=True, metavar="DIR|LIST|JOB|F",
        help="images (embedded first), or a folder of murank score or its features.npz: their "
        "gallery rows",
    )  # fmt: skip
    result.add_argument(
        "--query", required=True, nargs="+", type=Path, metavar="IMG", help="query images"
    )
    _add_mu(result)
    group = result.add_argument_group("method")
    group.add_argument(
        "--method", choices=SEARCH_METHODS, default="k-reciprocal", metavar="NAME",
        help=f"{', '.join(SEARCH_METHODS)} (k-reciprocal)",
    )  # fmt: skip
    add_camid(group)
    add_alignment(result)
    group = result.add_argument_group("output")
    group.add_argument("--top-k", type=positive, default=10, metavar="N", help="shown a query (10)")
    group.add_argument("--sheet", type=Path, metavar="FILE", help="picture of the matches, PNG")
    group.add_argument("--overwrite", action="store_true", help="replace FILE")
    group.add_argument("--json", action="store_true", help="print JSON, no table")
    group.add_argument("--quiet", action="store_true", help="no progress on stderr")
    add_running_options(result.add_argument_group("engine"))
    add_method_options(result, SEARCH_METHODS)
    group = rare_group(result)
    group.add_argument(
        "--image-root", type=Path, metavar="DIR",
        help="where paths in the features start (a job folder says it; NPZ: the current folder)",
    )  # fmt: skip
    group.add_argument(
        "--shortlist", type=positive, metavar="M",
        help="nearest gallery images among which neighbours are looked for (500) [ca-jaccard]",
    )  # fmt: skip
    add_rare_running_options(group)
    return result


def _add_mu(result: Parser) -> None:
    group = result.add_argument_group("mu")
    group.add_argument(
        "--candidates", type=positive, metavar="K",
        help=f"gallery images that the MLLM is asked about ({DEFAULT_CANDIDATES})",
    )  # fmt: skip
    group.add_argument("--no-mu", action="store_true", help="leave the MLLM out")
    add_option(group, ALPHA)
    group.add_argument(
        "--deadline-ms", type=_milliseconds, metavar="X",
        help="a query's time: as many candidates are asked about, best first, as it allows",
    )  # fmt: skip
    group.add_argument(
        "--settle-top", type=positive, metavar="R",
        help="stop asking once the first R can no longer change [simple]",
    )  # fmt: skip
    group.add_argument(
        "--warm", action="store_true", help="vision tokens of the gallery before the first query"
    )


@dataclass(frozen=True)
class Search:
    """What was asked for, checked as far as it can be without loading the engine."""

    sha256: str  # of the engine
    gallery: GalleryImages
    alignment: Alignment
    parameters: dict[str, Any]
    parts: list[Part]
    candidates: int | None  # of a query; None: the searcher's default
    taken: MuDefaults | None  # the engine's own, where nothing was named


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    search = _checked(args)
    engine = Engine.from_pretrained(
        args.engine, parts=search.parts, sha256=search.sha256, **running_of(args)
    )
    given = search.alignment.given
    with ProgressLine(quiet=args.quiet) as line:
        for note in (*search.gallery.notes, *note_of_shared(args.query, search.gallery.paths)):
            line.note(note)
        if search.taken is not None:
            void = list(given_flags(args, (*_ABOUT_MU, *CACHE_NEEDS)).values())
            line.note(note_of(search.taken, args.method, "--alpha or --candidates", void))
        gallery = search.gallery.embedded(engine, strict=args.strict, line=line)
        candidates = args.candidates
        if candidates is None and search.candidates is not None:
            candidates = min(search.candidates, len(gallery.paths))
        searcher = Searcher(
            engine, gallery.features, gallery.paths, candidates=candidates,
            method=args.method, parameters=search.parameters, settle_top=args.settle_top,
            camids=gallery.camids, align_cameras=search.alignment.level,
            align_dims=search.alignment.dims, shortlist=args.shortlist,
            alignment=None if given is None else given.cameras, progress=line.part("neighbours"),
        )  # fmt: skip
        if searcher.alignment.level != "off":
            line.say(
                f"features are aligned to the gallery's cameras ({searcher.alignment.level}): "
                "distances are of aligned ones; --align-cameras off leaves them as they are"
            )
        if searcher.alignment.note is not None:
            line.say(f"note: {searcher.alignment.note}")
        camids = query_cameras(args, searcher, gallery, line)
        _warm(args, searcher, line)
    # A sheet also shows the encoder's first ranks, wherever they are now.
    top_k = args.top_k if args.sheet is None else len(gallery.paths)
    results: list[SearchResult] = []
    for query, camid in zip(args.query, camids, strict=True):
        result = searcher.search(query, camid=camid, top_k=top_k, deadline_ms=args.deadline_ms)
        results.append(result)
        if not args.json:
            say(*table_of(query, results[-1], gallery.paths, top_k=args.top_k))
    if args.json:
        say_json(as_json(args, searcher, gallery, camids, results))
    elif gallery.skipped:
        say(f"{len(gallery.skipped)} gallery images were left out: they cannot be used")
    if args.sheet is not None:
        write_search_sheet(args, gallery.paths, results)
    return 0


def _warm(args: argparse.Namespace, searcher: Searcher, line: ProgressLine) -> None:
    if args.warm:
        searcher.warm(progress=line.part("warm"))
    elif args.deadline_ms is not None:  # how long a batch takes must be known for it to be kept
        searcher.warm(range(min(_PRACTICE, searcher.num_gallery)))


def _checked(args: argparse.Namespace) -> Search:
    """Raise what can be known before the engine is loaded."""
    check_sheet(args)
    parameters = _parameters(args)
    for query in args.query:
        _check_query(query)
    manifest, sha256 = read_pinned(args.engine, args.sha256)
    gallery = list_gallery(args.gallery, args.image_root, manifest, args.engine)
    asks = not args.no_mu and METHODS[args.method].takes_mu
    has_scorer = asks and manifest.scorer is not None
    candidates, taken = args.candidates, None
    if has_scorer and candidates is None and "alpha" not in parameters:
        taken = defaults_of(manifest.mu_defaults, args.method)
        if taken is not None and not is_of(taken, args.align_cameras):
            taken = None
    if taken is not None and taken.alpha:
        parameters["alpha"], candidates = taken.alpha, min(taken.candidates, len(gallery.paths))
    has_scorer = has_scorer and (taken is None or taken.alpha > 0)
    settings = SearchSettings(
        args.method, candidates, parameters, args.settle_top, len(gallery.paths), has_scorer,
        gallery.camids is not None, args.shortlist,
    )  # fmt: skip
    check_parameters(settings)
    alignment = alignment_of(args)
    check_for_engine(alignment, args.engine, manifest, gallery.camids)
    if args.camid is not None and gallery.camids is None:
        raise UsageError("--camid needs a gallery whose cameras are known: a list with camids")
    parts: list[Part] = ["encoder", "scorer"] if has_scorer else ["encoder"]
    return Search(sha256, gallery, alignment, parameters, parts, candidates, taken)


def _check_query(query: Path) -> None:
    """Raise InputError unless it is a file that may be an image."""
    refuse_url(query)
    if query.is_dir() or query.suffix.lower() in SUFFIXES or is_parquet(query):
        kind = "a folder" if query.is_dir() else "a list"
        raise InputError(
            f"--query {query} is {kind}, and search takes images: name them, or rank all of it by "
            "murank score --query"
        )
    if not query.is_file():
        raise InputError(f"--query {query}: no such file")


def _parameters(args: argparse.Namespace) -> dict[str, Any]:
    """Return the parameters that were given; UsageError on an option without effect."""
    method = METHODS[args.method]
    why_not = "--no-mu" if args.no_mu else f"--method {args.method}"
    asks = not args.no_mu and method.takes_mu
    given = {
        o.keyword: getattr(args, o.dest) for o in _OPTIONS if getattr(args, o.dest) is not None
    }
    for option in _OPTIONS:
        is_alpha = option.keyword == "alpha"
        used = asks if is_alpha else option.keyword in method.parameters
        if option.keyword in given and not used:
            without = why_not if is_alpha else f"--method {args.method}"
            raise UsageError(f"{option.flag} has no effect with {without}")
    check_needs(args, CACHE_NEEDS)
    if not asks:
        for flag in given_flags(args, _ABOUT_MU).values():
            raise UsageError(f"{flag} has no effect with {why_not}")
    return given


def _milliseconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) < math.inf:
            return value
    raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
