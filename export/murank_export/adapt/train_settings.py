"""What to train on, and how."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from murank import InputError
from murank.images import DEFAULT_LIMITS, DecodeLimits, check_bits
from murank.prompt import Layout

Dtype = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class TrainSettings:
    """What to train on, and how. Defaults are the method's, or ours where it names none (ours).

    Raises InputError for values that cannot be.
    """

    mllm: Path  # Hugging Face folder
    pairs: Path  # folder with train.json and val.json
    output: Path
    image_root: Path = Path()  # where relative paths of the pairs begin
    layout: Layout = "paper"
    prompt: Path | None = None  # template file; None: murank's own
    image_size: tuple[int, int] | None = None  # height, width
    init_adapter: Path | None = None  # PEFT folder to go on from
    rank: int | None = None  # None: that of init_adapter, or 16
    alpha: float | None = None  # None: that of init_adapter, or 32
    targets: tuple[str, ...] | None = None  # None: those of init_adapter, or the method's
    dropout: float = 0.05
    epochs: int = 1  # ours
    steps: int | None = None  # in place of epochs
    lr: float = 5e-5
    min_lr: float = 1e-6  # where the cosine ends
    warmup: int = 0  # ours; steps in which the learning rate rises
    weight_decay: float = 0.01  # ours: AdamW's in PyTorch
    batch_size: int | None = None  # pairs at once on a device; None: 2, or pack if larger
    accumulate: int = 1  # batches a step
    clip: float = 1.0  # ours; largest norm of the gradient
    pack: int = 1  # candidates of a query in one sequence, at most
    jitter: float = 0.0  # ours: how far images are changed in light, colour, sharpness; 0: not
    seed: int = 0
    dtype: Dtype = "auto"  # of the frozen weights: bf16 on GPUs, fp32 elsewhere
    gradient_checkpointing: bool | None = None  # None: on GPUs
    eval_every: int | None = None  # steps; None: each epoch
    # Of each validation, chosen by seed; None: a tenth of those learnt from, in all validations.
    val_pairs: int | Literal["all"] | None = None
    save_every: int = 200  # steps between checkpoints
    overwrite: bool = False  # a finished training, or one of other settings
    bits: int | None = None  # of 16-bit grey images, as `load_image` takes it
    decode_limits: DecodeLimits = DEFAULT_LIMITS

    def __post_init__(self) -> None:
        check_bits(self.bits)
        for name in ("epochs", "accumulate", "pack", "save_every"):
            _at_least_one(name, getattr(self, name))
        for name in ("rank", "steps", "batch_size", "eval_every", "val_pairs"):
            if not isinstance(getattr(self, name), str | None):
                _at_least_one(name, getattr(self, name))
        if isinstance(self.val_pairs, str) and self.val_pairs != "all":
            raise InputError(f"val_pairs must be a number or 'all', got {self.val_pairs!r}")
        for name in ("lr", "clip", "alpha"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} must be above 0 and finite, got {value}")
        if not 0 <= self.min_lr <= self.lr:
            raise InputError(f"min_lr must be in 0..lr, got {self.min_lr} with lr {self.lr}")
        if not 0 <= self.weight_decay < math.inf:
            raise InputError(f"weight_decay must be at least 0, got {self.weight_decay}")
        if not 0 <= self.jitter <= 1:
            raise InputError(f"jitter must be in 0..1, got {self.jitter}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout must be at least 0 and below 1, got {self.dropout}")
        if self.warmup < 0 or self.seed < 0:
            raise InputError("warmup and seed must be at least 0")
        if self.targets is not None and not (self.targets and all(self.targets)):
            raise InputError("targets must name at least one module")
        if self.batch_size is not None and self.batch_size % self.pack:
            raise InputError(
                f"batch_size {self.batch_size} is no multiple of pack {self.pack}: a batch is "
                "made of whole sequences"
            )

    @property
    def groups_at_once(self) -> int:
        """Sequences of a batch on a device."""
        return (self.batch_size or max(2, self.pack)) // self.pack

    def deciding(self) -> dict[str, Any]:
        """Return what decides the outcome, JSON-ready; files are told apart by their hashes."""
        names = (
            "layout", "image_size", "dropout", "epochs", "steps", "lr", "min_lr", "warmup",
            "weight_decay", "groups_at_once", "accumulate", "clip", "pack", "jitter", "seed",
            "eval_every", "val_pairs",
        )  # fmt: skip
        found = {name: getattr(self, name) for name in names}
        found["image_size"] = None if self.image_size is None else list(self.image_size)
        return found if self.bits is None else {**found, "bits": self.bits}


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise InputError(f"{name} must be at least 1, got {value}")
