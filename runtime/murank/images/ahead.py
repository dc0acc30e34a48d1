"""Images decoded and resized in threads, one batch ahead of the one in work."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count

from murank._exceptions import InputError
from murank.images.arguments import source_name
from murank.images.preprocess import ImageSource, Preprocessing, ReadyImage, prepare
from murank.machine.cores import decoding_threads


@dataclass(frozen=True)
class Unreadable:
    """Stands where an image cannot be used."""

    reason: str  # names the image


def ready_ahead(
    batches: Iterable[Sequence[ImageSource]], how: Preprocessing
) -> Iterator[list[ReadyImage | Unreadable]]:
    """Decode and resize batches of images; one that is no path is called images[its place].

    No more images are whole in memory than there are threads: one may have 150 MB.
    """
    places = count()
    with ThreadPoolExecutor(decoding_threads()) as pool:
        waiting: deque[list[Future[ReadyImage | Unreadable]]] = deque()
        for batch in batches:
            waiting.append([pool.submit(_ready, image, how, next(places)) for image in batch])
            if len(waiting) > 1:
                yield [image.result() for image in waiting.popleft()]
        for images in waiting:
            yield [image.result() for image in images]


def _ready(image: ImageSource, how: Preprocessing, place: int) -> ReadyImage | Unreadable:
    try:
        return prepare(image, how, name=source_name(image, f"images[{place}]"))
    except InputError as error:  # not kept itself: its traceback would keep the whole image
        return Unreadable(str(error))
