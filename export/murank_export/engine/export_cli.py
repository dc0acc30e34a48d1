"""`murank export`: checkpoints in, engine folder out."""

import argparse
import importlib.util
import resource
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_args

from murank import MachineError
from murank.cli.output import keep_note, say, say_error, say_json
from murank.cli.parser import Parser, positive
from murank.folder.manifest import engine_sha256
from murank.folder.precision import Precision
from murank.machine.library import pip_install
from murank.prompt import LAYOUTS, PromptTemplate
from murank_export.encoders.encoder_settings import COLORS, POOLS
from murank_export.engine.steps import NOTE, Report

T = TypeVar("T")
_NEEDED = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "safetensors")
_FILTERS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")


def parser() -> Parser:
    """Return the parser of this verb."""
    result = Parser(
        prog="murank export",
        description="Export an encoder and an MLLM (LoRA merged) to ONNX: an engine folder that "
        "needs neither torch nor a tokenizer. Checkpoints are local folders; nothing is "
        "downloaded.",
    )
    result.add_argument("-o", "--output", required=True, type=Path, metavar="ENGINE")
    result.add_argument("--overwrite", action="store_true", help="replace an older engine there")
    result.add_argument("--json", action="store_true", help="print the manifest, and notes")
    result.add_argument("--quiet", action="store_true", help="no progress on stderr")
    _add_mllm(result)
    _add_encoder(result)
    return result


def _add_mllm(result: Parser) -> None:
    group = result.add_argument_group("MLLM (Qwen2-VL, Qwen2.5-VL, Qwen3-VL)")
    group.add_argument("--mllm", type=Path, metavar="DIR", help="Hugging Face folder, safetensors")
    group.add_argument(
        "--adapter", type=Path, metavar="DIR|FILE.pth",
        help="LoRA to merge: PEFT folder, or MUSE's file of trainable parameters",
    )  # fmt: skip
    group.add_argument("--lora-alpha", type=float, metavar="X", help="of a .pth (32)")
    group.add_argument("--lora-rank", type=positive, metavar="N", help="of a .pth: checked")
    group.add_argument("--prompt", type=Path, metavar="FILE", help="template (murank's own)")
    group.add_argument("--layout", choices=LAYOUTS, default="paper", help="of the prompt (paper)")
    group.add_argument(
        "--image-size", type=size, metavar="HxW", help="of its images (about 280x140)"
    )
    group.add_argument(
        "--dtype",
        dest="precision",
        choices=get_args(Precision),
        default="fp32",
        help="fp32 (default): anywhere; fp16: GPUs; bf16: GPUs of compute capability 8.0 on, where "
        "activations leave the range of fp16; w8: weights of 8 bits in the file, computed as fp32; "
        "int8: CPUs; w8a16: CPUs, activations of 16 bits: "
        "twice the products of int8, nearly the ranks of fp32; int8-qdq, fp8 (capability 8.9 on), "
        "int4 (weights alone; 8.0 on): TensorRT plans",
    )
    group.add_argument(
        "--portable", action="store_true",
        help="int8, w8a16: for onnxruntime before 1.24 (Python 3.10), a sixth slower",
    )  # fmt: skip
    group.add_argument("--tau", type=float, default=1.0, help="temperature of the answer (1)")
    group.add_argument(
        "--max-pairs", type=positive, default=32, help="pairs in one run of the decoder (32)"
    )
    group.add_argument(
        "--parity-pairs", type=positive, default=8, help="golden pairs, asked of PyTorch (8)"
    )
    group.add_argument(
        "--force", action="store_true", help="allow an adapter of another prompt or base"
    )


def _add_encoder(result: Parser) -> None:
    group = result.add_argument_group("encoder (float32 whatever --dtype is)")
    group.add_argument(
        "--encoder", type=Path, metavar="DIR|FILE.onnx",
        help="Hugging Face or timm folder of a vision model, or ONNX: images [B,3,H,W] -> features",
    )  # fmt: skip
    group.add_argument("--encoder-size", type=size, metavar="HxW", help="(what it says itself)")
    group.add_argument("--encoder-resample", choices=_FILTERS, help="(ONNX: bilinear)")
    group.add_argument("--encoder-mean", type=triple, metavar="R,G,B", help="(ONNX: ImageNet's)")
    group.add_argument("--encoder-std", type=triple, metavar="R,G,B", help="(ONNX: ImageNet's)")
    group.add_argument("--encoder-color", choices=COLORS, help="order that it takes (rgb)")
    group.add_argument("--encoder-output", metavar="NAME", help="where it has several")
    group.add_argument(
        "--encoder-pool", choices=POOLS,
        help="one row of tokens [B,T,D] (cls) or of a map [B,D,H,W]; gem has power 3",
    )  # fmt: skip


def size(text: str) -> tuple[int, int]:
    """Parse HEIGHTxWIDTH."""
    height, _, width = text.partition("x")
    try:
        return positive(height), positive(width)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(
            f"must be HEIGHTxWIDTH, as 280x140; each {error}"
        ) from error


def triple(text: str) -> tuple[float, float, float]:
    """Parse three numbers."""
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError("must be three numbers, as 0.5,0.5,0.5") from error
    return red, green, blue


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise MachineError(
            f"export needs {', '.join(missing)}: on the build machine, "
            f"{pip_install('cpu', 'export')}"
        )
    from murank_export.encoders.encoder_settings import EncoderSettings
    from murank_export.engine.export_engine import export_engine
    from murank_export.engine.export_settings import ExportSettings

    said = {one.name: getattr(args, f"encoder_{one.name}") for one in fields(EncoderSettings)}
    settings = settings_from(ExportSettings, args, encoder_settings=EncoderSettings(**said))
    made = export_engine(settings, noted(_notes if args.quiet else say_error))
    if args.json:
        say_json(made.manifest.to_json())
    else:
        say(*_summary(made))
    return 0


def settings_from(kind: type[T], args: argparse.Namespace, **others: Any) -> T:
    """Fill a dataclass's fields with the options of their names, but for `others`."""
    names = [one.name for one in fields(kind) if one.name not in others]  # type: ignore[arg-type]
    return kind(**{name: getattr(args, name) for name in names}, **others)


def noted(report: Report) -> Report:
    """Keep notes among the lines of a report."""

    def sort_out(text: str) -> None:
        if text.startswith(NOTE):
            keep_note(text.removeprefix(NOTE), shown=True)
        report(text)

    return sort_out


def _notes(text: str) -> None:
    if text.startswith(NOTE):
        say_error(text)


def _summary(made: Any) -> list[str]:
    lines = [f"{made.folder}: {made.manifest.size / 2**20:.1f} MiB"]
    lines.append(f"sha256 {engine_sha256(made.folder)}")
    for name, entry in made.manifest.files.items():
        lines.append(f"  {name:<28} {entry.size / 2**20:10.2f} MiB")
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in made.seconds.items())
    # ru_maxrss is in KiB on Linux.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    lines.append(f"seconds: {seconds}; peak memory {peak:.2f} GiB")
    scorer = made.parity.get("scorer")
    if scorer is not None:
        lines.append(
            f"against PyTorch, {scorer['pairs']} pairs: largest difference of a logit "
            f"{scorer['max_abs_logit']:.1e}, of mu {scorer['max_abs_mu']:.1e}; rank correlation "
            + ("not defined" if scorer["spearman"] is None else f"{scorer['spearman']:.3f}")
        )
        words = PromptTemplate.from_json(made.manifest.scorer.template).answers
        lines.append(
            f'"{words.same}" and "{words.different}" are {scorer["answer_share"]:.2%} of what the '
            "model would say first"
        )
    return lines
