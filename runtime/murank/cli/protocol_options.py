"""How rankings are evaluated: the protocol, and what is dropped from rankings before it counts."""

import argparse
from collections.abc import Sequence
from typing import Any

from murank._exceptions import UsageError
from murank.cli.parser import positive
from murank.datasets.named_ids import number_of
from murank.rerank.drop_mask import load_drop_mask
from murank.rerank.verdicts import SAME_CAMERA
from murank_kernels.evaluation.drop_rule import RULES, looks_at
from murank_kernels.evaluation.protocols import PROTOCOLS


class _Camera(int):
    """The number of a camera, said as it was written: labels of files may be names."""

    def __new__(cls, name: str) -> "_Camera":
        return super().__new__(cls, number_of(name))

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return self.name


def add_protocol(parser: argparse.ArgumentParser) -> None:
    """Add the options that `protocol_of` reads."""
    group = parser.add_argument_group("evaluation")
    group.add_argument(
        "--protocol", choices=PROTOCOLS, default="market1501", metavar="P",
        help="market1501 (default); cuhk03: one gallery image a person, drawn; trapezoid: average "
        "precision as in Market-1501's first code; sysu: CMC counts people, as in SYSU-MM01",
    )  # fmt: skip
    rules = "; ".join(f"{name}: {what}" for name, what in RULES.items())
    group.add_argument(
        "--drop", type=_rule, default=SAME_CAMERA, metavar="RULE",
        help=f"what is dropped from a query's ranking (same-camera); {rules}; or MASK.npz with "
        "drop [Q, G], true: dropped",
    )  # fmt: skip
    group.add_argument(
        "--camera-group", type=_group, action="append", metavar="C,C",
        help="cameras that see one place and count as one; SYSU-MM01: --drop whole-camera "
        "--camera-group 2,3; may be repeated",
    )  # fmt: skip
    group.add_argument(
        "--drop-junk", action="store_true",
        help="leave pid -1 out, as Market-1501's junk; score --dataset has none",
    )  # fmt: skip
    group.add_argument("--repeats", type=positive, metavar="N", help="draws of cuhk03 (10)")
    group.add_argument("--seed", type=int, metavar="N", help="of these draws (0)")


def protocol_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the evaluator's keyword arguments. Raises UsageError, InputError."""
    return {"protocol": args.protocol, **_draws(args), **_dropped(args)}


def _draws(args: argparse.Namespace) -> dict[str, int]:
    if args.protocol != "cuhk03":
        for flag, value in (("--repeats", args.repeats), ("--seed", args.seed)):
            if value is not None:
                raise UsageError(f"{flag} is used by --protocol cuhk03 only")
        return {}
    if args.seed is not None and args.seed < 0:
        raise UsageError("--seed must be at least 0")
    repeats = 10 if args.repeats is None else args.repeats
    return {"num_repeats": repeats, "seed": args.seed or 0}


def _dropped(args: argparse.Namespace) -> dict[str, Any]:
    rule = args.drop if args.drop in RULES else load_drop_mask(args.drop)
    if args.camera_group and not looks_at(rule):
        raise UsageError(
            "--camera-group is of rules that look at cameras: not of --drop none, or a mask"
        )
    groups = {"camera_groups": args.camera_group} if args.camera_group else {}
    return {"drop": rule, **groups, **({"junk": "drop"} if args.drop_junk else {})}


def _rule(text: str) -> str:
    """Parse the name of a rule, or of a file."""
    if text in RULES or text.endswith(".npz"):
        return text
    raise argparse.ArgumentTypeError(
        f"must be {', '.join(RULES)}, or a mask in an .npz file, got {text!r}"
    )


def _group(text: str) -> Sequence[int]:
    """Parse cameras, as 2,3 or cam2,cam3."""
    names = [part.strip() for part in text.split(",")]
    cameras = [_Camera(name) for name in names]
    if len(cameras) < 2 or len(set(cameras)) < len(cameras) or "" in names:
        raise argparse.ArgumentTypeError(
            f"must be two or more cameras, each once, as 2,3, got {text!r}"
        )
    return cameras
