"""`murank calibrate`: temperature and operating threshold of an engine, from labelled pairs."""

import argparse
import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path

from murank._exceptions import InputError, OutputError, UsageError
from murank.calibration import (
    ThresholdTarget,
    calibrate,
    distinct_pairs,
    score_pairs,
    store_calibration,
)
from murank.calibration.calibration_plot import write_calibration_plot
from murank.calibration.encoder_auc import cameras_of, embed_pairs, image_names
from murank.cli.alignment_options import (
    add_alignment,
    alignment_flags,
    alignment_of,
    check_for_engine,
)
from murank.cli.calibrate_report import Done, as_json, report_lines
from murank.cli.engine_options import add_backend, backend_of
from murank.cli.output import say, say_json
from murank.cli.parser import Parser
from murank.cli.progress import ProgressLine
from murank.cli.reading_options import add_reading_options, reading_of
from murank.engine.engine import Engine, Part
from murank.files.atomic import check_writable, sole_writer
from murank.folder.manifest import read_manifest
from murank.pairs.labelled import Pair, load_pairs, without_junk
from murank.rerank.alignment import OFF, Alignment
from murank.rerank.features import check_file
from murank.sheet.canvas import check_drawing


def parser() -> Parser:
    """Return the parser of this verb."""
    result = Parser(
        prog="murank calibrate",
        description="Ask an engine about labelled pairs; fit the temperature that makes mu as sure "
        "as it is right; choose the threshold on mu below which a candidate is a match; and write "
        "both into the engine's manifest. Every mu changes, and so does the engine's sha256.",
    )
    result.add_argument("engine", metavar="ENGINE", type=Path, help="folder of an engine")
    result.add_argument(
        "--pairs", required=True, metavar="P.json", type=Path,
        help='list of {"query", "candidate", "match": "Yes" or "No"}, as adapt mine writes it; of '
        "people that the model was not trained on",
    )  # fmt: skip
    result.add_argument(
        "--image-root", type=Path, metavar="DIR",
        help="where relative paths start (the current folder)",
    )  # fmt: skip
    target = result.add_mutually_exclusive_group()
    target.add_argument(
        "--fmr", type=_share, metavar="RATE",
        help="largest threshold whose false match rate is at most this (0.01)",
    )  # fmt: skip
    target.add_argument(
        "--fnmr", type=_share, metavar="RATE",
        help="smallest threshold whose false non-match rate is at most this",
    )  # fmt: skip
    target.add_argument("--eer", action="store_true", help="threshold where the two are equal")
    result.add_argument(
        "--prior", type=_share, default=0.5, metavar="P",
        help="share of same-person pairs that the temperature is to stand for (0.5)",
    )  # fmt: skip
    result.add_argument(
        "--plot", type=Path, metavar="F.png", help="draw DET curve and reliability there"
    )
    result.add_argument("--dry-run", action="store_true", help="leave the engine as it is")
    result.add_argument(
        "--overwrite", action="store_true", help="replace an earlier calibration, and F.png"
    )
    result.add_argument(
        "--strict", action="store_true", help="stop at an image that cannot be used, skip none"
    )
    add_backend(result)
    add_reading_options(result)
    result.add_argument("--sha256", metavar="HEX", help="what the engine's must be")
    add_alignment(result)
    result.add_argument("--json", action="store_true", help="print JSON, with the DET curve")
    result.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return result


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    target = _target(args)
    with contextlib.ExitStack() as stack:
        _check_outputs(args)
        if not args.dry_run:
            stack.enter_context(sole_writer(args.engine))
            _check_outputs(args)  # of another that was just ready
        return _run(args, target)


