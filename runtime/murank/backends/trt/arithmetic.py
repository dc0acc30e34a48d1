"""Which products a GPU has, by its generation: `murank build` and `murank plan` say the same."""

from collections.abc import Mapping

from murank.folder.precision import ARITHMETIC, Precision

_CORES = "its tensor cores multiply fp16 and int8, {precision} came with {least}"
_WHY: Mapping[Precision, str] = {
    "bf16": _CORES,
    "fp8": _CORES,
    "int4": "TensorRT multiplies by {precision} weights from {least} on",
}


def why_not(precision: Precision, compute_capability: str, gpu: str = "this GPU") -> str | None:
    """Return why a GPU ("8.7" is its compute capability) has no plans of it; None if it has."""
    least = ARITHMETIC[precision].least_capability
    if tuple(map(int, compute_capability.split("."))) >= least:
        return None
    why = _WHY.get(precision, "{precision} came with {least}")
    told = why.format(precision=precision, least=".".join(map(str, least)))
    return (
        f"{gpu} (compute capability {compute_capability}) has no {precision} arithmetic: {told}; "
        "use an fp16 or int8-qdq engine"
    )
