"""Train a LoRA of an MLLM on pairs that `murank adapt mine` found, and keep the best adapter.

A training that was cut off goes on when the same command is given again.
"""

import argparse
import importlib.util
from pathlib import Path
from typing import Any

from murank import MachineError
from murank.cli.output import say, say_json
from murank.cli.parser import positive
from murank.cli.progress import ProgressLine
from murank.cli.reading_options import add_reading_options, reading_of
from murank.images import DEFAULT_LIMITS
from murank.machine.library import pip_install
from murank.prompt import LAYOUTS
from murank_export.adapt.train_settings import TrainSettings
from murank_export.engine.export_cli import noted, settings_from, size

_NEEDED = ("torch", "transformers", "peft", "accelerate", "safetensors")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    add = parser.add_argument
    add("--mllm", required=True, type=Path, metavar="DIR", help="Hugging Face folder, safetensors")
    add("--pairs", required=True, type=Path, metavar="DIR", help="with train.json and val.json")
    add(
        "--image-root", type=Path, default=Path(), metavar="DIR",
        help="where relative paths of the pairs begin (the current folder)",
    )  # fmt: skip
    add("-o", "--output", required=True, type=Path, metavar="OUT", help="OUT/adapter: the best")
    add(
        "--overwrite", action="store_true",
        help="replace a finished training there, or one of other settings",
    )  # fmt: skip
    add("--json", action="store_true", help="print the result as JSON, no summary")
    add("--quiet", action="store_true", help="no progress on stderr")
    add_reading_options(parser)
    _add_prompt(parser)
    _add_adapter(parser)
    _add_training(parser)
    _add_machine(parser)


def _add_prompt(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("prompt (murank export must be given the same)")
    group.add_argument("--layout", choices=LAYOUTS, default="paper", help="(paper)")
    group.add_argument("--prompt", type=Path, metavar="FILE", help="template (murank's own)")
    group.add_argument(
        "--image-size", type=size, metavar="HxW", help="of its images (about 280x140)"
    )


def _add_adapter(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("adapter")
    group.add_argument("--init-adapter", type=Path, metavar="DIR", help="PEFT folder to go on from")
    group.add_argument("--adapter-rank", dest="rank", type=positive, metavar="N", help="(16)")
    group.add_argument("--adapter-alpha", dest="alpha", type=float, metavar="X", help="(32)")
    group.add_argument(
        "--adapter-dropout", dest="dropout", type=float, default=0.05, metavar="P", help="(0.05)"
    )
    group.add_argument(
        "--adapter-targets", dest="targets", type=_names, metavar="A,B,...",
        help="linear layers, by the end of their names (projections of the LLM's attention and "
        "MLP, and the MLP of the vision tower)",
    )  # fmt: skip


def _add_training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training")
    length = group.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=positive, default=1, metavar="N", help="(1)")
    length.add_argument("--steps", type=positive, metavar="N", help="in place of epochs")
    group.add_argument("--lr", type=float, default=5e-5, metavar="X", help="AdamW's (5e-5)")
    group.add_argument(
        "--min-lr", type=float, default=1e-6, metavar="X", help="where its cosine ends (1e-6)"
    )
    group.add_argument("--warmup", type=int, default=0, metavar="N", help="steps it rises (0)")
    group.add_argument("--weight-decay", type=float, default=0.01, metavar="X", help="(0.01)")
    group.add_argument(
        "--batch-size", type=positive, metavar="N",
        help="pairs at once on a device, a multiple of --pack (2, or --pack if larger)",
    )  # fmt: skip
    group.add_argument(
        "--accumulate", type=positive, default=1, metavar="N", help="batches a step (1)"
    )
    group.add_argument("--clip", type=float, default=1.0, metavar="X", help="gradient's norm (1)")
    group.add_argument(
        "--pack", type=positive, default=1, metavar="N",
        help="candidates of a query in one sequence, at most: the same answers, with prefix_first "
        "in less time, but a batch then sees fewer queries (1: the method's way)",
    )  # fmt: skip
    group.add_argument(
        "--jitter", type=float, default=0.0, metavar="X",
        help="change light, colour, sharpness and noise of each image by chance, hide a part of "
        "some: 0 (the method) to 1",
    )  # fmt: skip
    group.add_argument("--seed", type=int, default=0, metavar="N", help="(0)")
    group.add_argument("--eval-every", type=positive, metavar="N", help="steps (each epoch)")
    group.add_argument(
        "--val-pairs", type=_count_or_all, metavar="N",
        help="of each validation, spread over queries by seed; all: every pair (a tenth of those "
        "learnt from in all validations together, 200 to 2000 in each)",
    )  # fmt: skip
    group.add_argument(
        "--save-every", type=positive, default=200, metavar="N",
        help="steps between checkpoints (200)",
    )  # fmt: skip


def _add_machine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "machine (several GPUs: accelerate launch -m murank adapt train ...)"
    )
    group.add_argument(
        "--dtype", choices=("auto", "fp32", "bf16"), default="auto",
        help="of the frozen weights (auto: bf16 on a GPU, else fp32)",
    )  # fmt: skip
    group.add_argument(
        "--gradient-checkpointing", action=argparse.BooleanOptionalAction,
        help="less memory for a third more time (on a GPU: yes)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    reading = {"decode_limits": DEFAULT_LIMITS, **reading_of(args)}
    settings = settings_from(TrainSettings, args, **reading)
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise MachineError(
            f"training needs {', '.join(missing)}: on the build machine, {pip_install('export')}"
        )
    from murank_export.adapt.train import train_adapter

    with ProgressLine(quiet=args.quiet) as line:
        trained = train_adapter(settings, noted(line.say), line.part("train"))
    if not _leave_together():
        return 0
    if args.json:
        say_json({"adapter": str(trained.adapter), **trained.to_json()})
    else:
        say(*_summary(trained, settings))
    return 0


def _count_or_all(text: str) -> int | str:
    return text if text == "all" else positive(text)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def _leave_together() -> bool:
    """End what `accelerate launch` began; return whether this is the process that speaks."""
    from accelerate import PartialState  # type: ignore[import-untyped]

    state = PartialState()
    state.destroy_process_group()
    return bool(state.is_main_process)


def _summary(trained: Any, settings: TrainSettings) -> list[str]:
    lines = [f"{trained.adapter}: best of {trained.steps} steps, {trained.seconds:.1f} s"]
    for name in ("before", "best", "last"):
        one = getattr(trained, name)
        lines.append(
            f"  {name:<7} step {one.step:<7} loss {one.loss:.4f}  accuracy {one.accuracy:.4f}  "
            f"AUC {one.auc:.4f}"
        )
    prompt = "" if settings.prompt is None else f" --prompt {settings.prompt}"
    if settings.image_size is not None:
        prompt += " --image-size {}x{}".format(*settings.image_size)
    lines.append(
        f"next: murank export --mllm {settings.mllm} --adapter {trained.adapter} "
        f"--layout {settings.layout}{prompt} -o ENGINE"
    )
    return lines
