"""`murank plan`: time and memory that an engine will need on a device, before it is there."""

import argparse
import math
from pathlib import Path
from typing import get_args

from murank._exceptions import UsageError
from murank.cli.output import say, say_json
from murank.cli.parser import Parser, positive, threads
from murank.folder.precision import Precision
from murank.machine.library import pip_install
from murank_export.plan.check import check_on_this_cpu
from murank_export.plan.devices import DEVICES, NAMES
from murank_export.plan.host import faster, this_cpu
from murank_export.plan.prediction import Workload, check_plan, plan_engine
from murank_export.plan.report import as_json, as_lines

_CPU = "cpu"
_MOST_GIB = 1 << 20


def parser() -> Parser:
    """Return the parser of this verb."""
    result = Parser(
        prog="murank plan",
        description="Count an engine's graphs (weights are not read) and say what one query will "
        "take on a device: the floor that its data sheet allows, a predicted latency, the memory, "
        "and what to change if that does not fit. Nothing is measured on the device. Needs "
        f"onnx: {pip_install('plan')}.",
    )
    result.add_argument("engine", metavar="ENGINE", type=Path, help="folder of an engine")
    result.add_argument(
        "--board", required=True, choices=NAMES,
        help="whose data sheet; cpu: this machine's rates, measured in two seconds",
    )  # fmt: skip
    result.add_argument(
        "--candidates", type=positive, default=20, metavar="K", help="scored for a query (20)"
    )
    result.add_argument(
        "--gallery-size", type=positive, default=1000, metavar="G", help="images (1000)"
    )
    result.add_argument("--max-pairs", type=positive, metavar="N", help="in a run (the engine's)")
    result.add_argument(
        "--memory-gb", type=_gigabytes, metavar="M",
        help="memory that the engine may take, in GiB (what the device has, less its system)",
    )  # fmt: skip
    result.add_argument("--power-mode", metavar="MODE", help="of a Jetson (the fastest)")
    result.add_argument(
        "--expect-dtype", choices=get_args(Precision), help="refuse an engine of another precision"
    )
    result.add_argument("--threads", type=threads, metavar="N", help="of one operator [cpu]")
    result.add_argument(
        "--check", action="store_true", help="also run the stages here, and show the error [cpu]"
    )
    result.add_argument("--json", action="store_true", help="print JSON")
    return result


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    _check_flags(args)
    known = DEVICES.get(args.board)
    device = None if known is None else known.in_mode(args.power_mode)
    workload = Workload(args.candidates, args.gallery_size, args.max_pairs)
    check_plan(
        args.engine, workload, device=args.board, precision=args.expect_dtype,
        architecture=None if device is None else device.architecture,
    )  # fmt: skip
    device = device or this_cpu(args.threads)
    plan = plan_engine(args.engine, device, workload, memory_bytes=args.memory_gb)
    checked = None
    if args.check:
        checked = check_on_this_cpu(args.engine, plan, args.threads)
        device = faster(device, this_cpu(args.threads))
        plan = plan_engine(args.engine, device, workload, memory_bytes=args.memory_gb)
    if args.json:
        say_json(as_json(args.engine, plan, checked))
    else:
        say(*as_lines(args.engine, plan, checked))
    return 0


def _check_flags(args: argparse.Namespace) -> None:
    for flag, given in (("--check", args.check), ("--threads", args.threads is not None)):
        if given and args.board != _CPU:
            raise UsageError(f"{flag} is used with --board cpu only")
    if args.power_mode is not None and args.board == _CPU:
        raise UsageError("--power-mode is used with a Jetson only; --board cpu is measured as is")


def _gigabytes(text: str) -> int:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= _MOST_GIB:
        raise argparse.ArgumentTypeError(f"must be a number above 0, in GiB, got {text!r}")
    return int(value * 2**30)
