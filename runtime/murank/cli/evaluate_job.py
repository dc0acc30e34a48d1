"""`murank evaluate` of a job: every re-ranker with and without mu, side by side."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from murank._exceptions import UsageError
from murank.calibration import store_defaults
from murank.cli.output import say, say_json
from murank.cli.parser import Parser, given_flags
from murank.cli.progress import ProgressLine
from murank.cli.ranked_source import RankedSource, read_ranked
from murank.cli.table import gain, table
from murank.files.atomic import check_writable
from murank.folder.manifest import read_manifest
from murank.rerank.alignment import Aligned, Alignment, align
from murank.rerank.comparison import Compared, check_comparable, compare
from murank.rerank.mu_auc import Told, told_among_candidates
from murank.rerank.proposal import PROPOSED, Proposal, check_proposable, propose
from murank.rerank.verdicts import Verdicts, protocol_json, verdicts_by

_SHOWN = ("mAP", "rank-1", "rank-5")


def add_comparison(result: Parser) -> None:
    """Add the options that `compared` reads."""
    group = result.add_argument_group("re-rankers (of a job folder, or of features on demand)")
    group.add_argument(
        "--rerankers", action="store_true",
        help="of features, too: every re-ranker, without and with mu where there is any",
    )  # fmt: skip
    group.add_argument("--alpha", type=float, metavar="X", help="weight of mu, in [0, 1] (0.2)")
    group.add_argument(
        "--propose", nargs="?", const=PROPOSED[0], choices=PROPOSED, metavar="METHOD",
        help=f"choose alpha and the number of candidates for a method ({PROPOSED[0]}) by "
        f"cross-validation, alpha 0 allowed; METHOD: {', '.join(PROPOSED)}",
    )  # fmt: skip
    group.add_argument(
        "--store", type=Path, metavar="ENGINE",
        help="keep the proposal with the engine that gave mu: rerank and search take it where "
        "--alpha and the number of candidates are not named; the engine's sha256 changes",
    )  # fmt: skip


def evaluate_job(args: argparse.Namespace, protocol: dict[str, Any]) -> int:
    """Show every re-ranker without and with mu; return the exit code."""
    source = read_ranked(args)
    asked = _check_options(args, source)
    mu, gallery_mu = source.mu, source.gallery_mu
    verdicts = verdicts_by(source.features.labels, protocol, args.source)
    labels = check_comparable(source.features, mu, gallery_mu, alpha=args.alpha, protocol=protocol)
    if args.propose is not None:
        check_proposable(labels, protocol)
    proposal = None
    with ProgressLine(quiet=args.quiet) as line:
        aligned = align(source.features, source.alignment, progress=line.part("align"))
        rows = compare(
            source.features, mu, gallery_mu, aligned=aligned, alpha=args.alpha, protocol=protocol,
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
    told = (
        None if mu is None else told_among_candidates(mu, labels, source.features, used, protocol)
    )
    report = _Found(args, rows, aligned, told, proposal, stored, verdicts)
    if args.json:
        say_json(report.as_json(protocol, source.alignment))
    else:
        say(*report.lines())
    return 0


@dataclass(frozen=True)
class _Found:
    """All that is told."""

    args: argparse.Namespace
    rows: list[Compared]
    aligned: Aligned
    told: Told | None  # what mu says among candidates
    proposal: Proposal | None
    stored: str | None  # sha256 of the engine that has it now
    labels: Verdicts  # who counts

    @property
    def notes(self) -> list[str]:
        return [*self.labels.notes, *self.aligned.notes]

    @property
    def verdicts(self) -> list[str]:
        return [one.verdict for one in self.rows if one.verdict is not None]

    def as_json(self, protocol: dict[str, Any], asked: Alignment) -> dict[str, Any]:
        return {
            "schema_version": 1, "file": str(self.args.source), "kind": "re-rankers",
            "protocol": protocol_json(protocol), "counts": self.labels.counts,
            "alignment": self.aligned.to_json(asked),
            "rows": [_row(one) for one in self.rows],
            "among_candidates": None if self.told is None else self.told.to_json(),
            "proposal": None if self.proposal is None else self.proposal.to_json(),
            "sha256": self.stored, "notes": [*self.verdicts, *self.notes],
        }  # fmt: skip

    def lines(self) -> Iterator[str]:
        yield self.labels.summary
        yield from comparison_table(self.rows)
        yield from self.verdicts
        yield from [] if self.told is None else self.told.lines
        yield from [] if self.proposal is None else self.proposal.lines
        if self.stored is not None:
            yield f"stored with {self.args.store}, whose sha256 is now {self.stored}"
        yield from self.aligned.fitted.why_not
        yield from self.notes


def _check_options(args: argparse.Namespace, source: RankedSource) -> str | None:
    """Return the sha256 of what gave mu, to store with; raise UsageError, OutputError."""
    for flag in given_flags(args, () if source.mu is not None else ("alpha", "propose")).values():
        if flag == "--propose" or source.gallery_mu is None:
            raise UsageError(f"{flag} weighs mu: it needs --mu, or a job folder with mu.npz")
    if args.store is None:
        return None
    if args.propose is None or source.job is None or args.mu is not None:
        raise UsageError("--store needs --propose, and a job folder, which says what gave mu")
    read_manifest(args.store)
    check_writable(args.store)
    return source.job.report.engine.answers_sha256


def _row(one: Compared) -> dict[str, Any]:
    gain = None if one.gain is None else one.gain.to_json()
    return {"name": one.name, "fused": one.fused, "metrics": one.metrics, "gain": gain}


def comparison_table(compared: list[Compared]) -> list[str]:
    """Return the lines of a table; behind each line with mu, what mu added."""
    lines = table({one.label: one.metrics for one in compared}, _SHOWN)
    before = {one.name: one.metrics for one in compared if one.fused == "none"}
    if all(one.fused == "none" for one in compared):
        return lines
    text = [lines[0] + "   mu adds:" + "".join(f"{name:>10}" for name in _SHOWN)]
    for one, line in zip(compared, lines[1:], strict=True):
        added = gain(before[one.name], one.metrics, _SHOWN)
        text.append(line + (f"{'':11}{added}" if one.fused != "none" else ""))
    return text
