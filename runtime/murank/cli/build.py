"""`murank build`: an engine folder to TensorRT plans for this device."""

import argparse
from pathlib import Path
from typing import Any, get_args

from murank.backends.trt import BuildSettings, Built, build_plans, check_request, this_machine
from murank.backends.trt.api import Backend
from murank.backends.trt.build_settings import DTYPES, PARTS
from murank.cli.engine_options import add_plans
from murank.cli.output import say, say_json
from murank.cli.parser import Parser, positive
from murank.cli.progress import ProgressLine


def parser() -> Parser:
    """Return the parser of this verb."""
    result = Parser(
        prog="murank build",
        description="Make TensorRT plans of an engine's graphs for the GPU of this machine, and "
        "keep them in your cache folder. Needs TensorRT and PyCUDA, no onnxruntime. Plans that are "
        "there and fit are kept, so an interrupted build goes on. They run where GPU, driver and "
        "TensorRT are the same, with --providers tensorrt-plans; the engine itself is not changed. "
        "Of several GPUs the first is meant: CUDA_VISIBLE_DEVICES picks one, here and when they "
        "are run.",
    )
    result.add_argument("engine", metavar="ENGINE", type=Path, help="folder of an engine")
    result.add_argument("--expect-dtype", choices=DTYPES, help="what the engine's must be")
    result.add_argument(
        "--parts", type=_parts, metavar="LIST", help=f"{' and '.join(PARTS)}, with a comma (all)"
    )
    result.add_argument(
        "--max-queries", type=positive, default=1, metavar="Q",
        help="in one run of the decoder (1); more asked at once run one after the other",
    )  # fmt: skip
    result.add_argument(
        "--candidates", type=positive, metavar="K",
        help="of a query in one run, at most (the engine's max_pairs); plans are tuned for 20, or "
        "fewer; memory grows with max-queries x candidates",
    )  # fmt: skip
    result.add_argument(
        "--workspace-mb", type=positive, metavar="MB", help="scratch memory of one layer, at most"
    )
    result.add_argument(
        "--tf32", action="store_true",
        help="multiply float32 values in ten bits of mantissa: attention scores of fp16 engines "
        "lose nothing by it, answers and fp32 engines do",
    )  # fmt: skip
    result.add_argument(
        "--backend", choices=get_args(Backend), default="auto",
        help="tensorrt, or TensorRT-RTX (auto: the first that is installed)",
    )  # fmt: skip
    result.add_argument(
        "--timing-cache", type=Path, metavar="FILE",
        help="what TensorRT measured, read and written there (beside the plans)",
    )  # fmt: skip
    add_plans(result)
    result.add_argument("--rebuild", action="store_true", help="also what is there and fits")
    result.add_argument("--json", action="store_true", help="print JSON")
    result.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return result


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    settings = BuildSettings(
        dtype=args.expect_dtype,
        max_queries=args.max_queries,
        candidates=args.candidates,
        parts=args.parts,
        workspace_mb=args.workspace_mb,
        tf32=args.tf32,
        timing_cache=args.timing_cache,
        rebuild=args.rebuild,
        plans=args.plans,
    )
    check_request(args.engine, settings)
    machine = this_machine(args.backend)
    with ProgressLine(quiet=args.quiet) as line:
        built = build_plans(args.engine, settings, machine, progress=line.part("build"))
    if args.json:
        say_json(_as_json(built))
    else:
        say(*_as_lines(built))
    return 0


def _as_json(built: Built) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "folder": str(built.folder),
        "fingerprint": built.target.fingerprint,
        "target": built.target.to_json(),
        "plans": [{**vars(one), "profiles": list(one.profiles)} for one in built.plans],
    }


def _as_lines(built: Built) -> list[str]:
    lines = [f"for {built.target.title}"]
    for one in built.plans:
        what = "kept" if one.kept else f"built in {one.seconds:.0f} s"
        lines.append(
            f"  {one.name:<8} {one.bytes / 2**20:>8.1f} MiB  {what} ({', '.join(one.profiles)})"
        )
    return [*lines, f"in {built.folder}", "run with --providers tensorrt-plans"]


def _parts(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not set(names) <= set(PARTS):
        raise argparse.ArgumentTypeError(f"must be of {', '.join(PARTS)}")
    return names
