"""`murank bench compare`: whether a second report is slower than a first."""

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from murank._exceptions import EXIT_OK, EXIT_UNDECIDED, RegressionError
from murank.bench.ratios import Ratio
from murank.bench.report_comparison import Comparison, compare
from murank.bench.report_files import load_report
from murank.cli.output import say, say_error, say_json
from murank.cli.parser import Parser

_THRESHOLD = 1.10


def parser() -> Parser:
    """Return the parser of `murank bench compare`."""
    result = Parser(
        prog="murank bench compare",
        description="Ratios of two reports, second / first, with 95 % bootstrap intervals where "
        "latencies were kept. Exit code 5 if the median, or what the scenario is judged by (p90 of "
        "SingleStream, p99 of MultiStream and Server, Offline's throughput), is slower beyond the "
        "threshold, even at the near end of its interval, if a Server run became invalid, or if "
        "fewer candidates are seen; 2 if there are too few samples to tell.",
    )
    result.add_argument("first", metavar="A.json", type=Path)
    result.add_argument("second", metavar="B.json", type=Path)
    result.add_argument(
        "--threshold", type=float, default=_THRESHOLD, metavar="X",
        help=f"ratio beyond which it is a regression ({_THRESHOLD:g})",
    )  # fmt: skip
    result.add_argument(
        "--force", action="store_true", help="compare though they measured different loads"
    )
    result.add_argument("--json", action="store_true", help="print JSON")
    return result


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    comparison = compare(
        load_report(args.first), load_report(args.second),
        threshold=args.threshold, force=args.force,
    )  # fmt: skip
    if args.json:
        say_json(asdict(comparison))
    else:
        say(*_lines(comparison))
    if comparison.verdict == "regression":
        raise RegressionError(
            f"{args.second} is slower than {args.first}, beyond the threshold of "
            f"{comparison.threshold:g}: {'; '.join(comparison.slower)}"
        )
    if comparison.verdict == "undecided":
        say_error(
            f"undecided: {args.first} and {args.second} hold too few samples; run both for longer "
            "(--duration)"
        )
        return EXIT_UNDECIDED
    return EXIT_OK


def _lines(comparison: Comparison) -> Iterator[str]:
    width = max(len(one.name) for one in comparison.ratios)
    yield f"{'':<{width}}{'first':>12}{'second':>12}{'ratio':>8}  95 % interval"
    for one in comparison.ratios:
        yield f"{one.name:<{width}}{one.before:>12.4g}{one.after:>12.4g}{_ratio(one)}"
    for warning in comparison.warnings:
        yield f"note: {warning}"
    yield f"verdict: {comparison.verdict} (threshold {comparison.threshold:g})"


def _ratio(one: Ratio) -> str:
    if one.ratio is None:
        return f"{'-':>8}"
    spread = "" if one.low is None else f"  {one.low:.3f} to {one.high:.3f}"
    return f"{one.ratio:>8.3f}{spread}"
