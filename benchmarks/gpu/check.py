"""All that a GPU is needed for, in one call: correctness and times of kernels and scoring.

    python benchmarks/gpu/check.py                      under eight minutes; one table
    python benchmarks/gpu/check.py --config DIR --work build/gpu
    python benchmarks/gpu/check.py --quick --skip tensorrt pytorch
    python benchmarks/gpu/check.py --precisions fp16 int8-qdq fp8 int4 --skip pytorch kernels

`--config` is a folder with config.json and tokenizer of a Qwen-VL checkpoint: the architecture that
is scored with, of random weights; without it one of middle size is made. Each section runs in a
process of its own; one that cannot run says why. The table goes to standard output and into
results/<device>.md. Exit status: 0 all that could run was right, 1 something was wrong or failed,
3 there is no GPU.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# This folder is the package `gpu` of benchmarks/, and its modules are no top-level ones.
sys.path[:] = [one for one in sys.path if Path(one or ".").resolve() != HERE]
sys.path[:0] = [str(ROOT / name) for name in ("benchmarks", "export", "runtime", "kernels")]

from gpu.child import SECTIONS  # noqa: E402
from gpu.children import run_section  # noqa: E402
from gpu.context import Context  # noqa: E402
from gpu.report import file_name, report  # noqa: E402
from gpu.rows import Row, exit_code  # noqa: E402

from murank.files.atomic import write_files  # noqa: E402
from murank.folder.precision import Precision  # noqa: E402

BUDGET = 470.0  # seconds in all
LIMITS = {  # seconds of one section
    "device": 60, "floor": 60, "correctness": 120, "kernels": 120, "engine": 240, "pytorch": 120,
    "onnxruntime": 120, "tensorrt": 240,
}  # fmt: skip
LEAST = 5.0  # seconds that a section is started for
Found = list[tuple[str, Row]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sections, print and write the report; return the exit status."""
    arguments = parse(argv)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        context = Context(
            device=arguments.device, quick=arguments.quick, run=Path(temporary),
            work=(arguments.work or Path(temporary) / "work").resolve(), config=arguments.config,
            precisions=tuple(arguments.precisions),
        )  # fmt: skip
        wanted = [name for name in SECTIONS if name not in arguments.skip]
        found = run_all(wanted, context, deadline=start + arguments.seconds)
    first = found[0][1]
    named = first.state == "measured"
    text = report(found, seconds=time.monotonic() - start, how=spelled(arguments))
    print(text)
    out = arguments.out
    if out is None and named and arguments.device == "cuda":
        out = HERE / "results" / file_name(first.what)
    if out is not None:
        content = text.encode()
        write_files(out.resolve().parent, {out.name: lambda to: to.write(content)})
        print(f"written to {out}", file=sys.stderr)
    has_gpu = first.state != "cannot run"
    return exit_code((row for _, row in found), has_gpu=has_gpu)


def run_all(names: Sequence[str], context: Context, *, deadline: float) -> Found:
    """Run sections one after the other; those that the deadline leaves no time for say so."""
    found: Found = []
    for name in names:
        left = deadline - time.monotonic()
        if left < LEAST:
            rows = [
                Row(
                    what="the section",
                    state="cannot run",
                    note="cannot run because: the time is up",
                )
            ]
        else:
            print(f"{name} ...", file=sys.stderr, flush=True)
            rows = run_section(name, context, min(left, LIMITS[name]))
        found += [(name, row) for row in rows]
    return found


def spelled(arguments: argparse.Namespace) -> str:
    """What changes the figures, as it was asked for; no paths."""
    words = ["check.py", *(["--quick"] if arguments.quick else [])]
    words += ["--skip", *arguments.skip] if arguments.skip else []
    words += ["--config", arguments.config.name] if arguments.config else []
    words += ["--precisions", *arguments.precisions]
    return " ".join(words)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments; what is wrong with them is said before any work."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="(results/<device>.md)")
    skippable = [name for name in SECTIONS if name != "device"]
    parser.add_argument(
        "--skip",
        nargs="+",
        choices=skippable,
        default=[],
        metavar="SECTION",
        help=", ".join(skippable),
    )
    parser.add_argument("--quick", action="store_true", help="fewer runs, no MSMT17 size")
    parser.add_argument("--config", type=Path, help="folder with config.json and tokenizer")
    parser.add_argument(
        "--precisions", nargs="+", choices=get_args(Precision), metavar="P",
        help="of the engines (fp16 and bf16; with --config fp16)",
    )  # fmt: skip
    parser.add_argument("--work", type=Path, help="folder to keep checkpoint and engine in")
    parser.add_argument("--seconds", type=float, default=BUDGET, help="in all (%(default)s)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.config is not None:
        arguments.config = arguments.config.resolve()
        if not (arguments.config / "config.json").is_file():
            parser.error(f"{arguments.config} has no config.json")
    if arguments.precisions is None:
        # Each costs an export: of a real architecture two may be more than one call has time for.
        few = arguments.config is not None or arguments.device == "cpu"
        arguments.precisions = ["fp16"] if few else ["fp16", "bf16"]
    if arguments.out is not None and not arguments.out.resolve().parent.is_dir():
        parser.error(f"--out: the folder {arguments.out.resolve().parent} does not exist")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
