"""Options of who finds the neighbours of all rows, and how exactly."""

import argparse
import math
from functools import partial
from pathlib import Path
from typing import Any

from murank._exceptions import UsageError
from murank.cli.job_options import add_workers
from murank.cli.parser import given_flags
from murank.crew import RayActors
from murank.jobs import Workers, processes
from murank.rerank.ivf import RECALL, faiss
from murank.rerank.methods import METHODS
from murank.rerank.searches import EXACT, Neighbours


def add_neighbours(group: Any) -> None:
    """Add the options that `neighbours_of` reads."""
    group.add_argument(
        "--neighbours", choices=("exact", "ivf"), default="exact",
        help="how they are found (exact); ivf: approximately, of 20,000 images and more",
    )  # fmt: skip
    group.add_argument(
        "--recall",
        type=_recall,
        metavar="X",
        help=f"of ivf: share of neighbours that it has to find ({RECALL})",
    )
    add_workers(group)


def check_neighbours(args: argparse.Namespace) -> None:
    """Raise what can be known before anything is read.

    Raises
    ------
    UsageError
        Options contradict each other.
    MachineError
        faiss is asked for, and not installed.
    """
    method, asked = METHODS[args.method], _asked(args)
    for flag in asked:
        if not method.has_neighbors:
            raise UsageError(f"--method {args.method} looks for no neighbours; leave out {flag}")
        if args.kernels == "cuda":
            raise UsageError(f"{flag} is for --kernels cpu: a GPU looks for neighbours itself")
    if args.neighbours == "exact" and args.recall is not None:
        raise UsageError("--recall needs --neighbours ivf")
    if args.workers.ray is not None and args.output is None:
        raise UsageError("--workers ray needs -o: strips of the features lie beside it, for all")
    if args.neighbours == "ivf":
        if "--workers" in asked:
            raise UsageError("--workers is for --neighbours exact: ivf works in this process")
        if method.needs_camids:
            raise UsageError(f"--method {args.method} needs --neighbours exact: lists by camera")
        faiss()


def neighbours_of(args: argparse.Namespace) -> Neighbours:
    """Return who was asked for."""
    if args.neighbours == "ivf":
        return Neighbours(recall=RECALL if args.recall is None else args.recall)
    workers: Workers = args.workers
    if workers.ray is not None:
        by_ray = partial(RayActors, address=workers.ray, on_gpus=False)
        return Neighbours(crew_of=by_ray, beside=Path(args.output).absolute())
    if workers.processes is None:
        return EXACT
    return Neighbours(crew_of=partial(processes, count=workers.processes))


def _asked(args: argparse.Namespace) -> list[str]:
    """Return the options that change how neighbours are found."""
    asked = list(given_flags(args, ["recall"]).values())
    asked += [] if args.workers == Workers() else ["--workers"]
    return asked if args.neighbours == "exact" else ["--neighbours ivf", *asked]


def _recall(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, got {text!r}")
    return value
