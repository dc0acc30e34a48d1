"""`murank verify`: every hash of an engine folder, its graphs, and its golden answers."""

import argparse
import math
from pathlib import Path

from murank._exceptions import ParityError
from murank.backends.onnx.session import SessionSettings
from murank.backends.providers import PROVIDER_NAMES
from murank.cli.output import say, say_json
from murank.cli.parser import Parser, threads
from murank.cli.progress import ProgressLine
from murank.engine.golden import Replay, replay
from murank.folder.integrity import check_engine, read_pinned


def parser() -> Parser:
    """Return the parser of this verb."""
    result = Parser(
        prog="murank verify",
        description="Check every file of an engine folder against its manifest, load its graphs, "
        "and replay on this machine the golden images that export measured. Exit code 4 if an "
        "answer differs by more than its tolerance, or depends on what else is in its batch.",
    )
    result.add_argument("engine", metavar="ENGINE", type=Path, help="folder of an engine")
    result.add_argument("--providers", choices=PROVIDER_NAMES, default="auto", help="(auto)")
    result.add_argument("--threads", type=threads, metavar="N", help="threads of one operator")
    result.add_argument("--sha256", metavar="HEX", help="what the engine's must be")
    result.add_argument("--json", action="store_true", help="print JSON")
    result.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return result


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    line = ProgressLine()
    try:
        progress = None if args.quiet else line.part("verify")
        manifest, sha256 = read_pinned(args.engine, args.sha256)
        check_engine(args.engine, manifest=manifest, progress=progress)
    finally:
        line.close()
    settings = SessionSettings(args.providers, args.threads)
    found = replay(args.engine, manifest, settings)
    if args.json:
        rows = [_row(one) for one in found]
        said = {"sha256": sha256, "files": len(manifest.files), "replay": rows}
        say_json(said)
    else:
        say(f"{len(manifest.files)} files: as the manifest says")
        for one in found:
            verdict = "ok" if one.passed else "DIFFERS"
            say(
                f"{one.name:<8} {verdict:<8} largest difference {one.largest:.1e} of {one.unit} "
                f"(tolerance {one.tolerance:.0e}) on {one.providers[0]}"
            )
        say(f"sha256   {sha256}")
    for one in found:
        if one.fault is not None:
            raise ParityError(f"{args.engine}: the {one.name} {one.fault}; do not use it")
    failed = [one.name for one in found if not one.passed]
    if failed:
        raise ParityError(
            f"{args.engine}: {' and '.join(failed)} does not answer here as it did at export; do "
            "not use it on this machine: try --providers cpu, or export again with --dtype fp32"
        )
    return 0


def _row(one: Replay) -> dict[str, object]:
    return {
        "part": one.name, "passed": one.passed,
        "largest": one.largest if math.isfinite(one.largest) else None,
        "tolerance": one.tolerance, "providers": one.providers, "fault": one.fault,
    }  # fmt: skip
