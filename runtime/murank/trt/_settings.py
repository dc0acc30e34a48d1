"""What `murank build` is asked for, and what of it no plan can be made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from murank._exceptions import InputError, UsageError
from murank.engine.manifest import INTEGER, Manifest, Precision

PlanPart = Literal["encoder", "scorer"]
PARTS: tuple[PlanPart, ...] = get_args(PlanPart)
DTYPES = (*get_args(Precision), "fp8", "int4")
MOST = 4096  # of any free dimension: what the graphs are exported for
_FP8_FROM = (8, 9)


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """How plans are made."""

    dtype: str | None = None  # what the engine's must be; None: any that has plans
    max_queries: int = 1  # in one run of the decoder; more asked at once run one after the other
    candidates: int | None = None  # a query in one run, at most; None: the engine's max_pairs
    parts: tuple[PlanPart, ...] | None = None  # None: all that the engine has
    workspace_mb: int | None = None  # scratch memory of one layer; None: what the GPU has
    tf32: bool = False  # products of float32 in ten bits of mantissa
    timing_cache: Path | None = None  # None: one beside the plans
    rebuild: bool = False  # make plans again that are there and fit

    def __post_init__(self) -> None:
        for name in ("max_queries", "candidates"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MOST:
                raise UsageError(f"{name} must be in 1..{MOST}, got {value}")
        if self.workspace_mb is not None and self.workspace_mb < 1:
            raise UsageError(f"workspace_mb must be at least 1, got {self.workspace_mb}")
        unknown = [] if self.parts is None else [p for p in self.parts if p not in PARTS]
        if unknown or self.parts == ():
            raise UsageError(f"parts must be of {', '.join(PARTS)}, got {self.parts!r}")

    @property
    def flags(self) -> Mapping[str, str | int | None]:
        """What changes a plan besides its shapes."""
        return {"types": "strong", "tf32": self.tf32, "workspace_mb": self.workspace_mb}


def check_dtype(dtype: str | None, compute_capability: str) -> None:
    """Raise UsageError for arithmetic that the GPU lacks, or that no engine has as yet."""
    if dtype == "fp8" and _pair(compute_capability) < _FP8_FROM:
        raise UsageError(
            f"this GPU (compute capability {compute_capability}) has no fp8 arithmetic: its tensor "
            "cores multiply fp16 and int8, fp8 came with 8.9; use an fp16 engine"
        )
    if dtype in ("fp8", "int4"):
        raise UsageError(f"murank export writes no {dtype} engine as yet: use an fp16 engine")


def check_engine_fits(folder: Path, manifest: Manifest, settings: BuildSettings) -> None:
    """Raise InputError for an engine that the plans asked for cannot be made of."""
    has = {"encoder": manifest.encoder, "scorer": manifest.scorer}
    for part in settings.parts or ():
        if has[part] is None:
            raise InputError(f"{folder} has no {part}: export it with one, or do without")
    if settings.dtype not in (None, manifest.precision):
        raise InputError(
            f"{folder} is {manifest.precision}, and an engine has one precision: export it again "
            f"with --dtype {settings.dtype}"
        )
    scorer_wanted = manifest.scorer is not None and "scorer" in (settings.parts or PARTS)
    if manifest.precision in INTEGER and scorer_wanted:
        raise InputError(
            f"{folder} is {manifest.precision}: its graphs hold integer products of onnxruntime "
            "for CPUs, which TensorRT does not take; export with --dtype fp16"
        )


def _pair(compute_capability: str) -> tuple[int, ...]:
    return tuple(map(int, compute_capability.split(".")))
