"""`murank bench`: latency and throughput of an engine; `murank bench compare`: of two reports."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from murank._exceptions import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_UNDECIDED,
    InputError,
    InvalidRunError,
    UsageError,
)
from murank.bench.bench_settings import METHODS, SCENARIOS, BenchSettings, Method
from murank.bench.latency_plot import write_latency_plot
from murank.bench.report_files import write_report
from murank.bench.run import EngineOptions, run_bench
from murank.bench.schema import Section, ServerFigures
from murank.cli import bench_compare as _bench_compare
from murank.cli.bench_report import report_lines, server_lines
from murank.cli.engine_options import add_backend, backend_of
from murank.cli.output import notes, say, say_error, say_json
from murank.cli.parser import Parser, positive
from murank.cli.progress import ProgressLine
from murank.cli.reading_options import add_reading_options, check_reading, reading_of
from murank.folder.integrity import read_pinned
from murank.folder.manifest import Manifest
from murank.folder.precision import Precision
from murank.rerank.alignment import ASKED
from murank.rerank.features import check_file
from murank.sheet.canvas import check_drawing

_COMPARE = "compare"
_STDOUT = Path("-")
_COLD_RUNS = 3
_AS_SETTINGS = (
    "scenario", "candidates", "gallery_size", "duration", "uncached_share", "warmup", "qps",
    "latency_bound_ms", "streams", "deadline_ms", "seed", "align_cameras",
)  # fmt: skip


class _BenchParser(Parser):
    """Hands `compare A.json B.json` to a parser of its own."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        if args and args[0] == _COMPARE:
            return _bench_compare.parser().parse_args(args[1:], namespace)
        return super().parse_args(args, namespace)


def parser() -> Parser:
    """Return the parser of this verb."""
    defaults = BenchSettings()
    result = _BenchParser(
        prog="murank bench",
        usage="murank bench ENGINE [options]\n       murank bench compare A.json B.json [options]",
        description="Measure how long an engine takes from image files to a ranked gallery, as "
        "MLPerf's scenarios have it: with the candidates' vision tokens known (cached), with all "
        "caches cleared before each query (uncached), and from a fresh process on (cold). "
        "`murank bench compare --help` tells of comparing two reports. Ctrl-C shows what was "
        "measured so far. Exit code 6 if a Server run is invalid, 2 if it is too short to tell.",
    )
    result.add_argument("engine", metavar="ENGINE", type=Path, help="folder of an engine")
    _add_load(result, defaults)
    _add_engine(result)
    group = result.add_argument_group("output")
    group.add_argument("--json", type=Path, metavar="FILE", help="write the report; -: print it")
    group.add_argument("--plot", type=Path, metavar="F.png", help="draw it; measures --sweep too")
    group.add_argument("--overwrite", action="store_true", help="replace older files")
    group.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return result


def _add_load(result: Parser, defaults: BenchSettings) -> None:
    group = result.add_argument_group("load")
    group.add_argument(
        "--scenario", choices=SCENARIOS, default=defaults.scenario,
        help="one query at a time (SingleStream, the default), fixed-size groups (MultiStream), "
        "Poisson arrivals (Server), all at once (Offline)",
    )  # fmt: skip
    group.add_argument(
        "--candidates", type=int, default=defaults.candidates, metavar="K",
        help=f"that the MLLM sees, a query ({defaults.candidates})",
    )  # fmt: skip
    group.add_argument(
        "--gallery-size", type=int, default=defaults.gallery_size, metavar="G",
        help=f"images ({defaults.gallery_size}); most features are made up",
    )  # fmt: skip
    group.add_argument("--method", choices=METHODS, help="(k-reciprocal)")
    group.add_argument(
        "--align-cameras", choices=ASKED,
        help="align features to the images' cameras (auto: pairs where two have enough images)",
    )  # fmt: skip
    group.add_argument(
        "--duration", type=float, default=defaults.duration, metavar="S",
        help=f"seconds that are measured ({defaults.duration:g})",
    )  # fmt: skip
    group.add_argument(
        "--uncached-share", type=float, default=defaults.uncached_share, metavar="X",
        help=f"of the duration, with caches cleared before each query "
        f"({defaults.uncached_share:g})",
    )  # fmt: skip
    group.add_argument(
        "--warmup", type=float, default=defaults.warmup, metavar="S",
        help=f"seconds before, not measured ({defaults.warmup:g})",
    )  # fmt: skip
    group.add_argument("--qps", type=float, metavar="R", help="arrivals a second [Server]")
    group.add_argument(
        "--latency-bound-ms", type=float, metavar="MS", help="p99 must be within (1000) [Server]"
    )
    group.add_argument("--streams", type=int, metavar="N", help="a group (8) [MultiStream]")
    group.add_argument("--deadline-ms", type=float, metavar="MS", help="answers in time")
    group.add_argument("--images", type=Path, metavar="DIR", help="folder or list (crops are made)")
    group.add_argument("--seed", type=int, default=defaults.seed, help=f"({defaults.seed})")
    group.add_argument(
        "--sweep", action="store_true", help="also other numbers of candidates; takes longer"
    )
    group.add_argument(
        "--cold-runs", type=positive, metavar="N", help=f"fresh processes ({_COLD_RUNS})"
    )
    group.add_argument("--skip-cold", action="store_true", help="start no fresh processes")


