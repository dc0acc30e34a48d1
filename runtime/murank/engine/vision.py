"""Images to vision tokens: computed once an image, then remembered."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank.engine.cache import DiskCache, Key, MemoryCache, content_key
from murank.engine.manifest import ScorerPart
from murank.engine.session import Session, SessionSettings

BATCH = 8  # images in one run: enough to fill the cores, few enough to keep activations small


class VisionTokens:
    """The vision tower of an engine folder with its caches."""

    def __init__(
        self,
        folder: Path,
        part: ScorerPart,
        settings: SessionSettings,
        *,
        dtype: np.dtype[Any],
        memory: MemoryCache,
        disk: DiskCache | None,
    ) -> None:
        shapes = part.shapes
        self.shape = (shapes.levels, shapes.vision_tokens, shapes.hidden)
        self.dtype = dtype
        self.session = Session(folder / part.vision, settings)
        how = part.preprocessing
        images = {"images": (None, 3, how.height, how.width)}
        self.session.expect(images, {"tokens": (None, *self.shape)})
        self._memory, self._disk = memory, disk

    def of(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[Any]:
        """Images [3,H,W] each -> [n,levels,T,H]; equal images are computed once."""
        keys = [content_key(image) for image in pixels]
        found: dict[Key, NDArray[Any]] = {}
        missing: dict[Key, NDArray[np.uint8]] = {}
        for key, image in zip(keys, pixels, strict=True):
            if key not in found and key not in missing:
                values = self._remembered(key)
                if values is None:
                    missing[key] = image
                else:
                    found[key] = values
        found |= self._computed(missing)
        tokens = np.empty((len(keys), *self.shape), self.dtype)
        for row, key in enumerate(keys):
            tokens[row] = found[key]
        return tokens

    def _remembered(self, key: Key) -> NDArray[Any] | None:
        values: NDArray[Any] | None = self._memory.get(key)
        if values is None and self._disk is not None:
            values = self._disk.get(key, self.shape, self.dtype)
            if values is not None:
                self._memory.put(key, values, values.nbytes)
        return values

    def _computed(self, missing: dict[Key, NDArray[np.uint8]]) -> dict[Key, NDArray[Any]]:
        computed: dict[Key, NDArray[Any]] = {}
        keys = list(missing)
        for start in range(0, len(keys), BATCH):
            part = keys[start : start + BATCH]
            images = np.stack([missing[key] for key in part])
            (tokens,) = self.session.run({"images": images}, ["tokens"])
            # A copy each: a view would keep the whole batch alive for as long as one is cached.
            for key, values in zip(part, tokens.numpy(), strict=True):
                computed[key] = values.copy()
                self._memory.put(key, computed[key], values.nbytes)
                if self._disk is not None:
                    self._disk.put(key, values)
        return computed
