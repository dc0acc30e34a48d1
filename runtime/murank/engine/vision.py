"""Images to vision tokens: computed once an image, then remembered."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.backends.device_rows import HostRow, device_rows
from murank.backends.load import load_session
from murank.backends.protocol import Memory, SessionSettings
from murank.engine.disk_cache import DiskCache
from murank.engine.memory_cache import (
    Key,
    MemoryCache,
    ShownImage,
    content_key,
    pixels_of_shown,
)  # fmt: skip
from murank.folder.batches import VISION_BATCH
from murank.folder.contents import EngineFiles
from murank.folder.manifest import ScorerPart


class VisionTokens:
    """The vision tower of an engine folder with its caches."""

    def __init__(
        self,
        files: EngineFiles,
        part: ScorerPart,
        settings: SessionSettings,
        *,
        dtype: np.dtype[Any],
        taker: Memory,
        memory: MemoryCache,
        disk: DiskCache | None,
        in_flight: int = VISION_BATCH,
    ) -> None:
        """Load it.

        `taker` is where the tokens go; `in_flight` are the images that one call may need beside
        those in the cache, at most.
        """
        shapes = part.shapes
        self.shape = (shapes.levels, shapes.vision_tokens, shapes.hidden)
        self.dtype = dtype
        self.file = files.folder / part.vision
        self.session = load_session(files, part.vision, settings)
        how = part.preprocessing
        images = {"images": (None, 3, how.height, how.width)}
        self.session.expect(images, {"tokens": (None, *self.shape)})
        self._memory, self._disk = memory, disk
        self.looked_up, self.computed = 0, 0  # images, since it was loaded
        self._image_bytes = math.prod(self.shape) * dtype.itemsize
        count = memory.budget // self._image_bytes + in_flight
        self._rows = device_rows(
            self.session, taker, output="tokens", count=count, shape=self.shape, dtype=dtype
        )

    def of(self, pixels: Sequence[ShownImage]) -> NDArray[Any]:
        """Images [3,H,W] each -> [n,levels,T,H]; equal images are computed once.

        Raises NotKeptError if the tokens of a KeptImage are kept no more.

        On a GPU tokens stay there: an object array [n] of rows (see `device_rows`), of which the
        decoder takes any arrangement.
        """
        keys = [content_key(image) for image in pixels]
        tokens_of: dict[Key, Any] = {}
        missing: dict[Key, ShownImage] = {}
        for key, image in zip(keys, pixels, strict=True):
            if key not in tokens_of and key not in missing:
                values = self._remembered(key)
                if values is None:
                    missing[key] = image
                else:
                    tokens_of[key] = values
        self.looked_up += len(tokens_of) + len(missing)
        self.computed += len(missing)
        tokens_of |= self._computed(missing)
        tokens = (
            np.empty((len(keys), *self.shape), self.dtype)
            if self._rows is None
            else np.empty(len(keys), object)
        )
        for row, key in enumerate(keys):
            tokens[row] = tokens_of[key]
        return tokens

    def keep(self, key: Key, values: NDArray[Any]) -> Any:
        """Keep tokens [levels,T,H] that were computed earlier, and return what passes for them."""
        (kept,) = self._kept([key], values[None])
        return kept

    def _remembered(self, key: Key) -> Any:
        """Return the tokens [levels,T,H] of an image, a row where they are rows, or None."""
        values = self._memory.get(key)
        if values is None and self._disk is not None:
            read = self._disk.get(key, self.shape, self.dtype, made_by=self.session.providers)
            if read is not None:
                (values,) = self._kept([key], read[None])
        return values

    def _computed(self, missing: dict[Key, ShownImage]) -> dict[Key, Any]:
        computed: dict[Key, Any] = {}
        keys = list(missing)
        for start in range(0, len(keys), VISION_BATCH):
            part = keys[start : start + VISION_BATCH]
            images = np.stack([pixels_of_shown(missing[key]) for key in part])
            (tokens,) = self.session.run({"images": images}, ["tokens"])
            on_host = tokens.numpy() if self._rows is None or self._disk is not None else None
            wanted = (len(images), *self.shape)
            if on_host is not None and on_host.shape != wanted:
                raise InputError(
                    f"{self.file} gives vision tokens {list(on_host.shape)} of {len(images)} "
                    f"images instead of {list(wanted)}; export the engine again"
                )
            kept = self._kept(part, on_host if self._rows is None else tokens)
            computed |= zip(part, kept, strict=True)
            if self._disk is not None and on_host is not None:
                for key, values in zip(part, on_host, strict=True):
                    if np.isfinite(values).all():  # what a GPU once got wrong must not stay
                        self._disk.put(key, values, made_by=self.session.providers)
        return computed

    def _kept(self, keys: Sequence[Key], batch: Any) -> list[Any]:
        """Return the images of a batch in the form they are kept in, and keep them."""
        if self._rows is None:
            # Copies: a view would keep the whole batch alive for as long as one is cached.
            kept = [values.copy() for values in batch]
        else:
            kept = self._rows.put(batch, len(keys))
        for key, values in zip(keys, kept, strict=False):
            self._memory.put(key, values, self._image_bytes)
        if len(kept) < len(keys):  # more calls at once than there is room for
            host = batch if isinstance(batch, np.ndarray) else batch.numpy()
            kept += [HostRow(host[number].copy()) for number in range(len(kept), len(keys))]
        return kept
