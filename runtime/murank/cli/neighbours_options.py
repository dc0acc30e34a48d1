"""Options of who finds the neighbours of all rows, and how exactly."""

import argparse
import contextlib
import math
from functools import partial
from typing import Any

from murank._exceptions import InputError, UsageError
from murank.cli.parser import given_flags
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
    group.add_argument(
        "--workers", type=_workers, metavar="N",
        help="processes of this machine that look for them, by strips of rows (this one)",
    )  # fmt: skip


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
    if args.neighbours == "ivf":
        if args.workers is not None:
            raise UsageError("--workers is for --neighbours exact: ivf works in this process")
        if method.needs_camids:
            raise UsageError(f"--method {args.method} needs --neighbours exact: lists by camera")
        faiss()


def neighbours_of(args: argparse.Namespace) -> Neighbours:
    """Return who was asked for."""
    if args.neighbours == "ivf":
        return Neighbours(recall=RECALL if args.recall is None else args.recall)
    if args.workers is None:
        return EXACT
    return Neighbours(crew_of=partial(processes, count=args.workers))


def _asked(args: argparse.Namespace) -> list[str]:
    """Return the options that change how neighbours are found."""
    asked = list(given_flags(args, ["recall", "workers"]).values())
    return asked if args.neighbours == "exact" else ["--neighbours ivf", *asked]


def _workers(text: str) -> int:
    with contextlib.suppress(InputError):
        if (count := Workers.parse(text).processes) is not None:
            return count
    raise argparse.ArgumentTypeError(f"must be a number of processes of this machine, got {text!r}")


def _recall(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, got {text!r}")
    return value
