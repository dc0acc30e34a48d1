"""Images to features, by the engine's encoder graph."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.backends.load import load_session
from murank.backends.protocol import SessionSettings
from murank.folder.batches import ENCODER_BATCH
from murank.folder.contents import EngineFiles
from murank.folder.manifest import EncoderPart


class NoFeatureError(InputError):
    """An image's feature is no number; `place` is the image's, from 0."""

    def __init__(self, file: Path, place: int, name: object) -> None:
        called = str(name) if isinstance(name, (str, os.PathLike)) else f"image {place}, from 0,"
        super().__init__(
            f"{called}: the encoder gives NaN or infinity for it ({file}); leave the image out, or "
            "export the encoder with another precision"
        )
        self.place = place


class Encoder:
    """The encoder of an engine folder."""

    def __init__(self, files: EngineFiles, part: EncoderPart, settings: SessionSettings) -> None:
        """Load it, and run it once: what it gives is only known then.

        Raises
        ------
        InputError
            It gives something else than the manifest says, or no numbers.
        """
        self.part = part
        self._file = files.folder / part.graph
        # Features of all machines meet in galleries, and cost little.
        self.session = load_session(files, part.graph, replace(settings, products="float32"))
        how = part.preprocessing
        images = {"images": (None, 3, how.height, how.width)}
        self.session.expect(images, {"features": (None, part.dim)})
        self._most = min(self.session.longest("images", 0) or ENCODER_BATCH, ENCODER_BATCH)
        noise = np.random.default_rng(0).integers(
            0, 256, (1, 3, how.height, how.width), dtype=np.uint8
        )
        self.features(noise, ["an image of noise"])

    def features(
        self, pixels: NDArray[np.uint8], names: Sequence[object] = ()
    ) -> NDArray[np.float32]:
        """[B,3,H,W] uint8 -> [B,D] float32, rows of length 1.

        Raises
        ------
        NoFeatureError
            A row holds NaN or infinity: its image is named, where `names` has a path for it.
        """
        parts = [np.empty((0, self.part.dim), np.float32)]
        for start in range(0, len(pixels), self._most):
            some = pixels[start : start + self._most]
            (values,) = self.session.run({"images": some}, ["features"])
            rows: NDArray[np.float32] = values.numpy()
            self._check(rows, len(some))
            bad = ~np.isfinite(rows).all(axis=1)
            if bad.any():
                place = start + int(np.argmax(bad))
                raise NoFeatureError(self._file, place, names[place] if names else None)
            parts.append(rows)
        return np.concatenate(parts)

    def _check(self, rows: NDArray[np.float32], count: int) -> None:
        wanted = (count, self.part.dim)
        if rows.shape != wanted or rows.dtype != np.float32:
            raise InputError(
                f"{self._file} gives features {rows.dtype} {list(rows.shape)} instead of float32 "
                f"{list(wanted)}, as the manifest has it; export the engine again"
            )
