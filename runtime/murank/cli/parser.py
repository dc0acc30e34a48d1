"""The argument parser of every verb, and options that verbs share."""

import argparse
import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from murank._exceptions import EXIT_CODES, UsageError
from murank.checks.text import warn
from murank_kernels.machine.cores import usable_cores

_THREADS_A_CORE = 8  # more only wait for each other, and thousands cannot be started


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises UsageError instead of ending the process."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(epilog=EXIT_CODES, allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(f"{message} (see {self.prog} --help)")


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """Return the names of a parser's options, those of its own verbs among them."""
    names: set[str] = set()
    for action in parser._actions:
        names.update(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            names.update(*(options_of(inner) for inner in action.choices.values()))
    return names


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    return _whole(text, 1)


def not_negative(text: str) -> int:
    """Parse a whole number of at least 0."""
    return _whole(text, 0)


def camera_or_unknown(text: str) -> int:
    """Parse a whole number of at least -1."""
    return _whole(text, -1)


def _whole(text: str, least: int) -> int:
    with contextlib.suppress(ValueError):
        if (value := int(text)) >= least:
            return value
    raise argparse.ArgumentTypeError(f"must be at least {least}, a whole number, got {text!r}")


def days(text: str) -> float:
    """Parse a number of days above 0."""
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) < math.inf:
            return value
    raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")


def given_flags(args: argparse.Namespace, names: Iterable[str]) -> dict[str, str]:
    """Return the options among `names` that were given, and their flags.

    0 is given, too, and a switch that is off is not.
    """
    values = {name: getattr(args, name) for name in names}
    given = (name for name, value in values.items() if value is not None and value is not False)
    return {name: "--" + name.replace("_", "-") for name in given}


def check_needs(args: argparse.Namespace, needs: Mapping[str, Sequence[str]]) -> None:
    """Raise UsageError if an option is given without those that it is of no use without."""
    for option, flag in given_flags(args, needs).items():
        given = given_flags(args, needs[option])
        missing = ["--" + name.replace("_", "-") for name in needs[option] if name not in given]
        if missing:
            raise UsageError(f"{flag} needs {' and '.join(missing)}")


def rare_group(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Return the last group of a verb: what few need."""
    return parser.add_argument_group("rarely needed")


def add_kernels(group: Any, what: str) -> None:
    """Add where the kernels run."""
    group.add_argument(
        "--kernels", choices=("cpu", "cuda"), default="cpu", help=f"{what}, where they run (cpu)"
    )


def add_cache_limits(group: argparse._ArgumentGroup) -> None:
    """Add how many vision tokens are kept across runs, and for how long."""
    group.add_argument(
        "--cache-max-mb", type=positive, metavar="MB", help="size of all in DIR: oldest files go"
    )
    group.add_argument(
        "--cache-max-days", type=days, metavar="DAYS", help="age of a file in DIR: older ones go"
    )


def threads(text: str) -> int:
    """Parse a number of threads: at least 1, and not absurd for what this process may use.

    Warns of more than it has cores for.
    """
    value, cores = positive(text), usable_cores()
    most = _THREADS_A_CORE * cores
    if value > most:
        raise argparse.ArgumentTypeError(
            f"must be at most {most}: {_THREADS_A_CORE} for each core that this process may use "
            f"({cores}, by affinity and cgroup quota)"
        )
    if value > cores:
        warn(
            f"--threads {value} is more than the cores that this process may use ({cores}, by "
            "affinity and cgroup quota): threads will wait for each other"
        )
    return value
