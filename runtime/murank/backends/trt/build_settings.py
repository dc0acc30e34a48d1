"""What `murank build` is asked for, and what of it no plan can be made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from murank._exceptions import InputError, UsageError
from murank.backends.trt.arithmetic import why_not
from murank.folder.manifest import Manifest
from murank.folder.precision import Precision

PlanPart = Literal["encoder", "scorer"]
PARTS: tuple[PlanPart, ...] = get_args(PlanPart)
DTYPES = get_args(Precision)
MOST = 4096  # of any free dimension: what the graphs are exported for


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """How plans are made."""

    dtype: Precision | None = None  # what the engine's must be; None: any that has plans
    max_queries: int = 1  # in one run of the decoder; more asked at once run one after the other
    candidates: int | None = None  # a query in one run, at most; None: the engine's max_pairs
    parts: tuple[PlanPart, ...] | None = None  # None: all that the engine has
    workspace_mb: int | None = None  # scratch memory of one layer; None: what the GPU has
    tf32: bool = False  # products of float32 in ten bits of mantissa
    timing_cache: Path | None = None  # None: one beside the plans
    rebuild: bool = False  # make plans again that are there and fit
    plans: Path | None = None  # where those of all engines are kept; None: in the user's cache

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


def check_dtype(dtype: Precision | None, compute_capability: str) -> None:
    """Raise UsageError for arithmetic that the GPU lacks."""
    reason = None if dtype is None else why_not(dtype, compute_capability)
    if reason is not None:
        raise UsageError(reason)


def check_engine_fits(
    folder: Path, manifest: Manifest, settings: BuildSettings, compute_capability: str | None
) -> None:
    """Raise InputError for an engine that the plans asked for cannot be made of on a GPU.

    Without a compute capability: on any; the dtype asked for is judged when the GPU is known.
    """
    has = {"encoder": manifest.encoder, "scorer": manifest.scorer}
    for part in settings.parts or ():
        if has[part] is None:
            raise InputError(f"{folder} has no {part}: export it with one, or do without")
    precision = manifest.precision
    if settings.dtype not in (None, precision) and compute_capability is not None:
        raise InputError(
            f"{folder} is {precision}, and an engine has one precision: run murank export again "
            f"with --dtype {settings.dtype}"
        )
    if manifest.scorer is None or "scorer" not in (settings.parts or PARTS):
        return  # an encoder is in floats, whatever the precision
    if "plans" not in manifest.arithmetic.backends:
        raise InputError(
            f"{folder} is {precision}: its graphs hold integer products of onnxruntime for CPUs, "
            "which TensorRT does not take; run murank export with --dtype int8-qdq (or fp16)"
        )
    if compute_capability is None:
        return
    reason = why_not(precision, compute_capability)
    if reason is not None:
        raise InputError(f"{folder} is {precision}, and {reason}")
