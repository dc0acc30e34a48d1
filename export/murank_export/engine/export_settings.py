"""What to export, and how."""

from dataclasses import dataclass, field
from pathlib import Path

from murank.folder.precision import Precision
from murank.prompt import Layout
from murank_export.encoders.encoder_settings import EncoderSettings


@dataclass(frozen=True)
class ExportSettings:
    """What to export, and how."""

    output: Path
    mllm: Path | None = None
    adapter: Path | None = None  # PEFT folder, or MUSE .pth
    lora_alpha: float | None = None  # for a .pth
    lora_rank: int | None = None
    prompt: Path | None = None  # template file; None: murank's own
    layout: Layout = "paper"
    image_size: tuple[int, int] | None = None  # height, width of the MLLM's images
    precision: Precision = "fp32"
    portable: bool = False  # int8 and w8a16 for onnxruntime before 1.24; all others are
    tau: float = 1.0
    max_pairs: int = 32
    parity_pairs: int = 8
    encoder: Path | None = None  # .onnx file or Hugging Face folder
    encoder_settings: EncoderSettings = field(default_factory=EncoderSettings)
    force: bool = False  # an adapter of another prompt or base
    overwrite: bool = False
