"""A gallery's images to features: decoded in threads, one block ahead of the encoder."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError
from murank.engine.encoder import Encoder
from murank.folder.batches import ENCODER_BATCH
from murank.images import ImageSource, Preprocessing, ReadyImage, prepare
from murank.images.arguments import check_images, source_name
from murank.machine.cores import decoding_threads
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
    for block in _ready_ahead(images, encoder.part.preprocessing):
        usable, names = [], []
        for place, image in enumerate(block, start=done):
            if isinstance(image, ReadyImage):
                usable.append(image.pixels)
                names.append(images[place])
            elif skip is None:
                raise image
            else:
                skip(place, str(image))
        if usable:
            parts.append(encoder.features(np.stack(usable), names))
        done += len(block)
        if progress is not None:
            progress("images", done, len(images))
    return np.concatenate(parts)


def _ready_ahead(
    images: Sequence[ImageSource], how: Preprocessing
) -> Iterator[list[ReadyImage | InputError]]:
    with ThreadPoolExecutor(decoding_threads()) as pool:
        waiting: deque[list[Future[ReadyImage | InputError]]] = deque()
        for start in range(0, len(images), ENCODER_BATCH):
            some = images[start : start + ENCODER_BATCH]
            named = enumerate(some, start)
            waiting.append([pool.submit(_ready, image, how, place) for place, image in named])
            if len(waiting) > 1:
                yield [image.result() for image in waiting.popleft()]
        for block in waiting:
            yield [image.result() for image in block]


def _ready(image: ImageSource, how: Preprocessing, place: int) -> ReadyImage | InputError:
    try:
        return prepare(image, how, name=source_name(image, f"images[{place}]"))
    except InputError as error:
        return error.with_traceback(None)  # which would keep the whole image
