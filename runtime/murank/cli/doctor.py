"""`murank doctor`: what this machine has, what of it works, and what to install."""

import argparse
from pathlib import Path

from murank._exceptions import MachineError, UsageError
from murank.cli.doctor_report import as_json, as_lines
from murank.cli.engine_options import add_plans
from murank.cli.output import say, say_error, say_json
from murank.cli.parser import Parser, check_needs


def parser() -> Parser:
    """Return the parser of this verb."""
    result = Parser(
        prog="murank doctor",
        description="Look at this machine and its packages, run one small real computation on each "
        "backend (in a process of its own, its answer checked), and say what works, what does not, "
        "and what to install. Exit code 3 if the CPU's part does not "
        "work, or the engine runs with nothing here. The report names "
        "neither the machine nor its users.",
    )
    result.add_argument(
        "--engine", metavar="E", type=Path,
        help="an engine folder: also say with which providers it runs here, by replaying the "
        "golden images that it brings along, and with which it is fastest, in five seconds each",
    )  # fmt: skip
    add_plans(result, "of --engine: ")
    result.add_argument(
        "--compile-kernels", action="store_true",
        help="only fill the cache of compiled kernels, as when an image is built, and say where it "
        "is: NUMBA_CACHE_DIR, else beside the code; it may be read-only afterwards",
    )  # fmt: skip
    result.add_argument("--json", action="store_true", help="print JSON")
    result.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return result


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    if args.compile_kernels:
        return _compile_kernels(args)
    from murank.doctor import examine

    check_needs(args, {"plans": ("engine",)})
    examination = examine(
        args.engine, args.plans, progress=(lambda _: None) if args.quiet else _say
    )
    if args.json:
        say_json(as_json(examination))
    else:
        say(*as_lines(examination))
    if not examination.cpu_works:
        raise MachineError("what murank needs on every machine does not work here: see the report")
    if not examination.engine_runs:
        raise MachineError(f"{args.engine} runs with no providers here: see the report")
    return 0


def _compile_kernels(args: argparse.Namespace) -> int:
    if args.engine is not None:
        raise UsageError("--compile-kernels and --engine do not go together")
    from murank.doctor import compile_kernels

    if not args.quiet:
        _say("every kernel, which takes minutes if none is compiled yet")
    folders = [str(folder) for folder in compile_kernels()]
    if args.json:
        say_json({"schema_version": 1, "kernels": folders})
    else:
        say(*folders)
    return 0


def _say(what: str) -> None:
    say_error(f"trying: {what}")