def _add_engine(result: Parser) -> None:
    group = result.add_argument_group("engine")
    group.add_argument(
        "--expect-dtype", choices=get_args(Precision), help="what the engine's precision must be"
    )
    add_backend(group)
    add_reading_options(group)
    group.add_argument("--sha256", metavar="HEX", help="what the engine's must be")


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    if not hasattr(args, "scenario"):
        return _bench_compare.run(args)
    check_reading(args, reads=args.images is not None, by="--images")
    if args.skip_cold and args.cold_runs is not None:
        raise UsageError("--cold-runs and --skip-cold exclude each other")
    manifest, sha256 = read_pinned(args.engine, args.sha256)
    settings = _settings(args, manifest)
    _check_outputs(args)
    engine = EngineOptions(args.engine, manifest, sha256, **backend_of(args), **reading_of(args))
    cold = 0 if args.skip_cold else args.cold_runs or _COLD_RUNS
    with ProgressLine(quiet=args.quiet) as line:
        report = run_bench(
            engine, settings, images=args.images, cold=cold, progress=line.part("bench")
        )
    if args.json == _STDOUT:
        say_json(report.to_json())
    else:
        say(*report_lines(report))
        if args.json is not None:
            every = list(dict.fromkeys([*report.notes, *notes()]))
            write_report(args.json, replace(report, notes=every))
    if args.plot is not None:
        write_latency_plot(args.plot, report)
    if report.status == "interrupted":
        return EXIT_INTERRUPTED
    if report.cached is not None and report.cached.server is not None:
        return _judged(report.cached, report.cached.server, settings)
    return EXIT_OK


def _judged(section: Section, fared: ServerFigures, settings: BenchSettings) -> int:
    """Return the exit code of a Server run; raise for one that does not hold its bound."""
    if fared.verdict == "invalid":
        said = "; ".join(server_lines("the Server run", section, fared))
        raise InvalidRunError(f"{said}: lower --qps, or allow more with --latency-bound-ms")
    if fared.verdict != "undecided":
        return EXIT_OK
    seconds = settings.seconds_for(fared.least_queries or 0)
    say_error(
        f"undecided: too few queries, {section.queries} where {fared.least_queries} would tell; "
        f"run it for longer (--duration {seconds})"
    )
    return EXIT_UNDECIDED


def _settings(args: argparse.Namespace, manifest: Manifest) -> BenchSettings:
    """Return what to measure; raise for what this engine cannot do."""
    if args.expect_dtype not in (None, manifest.precision):
        raise InputError(
            f"{args.engine} is {manifest.precision}, not {args.expect_dtype}: an engine has one "
            f"precision; export it again with --dtype {args.expect_dtype}"
        )
    method = _method(args, manifest)
    if args.deadline_ms is not None and (manifest.scorer is None or method == "none"):
        raise UsageError("--deadline-ms leaves out candidates, and here the MLLM sees none")
    if args.align_cameras is not None and manifest.encoder is None:
        raise UsageError("--align-cameras is of features, and this engine has no encoder")
    chosen: dict[str, Any] = {name: getattr(args, name) for name in _AS_SETTINGS}
    if chosen["align_cameras"] is None:
        del chosen["align_cameras"]
    return BenchSettings(**chosen, method=method, sweep=args.sweep or args.plot is not None)


def _method(args: argparse.Namespace, manifest: Manifest) -> Method | None:
    given: Method | None = args.method
    if manifest.encoder is None:
        if given is not None:
            raise UsageError("--method ranks by features, and this engine has no encoder")
        return None
    if given == "simple" and manifest.scorer is None:
        raise InputError(
            "--method simple fuses mu-distances, and this engine has no MLLM: pass none or "
            "k-reciprocal, or export one with --mllm"
        )
    return given or "k-reciprocal"


def _check_outputs(args: argparse.Namespace) -> None:
    """Raise what would stand in the way once the work is done."""
    if args.json not in (None, _STDOUT):
        _check_output(args, args.json, "--json")
    if args.plot is not None:
        if args.plot.suffix.lower() != ".png":
            raise UsageError(f"--plot writes a PNG: name it so, not {args.plot}")
        _check_output(args, args.plot, "--plot")
        check_drawing()


def _check_output(args: argparse.Namespace, file: Path, flag: str) -> None:
    if args.engine.resolve() in file.resolve().parents:
        raise UsageError(f"{flag} must not be inside the engine: it holds only what it lists")
    check_file(file, overwrite=args.overwrite)
