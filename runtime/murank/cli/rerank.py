"""`murank rerank`: images or features in, ranked candidate matches out."""

import argparse

from murank._exceptions import UsageError
from murank.cli.alignment_options import add_alignment, alignment_of
from murank.cli.engine_options import add_engine_options
from murank.cli.inputs import open_inputs
from murank.cli.method_options import add_method_options, given_parameters
from murank.cli.mu_defaults import take_defaults
from murank.cli.output import notes, say, say_json
from murank.cli.parser import Parser, add_protocol, positive, protocol_of
from murank.cli.progress import ProgressLine
from murank.cli.rerank_report import report
from murank.cli.rerank_sheet import write_sheet_of
from murank.cli.sources import add_source_options, check_sources, fuses_gallery_mu, fuses_mu
from murank.rerank import pipeline as _pipeline
from murank.rerank.methods import METHODS
from murank.rerank.ranking import RANKING_FILES


def parser() -> Parser:
    """Return the parser of this verb."""
    result = Parser(
        prog="murank rerank",
        description="Re-rank the gallery for every query. With labels (pids, camids) the metrics "
        "before and after are shown. Without -o nothing is written. With -o, features.npz, mu.npz "
        "and mu_gallery.npz, where they were made, stay beside the ranking, and a run that was "
        "killed goes on where it stopped.",
    )
    result.add_argument("--method", required=True, choices=tuple(METHODS))
    result.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="of the re-ranking"
    )
    add_source_options(result)
    add_engine_options(result)
    add_method_options(result)
    add_alignment(result)
    add_protocol(result)
    _add_output(result)
    return result


def _add_output(result: Parser) -> None:
    group = result.add_argument_group("output")
    group.add_argument("-o", "--output", metavar="DIR", help="folder for ranking and summary.json")
    group.add_argument("--format", choices=tuple(RANKING_FILES), help="of the ranking (npz)")
    group.add_argument("--top-k", type=positive, default=50, metavar="N", help="kept a query (50)")
    group.add_argument("--sheet", metavar="FILE", help="picture of queries and candidate matches")
    group.add_argument("--overwrite", action="store_true", help="replace the files of an old run")
    group.add_argument("--json", action="store_true", help="print the summary as JSON, no table")
    group.add_argument("--quiet", action="store_true", help="no progress on stderr")


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    check_sources(args)
    if args.output is None and args.format is not None:
        raise UsageError("--format needs -o")
    if args.output is None and args.sheet is None and args.overwrite:
        raise UsageError("--overwrite needs -o or --sheet")
    taken = take_defaults(args)
    settings = _pipeline.Settings(
        method=args.method,
        parameters=given_parameters(args, with_mu=fuses_mu(args) or fuses_gallery_mu(args)),
        protocol=protocol_of(args),
        top_k=args.top_k,
        device=args.device,
        alignment=alignment_of(args),
    )
    clock, line = _pipeline.StageClock(), ProgressLine(quiet=args.quiet)
    if taken is not None:
        line.note(taken)
    with line, open_inputs(args, settings, clock=clock, line=line) as inputs:
        outcome = _pipeline.rerank(
            inputs.features, inputs.aligned, inputs.mu, settings, gallery_mu=inputs.gallery_mu,
            clock=clock, progress=line.part, keep_before=args.sheet is not None,
        )  # fmt: skip
        summary = {**outcome.summary, **inputs.summary}
        if args.output is not None:
            inputs.write(outcome.ranking, {**summary, "notes": [*summary["notes"], *notes()]})
        write_sheet_of(args, outcome, inputs.mu)
    if args.json:
        say_json(summary)
    else:
        say(*report(args, summary))
    return 0
