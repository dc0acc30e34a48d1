"""`murank compare`: every re-ranker with and without mu, side by side."""

import argparse
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from murank._exceptions import InputError, UsageError
from murank.calibration import store_defaults
from murank.cli.alignment_options import add_alignment, alignment_of
from murank.cli.output import say, say_json
from murank.cli.parser import Parser, add_protocol, positive, protocol_of
from murank.cli.progress import ProgressLine
from murank.cli.run_folder import features_of_run
from murank.cli.table import gain, table
from murank.files.atomic import check_writable
from murank.folder.manifest import read_manifest
from murank.jobs.workspace import GALLERY_MU_FILES, MU_FILES
from murank.rerank.alignment import align
from murank.rerank.comparison import Compared, check_comparable, compare
from murank.rerank.features import load_features
from murank.rerank.mu import MuDistances, load_mu
from murank.rerank.mu_auc import told_among_candidates
from murank.rerank.proposal import PROPOSED, check_proposable, propose
from murank.rerank.ranking import SUMMARY_FILE

_SHOWN = ("mAP", "rank-1", "rank-5")


def parser() -> Parser:
    """Return the parser of this verb."""
    result = Parser(
        prog="murank compare",
        description="Evaluate the encoder, k-reciprocal, ECN and CA-Jaccard with the defaults of "
        "the kernels, each without and with mu. Nothing is written.",
    )
    result.add_argument(
        "folder", nargs="?", metavar="DIR", type=Path,
        help="what `murank rerank --engine` wrote: features.npz, mu.npz, mu_gallery.npz",
    )  # fmt: skip
    result.add_argument("--features", metavar="F.npz", type=Path, help="instead of a folder")
    result.add_argument("--mu", metavar="M.npz", type=Path, help="beside --features")
    result.add_argument("--mu-gallery", metavar="M.npz", type=Path, help="beside --features")
    result.add_argument("--num-query", type=positive, metavar="N", help="of --features")
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
    files = _files(args)
    if not (files.mu or files.gallery_mu) and args.alpha is not None:
        raise UsageError("--alpha weighs mu: it needs --mu, or a folder with mu.npz")
    if not files.mu and args.propose is not None:
        raise UsageError("--propose weighs mu: it needs --mu, or a folder with mu.npz")
    asked = None if args.store is None else _asked_engine(args)
    features = load_features(files.features, args.num_query)
    mu, gallery_mu = _load(files.mu), _load(files.gallery_mu)
    alignment = alignment_of(args)
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


def _asked_engine(args: argparse.Namespace) -> str:
    """Return the sha256 of what gave mu; raise what stands in the way of storing."""
    if args.propose is None or args.folder is None:
        raise UsageError("--store needs --propose, and a folder that says which engine gave mu")
    try:
        found = json.loads((args.folder / SUMMARY_FILE).read_bytes())["engine"]["answers_sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{args.folder} does not say which engine gave mu") from error
    read_manifest(args.store)
    check_writable(args.store)
    return str(found)


class _Files(NamedTuple):
    features: Path
    mu: tuple[Path, ...]  # none, one prompt order, or both
    gallery_mu: tuple[Path, ...]


def _files(args: argparse.Namespace) -> _Files:
    if (args.folder is None) == (args.features is None):
        raise UsageError("name the folder that rerank wrote, or --features F.npz")
    if args.folder is None:
        given = ((file,) if file is not None else () for file in (args.mu, args.mu_gallery))
        return _Files(args.features, *given)
    for flag in ("mu", "mu_gallery", "num_query"):
        if getattr(args, flag) is not None:
            raise UsageError(f"--{flag.replace('_', '-')} goes with --features")
    features = features_of_run(args.folder)
    used = _used(args.folder)
    mu, gallery_mu = (
        tuple(args.folder / name for name in names.values() if name in used)
        for names in (MU_FILES, GALLERY_MU_FILES)
    )
    return _Files(features, mu, gallery_mu)


def _used(folder: Path) -> Collection[str]:
    """Return the names of the files that count: those of the last run, where it says so."""
    summary = folder / SUMMARY_FILE
    if not summary.is_file():
        return {file.name for file in folder.iterdir()}
    try:
        stages = json.loads(summary.read_bytes())["stages"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{summary} is no summary of a run on images; run it again") from error
    return stages if isinstance(stages, dict) else ()


def _load(files: Sequence[Path]) -> MuDistances | None:
    """Read mu of one prompt order, or the mean of both."""
    return load_mu(*files) if files else None
