"""Options of the methods: each belongs to the methods that use it, and to no other."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from murank._exceptions import UsageError
from murank.rerank.methods import METHODS


@dataclass(frozen=True)
class Option:
    """One option; its default is the kernel's own."""

    flag: str
    keyword: str  # of the kernel
    help: str
    settings: Mapping[str, Any] = field(default_factory=lambda: {"type": int, "metavar": "N"})

    @property
    def dest(self) -> str:
        """Name in the parsed arguments."""
        return f"option_{self.keyword}"


_NUMBER = {"type": float, "metavar": "X"}
_ON = {"action": "store_const", "const": True}
_OFF = {"action": "store_const", "const": False}

OPTIONS = (
    Option("--k1", "k1", "reciprocal neighbours"),
    Option("--k2", "k2", "neighbours averaged in query expansion"),
    Option("--lambda", "lambda_value", "share of the original distance, in [0, 1]", _NUMBER),
    Option("--squared", "squared", "squared Euclidean distances, as Zhong et al.", _ON),
    Option("--k1-intra", "k1_intra", "reciprocal neighbours in the own camera"),
    Option("--k1-inter", "k1_inter", "reciprocal neighbours in the other cameras"),
    Option("--k2-intra", "k2_intra", "averaged neighbours in the own camera (with --clqe)"),
    Option("--k2-inter", "k2_inter", "averaged neighbours in the other cameras (with --clqe)"),
    Option("--no-ckrnns", "ckrnns", "expanded k1-reciprocal neighbours instead", _OFF),
    Option("--clqe", "clqe", "camera-aware query expansion", _ON),
    Option("--k", "k", "length of the rank lists compared"),
    Option("--t", "t", "nearest neighbours"),
    Option("--q", "q", "neighbours of each of these"),
    Option(
        "--ecn-method", "method", "distance averaged", {"choices": ("rankdist", "origdist")}
    ),
    Option("--alpha", "alpha", "weight of mu on the candidates, in [0, 1] (0.2)", _NUMBER),
)  # fmt: skip

# An option of CA-Jaccard that counts only while another one has a certain value.
_CA_JACCARD_NEEDS = {
    "k1": ("ckrnns", False, "with --no-ckrnns"),
    "k1_intra": ("ckrnns", True, "without --no-ckrnns"),
    "k1_inter": ("ckrnns", True, "without --no-ckrnns"),
    "k2": ("clqe", False, "without --clqe"),
    "k2_intra": ("clqe", True, "with --clqe"),
    "k2_inter": ("clqe", True, "with --clqe"),
}


ALPHA = OPTIONS[-1]


def add_option(group: Any, option: Option, help: str | None = None) -> None:  # noqa: A002
    """Add one of them."""
    group.add_argument(option.flag, dest=option.dest, help=help or option.help, **option.settings)


def add_method_options(
    parser: argparse.ArgumentParser, methods: Sequence[str] = tuple(METHODS)
) -> None:
    """Add those of these methods but alpha, which goes with mu; `given_parameters` reads them."""
    group = parser.add_argument_group("parameters of a method (left out: its defaults)")
    for option in OPTIONS:
        used_by = [name for name in _users(option) if name in methods]
        if option is not ALPHA and used_by:
            add_option(group, option, f"{option.help} [{', '.join(used_by)}]")


def given_parameters(args: argparse.Namespace, *, with_mu: bool) -> dict[str, Any]:
    """Return the kernel parameters that were given; UsageError on one that would have no effect."""
    given = {o.keyword: getattr(args, o.dest) for o in OPTIONS if getattr(args, o.dest) is not None}
    for option in OPTIONS:
        if option.keyword in given and args.method not in _users(option):
            users = ", ".join(_users(option))
            raise UsageError(f"--method {args.method} does not use {option.flag}; used by: {users}")
    if "alpha" in given and not with_mu:
        raise UsageError("--alpha weighs mu-distances: it needs --mu, or a job folder with mu.npz")
    if args.method == "ca-jaccard":
        _check_ca_jaccard(given)
    return given


def _users(option: Option) -> list[str]:
    if option.keyword == "alpha":
        return [name for name, method in METHODS.items() if method.takes_mu]
    return [name for name, method in METHODS.items() if option.keyword in method.parameters]


def _check_ca_jaccard(given: Mapping[str, Any]) -> None:
    switches = {"ckrnns": given.get("ckrnns", True), "clqe": given.get("clqe", False)}
    for option in OPTIONS:
        if option.keyword in given and option.keyword in _CA_JACCARD_NEEDS:
            switch, value, how = _CA_JACCARD_NEEDS[option.keyword]
            if switches[switch] != value:
                raise UsageError(f"ca-jaccard uses {option.flag} only {how}")
