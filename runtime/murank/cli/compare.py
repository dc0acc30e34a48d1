"""`murank compare`: every re-ranker with and without mu, side by side."""

import argparse
from pathlib import Path
from typing import Any

from murank._exceptions import UsageError
from murank.calibration import store_defaults
from murank.cli.alignment_options import add_alignment
from murank.cli.output import say, say_json
from murank.cli.parser import Parser, add_protocol, given_flags, protocol_of
from murank.cli.progress import ProgressLine
from murank.cli.ranked_source import RankedSource, add_ranked_source, read_ranked
from murank.cli.table import gain, table
from murank.files.atomic import check_writable
from murank.folder.manifest import read_manifest
from murank.rerank.alignment import align
from murank.rerank.comparison import Compared, check_comparable, compare
from murank.rerank.mu_auc import told_among_candidates
from murank.rerank.proposal import PROPOSED, check_proposable, propose

_SHOWN = ("mAP", "rank-1", "rank-5")


def parser() -> Parser:
    """Return the parser of this verb."""
    result = Parser(
        prog="murank compare",
        description="Evaluate the encoder, k-reciprocal, ECN and CA-Jaccard with the defaults of "
        "the kernels, each without and with mu. Nothing is written.",
    )
    add_ranked_source(result)
    result.add_argument("--alpha", type=float, metavar="X", help="weight of mu, in [0, 1] (0.2)")
    result.add_argument(
        "--propose", nargs="?", const=PROPOSED[0], choices=PROPOSED, metavar="METHOD",
        help=f"choose alpha and the number of candidates for a method ({PROPOSED[0]}) by "
        f"cross-validation, alpha 0 allowed; METHOD: {', '.join(PROPOSED)}",
    )  # fmt: skip
    result.add_argument(
        "--store", type=Path, metavar="ENGINE",
        help="keep the proposal with the engine that gave mu: rerank and search take it where "
        "--alpha and the number of candidates are not named; the engine's sha256 changes",
    )  # fmt: skip
    add_alignment(result)
    add_protocol(result)
    result.add_argument("--json", action="store_true", help="print JSON, no table")
    result.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return result


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    protocol = protocol_of(args)
    source = read_ranked(args)
    features, mu, gallery_mu, alignment = (
        source.features, source.mu, source.gallery_mu, source.alignment
    )  # fmt: skip
    for flag in given_flags(args, () if mu is not None else ("alpha", "propose")).values():
        if flag == "--propose" or gallery_mu is None:
            raise UsageError(f"{flag} weighs mu: it needs --mu, or a job folder with mu.npz")
    asked = None if args.store is None else _asked_engine(args, source)
    labels = check_comparable(features, mu, gallery_mu, alpha=args.alpha, protocol=protocol)
    if args.propose is not None:
        check_proposable(labels, protocol)
    proposal = None
    with ProgressLine(quiet=args.quiet) as line:
        aligned = align(features, alignment, progress=line.part("align"))
        found = compare(
            features, mu, gallery_mu, aligned=aligned, alpha=args.alpha, protocol=protocol,
            progress=line.part,
        )  # fmt: skip
        if mu is not None and args.propose is not None:
            proposal = propose(
                args.propose, aligned.features, mu, labels, protocol=protocol, progress=line.part
            )
    stored = None
    if proposal is not None and asked is not None:
        stored = store_defaults(args.store, proposal, asked=asked, alignment=aligned.level)
    used = None if aligned.level == "off" else aligned.features
    told = None if mu is None else told_among_candidates(mu, labels, features, used)
    notes = [*labels.junk_notes(protocol), *aligned.notes]
    verdicts = [one.verdict for one in found if one.verdict is not None]
    if args.json:
        report = {
            "schema_version": 1, "protocol": protocol, "alignment": aligned.to_json(alignment),
            "rows": [_row(one) for one in found],
            "among_candidates": None if told is None else told.to_json(),
            "proposal": None if proposal is None else proposal.to_json(),
            "sha256": stored, "notes": [*verdicts, *notes],
        }  # fmt: skip
        say_json(report)
    else:
        say(*comparison_table(found), *verdicts)
        say(*([] if told is None else told.lines), *([] if proposal is None else proposal.lines))
        say(
            *([] if stored is None else [f"stored with {args.store}, whose sha256 is now {stored}"])
        )
        say(*aligned.fitted.why_not, *notes)
    return 0


def _row(one: Compared) -> dict[str, Any]:
    gain = None if one.gain is None else one.gain.to_json()
    return {"name": one.name, "fused": one.fused, "metrics": one.metrics, "gain": gain}


def comparison_table(found: list[Compared]) -> list[str]:
    """Return the lines of a table; behind each line with mu, what mu added."""
    lines = table({one.label: one.metrics for one in found}, _SHOWN)
    before = {one.name: one.metrics for one in found if one.fused == "none"}
    if all(one.fused == "none" for one in found):
        return lines
    text = [lines[0] + "   mu adds:" + "".join(f"{name:>10}" for name in _SHOWN)]
    for one, line in zip(found, lines[1:], strict=True):
        added = gain(before[one.name], one.metrics, _SHOWN)
        text.append(line + (f"{'':11}{added}" if one.fused != "none" else ""))
    return text


def _asked_engine(args: argparse.Namespace, source: RankedSource) -> str:
    """Return the sha256 of what gave mu; raise what stands in the way of storing."""
    if args.propose is None or source.job is None or args.mu is not None:
        raise UsageError("--store needs --propose, and a job folder, which says what gave mu")
    read_manifest(args.store)
    check_writable(args.store)
    return source.job.report.engine.answers_sha256
