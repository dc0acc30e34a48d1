"""A gallery's images to features: decoded in threads, one block ahead of the encoder."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.engine.encoder import Encoder
from murank.folder.batches import ENCODER_BATCH
from murank.images import ImageSource, ReadyImage
from murank.images.ahead import ready_ahead
from murank.images.arguments import check_images
from murank.rerank.methods import Progress

Skip = Callable[[int, str], None]  # place and reason of an image that cannot be used


def embed_images(
    encoder: Encoder,
    images: Sequence[ImageSource],
    *,
    progress: Progress | None = None,
    skip: Skip | None = None,
) -> NDArray[np.float32]:
    """Return the features [n,D] of a gallery, in its order.

    Parameters
    ----------
    encoder, images
        What embeds them, and any number of images; a few are in memory at a time.
    progress
        Called as ("images", done, total).
    skip
        Told of each image that cannot be used; it gets no row. None: such an image is an error.

    Raises
    ------
    InputError
        An image cannot be used (it is named), and `skip` is None.
    """
    check_images(images, "images")
    parts = [np.empty((0, encoder.part.dim), np.float32)]
    done = 0
    starts = range(0, len(images), ENCODER_BATCH)
    blocks = (images[start : start + ENCODER_BATCH] for start in starts)
    for block in ready_ahead(blocks, encoder.part.preprocessing):
        usable, names = [], []
        for place, image in enumerate(block, start=done):
            if isinstance(image, ReadyImage):
                usable.append(image.pixels)
                names.append(images[place])
            elif skip is None:
                raise InputError(image.reason)
            else:
                skip(place, image.reason)
        if usable:
            parts.append(encoder.features(np.stack(usable), names))
        done += len(block)
        if progress is not None:
            progress("images", done, len(images))
    return np.concatenate(parts)
