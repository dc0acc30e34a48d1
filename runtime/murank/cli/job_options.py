"""How a job is done: by whom, which share of it, and what may be left out."""

import argparse
from typing import Any

from murank._exceptions import InputError, UsageError
from murank.cli.parser import not_negative
from murank.jobs.crews import Workers
from murank.jobs.share import Share
from murank.jobs.skip_limit import SkipLimit


def add_workers(group: Any) -> None:
    """Add who works."""
    group.add_argument(
        "--workers", type=_workers, default=Workers(), metavar="N|ray|ray:HOST:PORT",
        help="processes of this machine, or of a Ray cluster (this one)",
    )  # fmt: skip


def add_job_options(group: Any) -> None:
    """Add what few need to say; `skips_of` reads some of it."""
    group.add_argument(
        "--share", type=_share, metavar="I/N",
        help="do the I-th of N shares of the queries, all in one JOB; a call without it merges",
    )  # fmt: skip
    group.add_argument(
        "--max-skipped", type=not_negative, metavar="N",
        help="images left out before the job stops (20 or 1 %%, whichever is more; 100 in a row)",
    )  # fmt: skip
    group.add_argument(
        "--prune", action="store_true",
        help="at the end forget features and mu of images that are no longer in the job",
    )  # fmt: skip
    group.add_argument(
        "--mixed", action="store_true",
        help="go on beside answers of another kind of device, which may differ in last digits",
    )  # fmt: skip


def skips_of(args: argparse.Namespace) -> SkipLimit:
    """Return what may be left out."""
    if args.strict and args.max_skipped is not None:
        raise UsageError("--strict lets nothing be left out; leave out --max-skipped")
    return SkipLimit(args.max_skipped, args.strict)


def _workers(text: str) -> Workers:
    try:
        return Workers.parse(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _share(text: str) -> Share:
    try:
        return Share.parse(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
