"""`murank rerank`: features and mu in, ranked candidate matches out."""

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from murank._exceptions import UsageError
from murank.cli.alignment_options import add_alignment
from murank.cli.method_options import ALPHA, add_method_options, add_option, given_parameters
from murank.cli.mu_defaults import take_defaults
from murank.cli.neighbours_options import add_neighbours, check_neighbours, neighbours_of
from murank.cli.output import notes, say, say_json
from murank.cli.parser import (
    Parser,
    add_kernels,
    given_flags,
    positive,
    rare_group,
)
from murank.cli.progress import ProgressLine, add_progress, progress_file
from murank.cli.protocol_options import add_protocol, protocol_of
from murank.cli.ranked_source import RankedSource, add_ranked_source, read_ranked
from murank.cli.reading_options import add_reading_options, check_reading
from murank.cli.rerank_page import add_report, check_report, shows_images, write_report_of
from murank.cli.rerank_report import report
from murank.cli.rerank_sheet import check_images, check_sheet, write_sheet_of
from murank.files.atomic import made_folder, readable_errors, sole_writer
from murank.files.parquet import pyarrow
from murank.rerank import pipeline as _pipeline
from murank.rerank.alignment import align
from murank.rerank.methods import METHODS
from murank.rerank.mu import MuDistances
from murank.rerank.parquet_ranking import check_names
from murank.rerank.ranking import RANKING_FILES, Ranking, check_output, write_ranking
from murank.rerank.resume import Memory, is_unfinished, resumable
from murank.rerank.verdicts import check_asked_rule


def parser() -> Parser:
    """Return the parser of this verb."""
    result = Parser(
        prog="murank rerank",
        usage="murank rerank JOB|F.npz --method NAME [-o DIR] [options]",
        description="Re-rank the gallery for every query, by a method and with mu where there is "
        "any; no engine is asked. With labels (pids, camids) the metrics before and after are "
        "shown. Without -o nothing is written.",
    )
    add_ranked_source(result)
    group = result.add_argument_group("method")
    group.add_argument(
        "--method", required=True, choices=tuple(METHODS), metavar="NAME", help=", ".join(METHODS)
    )
    add_option(group, ALPHA)
    add_alignment(result)
    add_protocol(result)
    _add_output(result)
    add_method_options(result)
    group = rare_group(result)
    add_kernels(group, "of the method")
    add_neighbours(group)
    group.add_argument(
        "--image-root", metavar="DIR",
        help="of --sheet and --report: where paths in the features start (of a file: here)",
    )  # fmt: skip
    add_reading_options(group)
    return result


def _add_output(result: Parser) -> None:
    group = result.add_argument_group("output")
    group.add_argument(
        "-o", "--output", metavar="DIR",
        help="folder for ranking and summary.json; may be the job folder",
    )  # fmt: skip
    group.add_argument("--format", choices=tuple(RANKING_FILES), help="of the ranking (npz)")
    group.add_argument("--top-k", type=positive, default=50, metavar="N", help="kept a query (50)")
    group.add_argument("--sheet", metavar="FILE", help="picture of queries and candidate matches")
    add_report(group)
    group.add_argument("--overwrite", action="store_true", help="replace the files of an old run")
    group.add_argument("--json", action="store_true", help="print the summary as JSON, no table")
    group.add_argument("--quiet", action="store_true", help="no progress on stderr")
    add_progress(group)


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    _check_options(args)
    progress = progress_file(args, (args.source, args.output, args.sheet, args.report))
    clock, line = _pipeline.StageClock(), ProgressLine(quiet=args.quiet, file=progress)
    with clock.stage("load"):
        source, settings = _read(args, line)
    if args.sheet is not None:
        check_images(source)
    if shows_images(args):
        check_images(source, "--report")
    if args.format == "parquet":
        check_names(source.features.paths)
    with line, _memory(args, source, settings, line) as memory:
        _pipeline.check_settings(source.features, source.mu, settings, gallery_mu=source.gallery_mu)
        with clock.stage("align"):
            aligned = align(
                source.features, settings.alignment, progress=line.part("align"), memory=memory
            )
        outcome = _pipeline.rerank(
            source.features, aligned, source.mu, settings, gallery_mu=source.gallery_mu,
            clock=clock, progress=line.part, keep_before=_keeps_before(args), memory=memory,
        )  # fmt: skip
        made = outcome.summary
        summary = {**made, **source.summary, "notes": [*made["notes"], *notes()]}
        if args.output is not None:
            _write(args, outcome.ranking, source.mu, summary)
        if args.sheet is not None:
            write_sheet_of(args, outcome, source, settings.protocol)
        if args.report is not None:
            write_report_of(args, outcome, source, summary, settings.protocol)
    if args.json:
        say_json(summary)
    else:
        say(*report(args, source, summary))
    return 0