def _run(args: argparse.Namespace, target: ThresholdTarget) -> int:
    given = load_pairs(args.pairs)
    pairs_sha256 = hashlib.sha256(args.pairs.read_bytes()).hexdigest()
    distinct = distinct_pairs(given)
    pairs = without_junk(distinct)
    _check_kinds(pairs, target)
    asked, parts = _asked_of_encoder(args, pairs)
    engine = Engine.from_pretrained(
        args.engine, parts=parts, sha256=args.sha256, **backend_of(args), **reading_of(args)
    )  # fmt: skip
    with ProgressLine(quiet=args.quiet) as line:
        if junk := len(distinct) - len(pairs):
            line.note(f"{junk} pairs left out, for an image is junk: its name says pid -1")
        embedded = None
        if engine.encoder is not None:
            embedded = embed_pairs(
                engine.encoder, pairs, asked, encoder_sha256=engine.encoder_sha256,
                root=args.image_root, progress=line.part("embed"),
            )  # fmt: skip
        scored = score_pairs(
            engine, pairs, root=args.image_root, strict=args.strict, progress=line.part("calibrate")
        )
    measured = calibrate(scored.log_odds, scored.same, target=target, prior=args.prior)
    if args.plot is not None:
        write_calibration_plot(args.plot, measured)
    after = None
    if not args.dry_run:
        after = store_calibration(
            args.engine, engine.manifest, engine.sha256, measured, pairs_sha256=pairs_sha256
        )
    told = None if embedded is None else embedded.compare(scored)
    done = Done(args.engine, engine.sha256, after, len(given) - len(distinct), len(pairs), told)
    why_not = [] if embedded is None else embedded.alignment.why_not
    if args.json:
        said = as_json(done, measured, scored)
        say_json({**said, "notes": [*said["notes"], *why_not], "pairs_sha256": pairs_sha256})
    else:
        say(*report_lines(done, measured, scored), *why_not)
    return 0


def _target(args: argparse.Namespace) -> ThresholdTarget:
    if args.eer:
        return ThresholdTarget("eer", None)
    if args.fnmr is not None:
        return ThresholdTarget("fnmr", args.fnmr)
    return ThresholdTarget() if args.fmr is None else ThresholdTarget("fmr", args.fmr)


def _asked_of_encoder(
    args: argparse.Namespace, pairs: Sequence[Pair]
) -> tuple[Alignment, list[Part]]:
    """Return how features are aligned, and what is to be loaded; raises what `fit` would."""
    manifest = read_manifest(args.engine)
    if manifest.encoder is None:
        if flags := alignment_flags(args):
            raise UsageError(f"{flags[0]} is of features, and {args.engine} has no encoder")
        return OFF, ["scorer"]
    asked = alignment_of(args)
    check_for_engine(asked, args.engine, manifest, cameras_of(image_names(pairs)))
    return asked, ["encoder", "scorer"]


def _check_outputs(args: argparse.Namespace) -> None:
    """Raise what would stand in the way once the work is done."""
    manifest = read_manifest(args.engine)
    if manifest.scorer is None:
        raise InputError(f"{args.engine} has no scorer of image pairs: export it with --mllm")
    if not args.dry_run:
        if manifest.calibration is not None and not args.overwrite:
            raise OutputError(
                f"{args.engine} is calibrated already; pass --overwrite to calibrate it anew, or "
                "--dry-run to leave it as it is"
            )
        check_writable(args.engine)
    if args.plot is not None:
        if args.plot.suffix.lower() != ".png":
            raise UsageError(f"--plot writes a PNG: name it so, not {args.plot}")
        if args.engine.resolve() in args.plot.resolve().parents:
            raise UsageError("--plot must not be inside the engine: it holds only what it lists")
        check_file(args.plot, overwrite=args.overwrite)
        check_drawing()


def _check_kinds(pairs: Sequence[Pair], target: ThresholdTarget) -> None:
    same = sum(pair.match for pair in pairs)
    target.check(same=same, different=len(pairs) - same)


def _share(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) < 1:
            return value
    raise argparse.ArgumentTypeError(f"must be a number between 0 and 1, got {text!r}")
