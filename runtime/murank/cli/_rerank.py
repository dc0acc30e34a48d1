"""`murank rerank`: features (and mu-distances) in, a ranking of candidate matches out."""

import argparse
import json
from typing import Any

from murank import _pipeline
from murank._exceptions import UsageError
from murank._features import load_features
from murank._methods import METHODS
from murank._metrics import Metrics
from murank._mu import load_mu
from murank._ranking import RANKING_FILES, check_output, write_ranking
from murank.cli._method_options import add_method_options, given_parameters
from murank.cli._parser import Parser, add_protocol, positive, protocol_of
from murank.cli._progress import ProgressLine
from murank.cli._table import gain, table

_COLUMNS = ("mAP", "rank-1", "rank-5", "rank-10")


def parser() -> Parser:
    """Return the parser of this verb."""
    result = Parser(
        prog="murank rerank",
        description="Re-rank the gallery for every query. With labels (pids, camids) the metrics "
        "before and after are shown. Without -o nothing is written.",
    )
    result.add_argument(
        "--features", required=True, metavar="F.npz", help="features, queries first"
    )
    result.add_argument("--method", required=True, choices=tuple(METHODS))
    result.add_argument("--mu", metavar="M.npz", help="mu-distances of the candidates, to fuse")
    result.add_argument("--mu-swapped", metavar="M.npz", help="the same, images in swapped order")
    result.add_argument("--num-query", type=positive, metavar="N", help="leading rows = queries")
    result.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    add_method_options(result)
    add_protocol(result)
    _add_output(result)
    return result


def _add_output(result: Parser) -> None:
    group = result.add_argument_group("output")
    group.add_argument("-o", "--output", metavar="DIR", help="folder for ranking and summary.json")
    group.add_argument("--format", choices=tuple(RANKING_FILES), help="of the ranking (npz)")
    group.add_argument("--top-k", type=positive, default=50, metavar="N", help="kept a query (50)")
    group.add_argument("--overwrite", action="store_true", help="replace the files of an old run")
    group.add_argument("--json", action="store_true", help="print the summary as JSON, no table")
    group.add_argument("--quiet", action="store_true", help="no progress on stderr")


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    _check_usage(args)
    settings = _pipeline.Settings(
        method=args.method,
        parameters=given_parameters(args),
        protocol=protocol_of(args),
        top_k=args.top_k,
        device=args.device,
    )
    if args.output is not None:
        check_output(args.output, overwrite=args.overwrite)
    clock = _pipeline.Clock()
    with clock.stage("load"):
        features = load_features(args.features, args.num_query)
        mu = None if args.mu is None else load_mu(args.mu, args.mu_swapped)
    line = ProgressLine()
    try:
        outcome = _pipeline.rerank(
            features, mu, settings, clock=clock, progress=None if args.quiet else line.part
        )
    finally:
        line.close()
    inputs = {"features": args.features, "mu": args.mu, "mu_swapped": args.mu_swapped}
    summary = {**outcome.summary, "inputs": inputs}
    if args.output is not None:
        write_ranking(
            args.output, outcome.ranking, summary, format=args.format or "npz",
            overwrite=args.overwrite,
        )  # fmt: skip
    print(json.dumps(summary, allow_nan=False) if args.json else _report(args, summary))
    return 0


def _check_usage(args: argparse.Namespace) -> None:
    method = METHODS[args.method]
    if args.mu is None and method.needs_mu:
        raise UsageError(f"--method {args.method} fuses mu-distances: it needs --mu")
    if args.mu is not None and not method.takes_mu:
        raise UsageError(f"--method {args.method} does not use --mu; used by: all the others")
    if args.mu_swapped is not None and args.mu is None:
        raise UsageError("--mu-swapped needs --mu")
    if args.output is None and (args.overwrite or args.format is not None):
        raise UsageError("--overwrite and --format need -o")


def _report(args: argparse.Namespace, summary: dict[str, Any]) -> str:
    counts, metrics = summary["counts"], summary["metrics"]
    head = f"{counts['num_query']} queries, {counts['num_gallery']} gallery images"
    before, after = metrics["before"], metrics["after"]
    if after is None:
        lines = [head, summary["not_evaluated"]]
    else:
        protocol = summary["protocol"]["protocol"]
        lines = [f"{head}, {after['num_valid']} queries evaluated ({protocol})"]
        lines.append(_comparison(args, before, after))
    if args.output is not None:
        lines.append(f"{counts['top_k']} candidate matches a query: {args.output}")
    return "\n".join(lines)


def _comparison(args: argparse.Namespace, before: Metrics, after: Metrics) -> str:
    if args.method == "none":
        return table({"encoder": before}, _COLUMNS)
    name = args.method + (" + mu" if args.mu is not None else "")
    rows = table({"encoder": before, name: after}, _COLUMNS)
    return f"{rows}\n{'gain':<{max(len(name), len('encoder'))}}{gain(before, after, _COLUMNS)}"
