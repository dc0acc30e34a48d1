"""Images to features, by the engine's encoder graph."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from murank.engine.manifest import EncoderPart
from murank.engine.session import SessionSettings, load_session

BATCH = 32  # images in one run


class Encoder:
    """The encoder of an engine folder."""

    def __init__(self, folder: Path, part: EncoderPart, settings: SessionSettings) -> None:
        self.part = part
        self.session = load_session(folder / part.graph, settings)
        how = part.preprocessing
        images = {"images": (None, 3, how.height, how.width)}
        self.session.expect(images, {"features": (None, part.dim)})

    def features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """[B,3,H,W] uint8 -> [B,D] float32, rows of length 1."""
        parts = [np.empty((0, self.part.dim), np.float32)]
        for start in range(0, len(pixels), BATCH):
            (values,) = self.session.run({"images": pixels[start : start + BATCH]}, ["features"])
            parts.append(values.numpy())
        return np.concatenate(parts)