def _check_options(args: argparse.Namespace) -> None:
    """Raise what can be known before anything is read."""
    method = METHODS[args.method]
    unused = () if method.takes_mu else ("mu", "candidates")
    unused = unused if method.takes_gallery_mu else (*unused, "gallery_mu")
    for flag in given_flags(args, unused).values():
        users = [name for name, one in METHODS.items() if one.takes_gallery_mu]
        used_by = ", ".join(users) if flag == "--gallery-mu" else "all the others"
        raise UsageError(f"--method {args.method} does not use {flag}; used by: {used_by}")
    check_neighbours(args)
    _check_outputs(args)


def _check_outputs(args: argparse.Namespace) -> None:
    """Raise what can be known of the files that are written, and of images that are shown."""
    if args.output is None and args.format is not None:
        raise UsageError("--format needs -o")
    if args.format == "parquet":
        pyarrow()
    if args.overwrite and not given_flags(args, ("output", "sheet", "report")):
        raise UsageError("--overwrite needs -o, --sheet or --report")
    reads = args.sheet is not None or shows_images(args)
    if args.image_root is not None and not reads:
        raise UsageError("--image-root needs --sheet, or --report with pictures")
    check_reading(args, reads=reads, by="--sheet, or --report with pictures")
    check_sheet(args)
    check_report(args)
    for flag, file in (("--sheet", args.sheet), ("--report", args.report)):
        if file and args.output and Path(file).resolve() == Path(args.output).resolve():
            raise UsageError(f"{flag} {file} is the folder of -o, too; name another file")
    _check_place(args)


def _keeps_before(args: argparse.Namespace) -> bool:
    """Whether the ranking by the encoder is needed, and not its metrics alone."""
    return args.sheet is not None or args.report is not None


def _read(args: argparse.Namespace, line: ProgressLine) -> tuple[RankedSource, _pipeline.Settings]:
    """Return what is ranked and how, with what was stored where nothing else was named."""
    method = METHODS[args.method]
    source, alpha, note = take_defaults(
        args,
        read_ranked(args, takes_mu=method.takes_mu, takes_gallery_mu=method.takes_gallery_mu),
    )
    if note is not None:
        line.note(note)
    if method.needs_mu and source.mu is None:
        raise UsageError(
            f"--method {args.method} fuses mu-distances: it needs --mu, or a job folder with mu.npz"
        )
    args.option_alpha = alpha
    with_mu = source.mu is not None or source.gallery_mu is not None
    protocol = protocol_of(args)
    check_asked_rule(source.features.labels, protocol, args.source)
    settings = _pipeline.Settings(
        args.method, given_parameters(args, with_mu=with_mu), protocol, args.top_k,
        args.kernels, source.alignment, neighbours_of(args),
    )  # fmt: skip
    return source, settings


@contextmanager
def _memory(
    args: argparse.Namespace, source: RankedSource, settings: _pipeline.Settings, line: ProgressLine
) -> Iterator[Memory | None]:
    """Yield what work on an output is gone on from; None: nothing is, as on a GPU."""
    if args.output is None:
        yield None
        return

    def fingerprint() -> str:
        return _pipeline.fingerprint(
            source.features, source.mu, settings, gallery_mu=source.gallery_mu,
            keep_before=_keeps_before(args),
        )  # fmt: skip

    with resumable(Path(args.output), fingerprint, line.say) as memory:
        yield memory if settings.device == "cpu" else None


def _check_place(args: argparse.Namespace) -> None:
    """Raise OutputError if the ranking may not be written there."""
    if args.output is None:
        return
    folder = Path(args.output)
    inside = folder.is_dir() and args.source.is_dir() and folder.samefile(args.source)
    check_output(
        folder, overwrite=args.overwrite, beside_others=inside,
        unfinished=is_unfinished(folder),
    )  # fmt: skip


def _write(
    args: argparse.Namespace, ranking: Ranking, mu: MuDistances | None, summary: Mapping[str, Any]
) -> None:
    folder = Path(args.output)
    with readable_errors(folder), made_folder(folder), sole_writer(folder):
        _check_place(args)  # of another that was just ready
        write_ranking(folder, ranking, summary, format=args.format or "npz", mu=mu, overwrite=True)
