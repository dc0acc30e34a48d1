"""What an encoder's file does not say of itself."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EncoderSettings:
    """What a plain ONNX file does not say of itself; None: what the checkpoint says."""

    size: tuple[int, int] | None = None  # height, width
    resample: str | None = None
    mean: tuple[float, float, float] | None = None  # of RGB scaled to [0,1]
    std: tuple[float, float, float] | None = None
    output: str | None = None  # name of the feature output, where there are several
