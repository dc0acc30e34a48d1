"""What an encoder's file does not say of itself."""

from dataclasses import dataclass

COLORS = ("rgb", "bgr")
POOLS = ("cls", "avg", "max", "gem")


@dataclass(frozen=True)
class EncoderSettings:
    """What a plain ONNX file does not say of itself; None: what the checkpoint says."""

    size: tuple[int, int] | None = None  # height, width
    resample: str | None = None
    mean: tuple[float, float, float] | None = None  # of RGB scaled to [0,1]
    std: tuple[float, float, float] | None = None
    color: str | None = None  # one of COLORS: the order that the graph takes
    output: str | None = None  # name of the feature output, where there are several
    pool: str | None = None  # one of POOLS: what becomes of tokens or a map
