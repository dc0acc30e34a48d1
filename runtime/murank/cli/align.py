"""`murank align`: camera alignment learnt from a gallery, to a file."""

import argparse
from pathlib import Path

import numpy as np

from murank._exceptions import InputError, UsageError
from murank.cli.align_report import Learnt, as_json, report_lines
from murank.cli.alignment_options import directions
from murank.cli.engine_options import (
    CACHE_NEEDS,
    RUNNING,
    add_order,
    add_rare_running_options,
    add_running_options,
    opened,
)
from murank.cli.output import say, say_json
from murank.cli.parser import Parser, check_needs, positive, rare_group
from murank.cli.progress import ProgressLine
from murank.cli.protocol_options import add_protocol, protocol_of
from murank.cli.ranked_source import read_features
from murank.cli.reading_options import check_reading
from murank.jobs import LazyEngine
from murank.jobs.judging import Judged, judge_pairs
from murank.rerank.alignment import Alignment, Fitted, aligned_by, fit_gallery, save_alignment
from murank.rerank.features import FeatureSet, check_file
from murank.rerank.methods import distance_blocks
from murank.rerank.pipeline import Settings, StageClock, rerank
from murank.rerank.verdicts import check_asked_rule

_NEEDS = {
    "engine": ("verify_pairs",),
    **dict.fromkeys(("verify_pairs", "image_root", *RUNNING), ("engine",)),
    **CACHE_NEEDS,
    "overwrite": ("output",),
}


def parser() -> Parser:
    """Return the parser of this verb."""
    result = Parser(
        prog="murank align",
        description="Learn what each camera adds to its images, from the features and camids of "
        "the gallery, without labels. `--alignment A.npz` of score, rerank, evaluate and search "
        "uses it. With --engine, the MLLM is asked about the pairs that decide most. Without -o "
        "nothing is written.",
    )
    result.add_argument(
        "source", metavar="JOB|F.npz", type=Path,
        help="a folder of murank score, or features, queries first",
    )  # fmt: skip
    result.add_argument("--num-query", type=positive, metavar="N", help="leading rows = queries")
    result.add_argument(
        "--align-cameras", choices=("pairs", "mean"), default="pairs",
        help="pairs (default): means of cameras, and directions in which one person differs "
        "between them; mean: the former",
    )  # fmt: skip
    result.add_argument(
        "--align-dims", type=directions, metavar="N|all",
        help="directions kept (with pairs a quarter, at least 128)",
    )  # fmt: skip
    group = result.add_argument_group("asking an MLLM about the pairs")
    group.add_argument("--engine", metavar="DIR", help="its MLLM is asked")
    group.add_argument(
        "--verify-pairs", type=positive, metavar="N",
        help="how many: those with the largest part in the variance between cameras; each then "
        "counts by (1 - mu)^2",
    )  # fmt: skip
    group.add_argument(
        "--image-root", type=Path, metavar="DIR",
        help="where paths in the features start (a job folder says it; F.npz: the current folder)",
    )  # fmt: skip
    add_running_options(group)
    add_protocol(result)
    group = result.add_argument_group("output")
    group.add_argument("-o", "--output", type=Path, metavar="A.npz", help="where it is written")
    group.add_argument("--overwrite", action="store_true", help="replace A.npz")
    group.add_argument("--json", action="store_true", help="print JSON, no table")
    group.add_argument("--quiet", action="store_true", help="no progress on stderr")
    group = rare_group(result)
    add_order(group)
    add_rare_running_options(group)
    return result


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    asked = _checked(args)
    protocol = protocol_of(args)
    job, features = read_features(args.source, args.num_query)
    file, root = (args.source, Path()) if job is None else (job.features, job.image_root)
    check_asked_rule(features.labels, protocol, args.source)
    gallery = features.gallery
    asked.check(dim=int(gallery.features.shape[1]), camids=gallery.camids)
    engine = None if args.engine is None else opened(args, ["scorer"])
    judged = None
    distance_blocks("none", features)  # names the row that cannot be used
    with ProgressLine(quiet=args.quiet) as line:
        fitted = fit_gallery(features, asked, progress=line.part("align"))
        unasked = fitted
        if engine is not None:
            judged = _judged(args, features, unasked, engine, args.image_root or root, line)
            fitted = fit_gallery(
                features, asked, pairs=unasked.cameras.pairs,
                weights=judged.weighed(unasked.cameras.weights),
            )  # fmt: skip
        summary = None
        if features.labels is not None:
            aligned = aligned_by(fitted, features)
            settings = Settings("none", {}, protocol, alignment=asked)
            summary = rerank(
                features, aligned, None, settings, clock=StageClock(), progress=line.part
            ).summary
    if args.output is not None:
        save_alignment(args.output, fitted.cameras, overwrite=args.overwrite)
    learnt = Learnt(file, gallery, unasked, fitted, judged, summary, args.output)
    if args.json:
        say_json(as_json(learnt))
    else:
        say(*report_lines(learnt))
    return 0


def _checked(args: argparse.Namespace) -> Alignment:
    """Return what to fit; raise what can be known before anything is read."""
    check_needs(args, _NEEDS)
    check_reading(args, reads=args.engine is not None, by="--engine")
    if args.verify_pairs is not None and args.align_cameras == "mean":
        raise UsageError("--verify-pairs has no effect with --align-cameras mean")
    if args.output is not None:
        check_file(args.output, overwrite=args.overwrite)
    return Alignment(args.align_cameras, args.align_dims or "auto")


def _judged(
    args: argparse.Namespace, features: FeatureSet, fitted: Fitted, engine: LazyEngine, root: Path,
    line: ProgressLine,
) -> Judged:  # fmt: skip
    if fitted.level != "pairs":
        raise InputError(f"--verify-pairs finds no pair to ask about: {fitted.note}")
    gallery = features.gallery
    camids = np.asarray(gallery.camids)
    return judge_pairs(
        fitted.cameras.pairs, fitted.cameras.pair_shares(gallery.features, camids),
        [root / str(path) for path in gallery.paths], engine, count=args.verify_pairs,
        order=args.order or "given", strict=args.strict, report=line,
    )  # fmt: skip
