"""Files as contents: read once, known by the sha256 of their bytes."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from murank._exceptions import InputError
from murank.checks.text import plain
from murank.images import DecodeLimits, Preprocessing, ReadyImage, prepare
from murank.images.decode import read_file
from murank.journal.journal import Digest
from murank.machine.cores import decoding_threads

IMAGE = "<image>"  # stands for its path in reasons, which are of a content
_AT_ONCE = 256  # files


@dataclass(frozen=True)
class NoContent:
    """A file that cannot be read."""

    reason: str


@dataclass(frozen=True)
class Content:
    """What a file holds, decoded unless that was not wanted."""

    digest: Digest
    ready: ReadyImage | None
    refused: str | None = None  # why it is no image; IMAGE stands for its path


def read_content(
    path: Path, how: Preprocessing, *, expected: Digest | None = None
) -> Content | NoContent:
    """Read and decode a file; it must still have the content that is expected."""
    try:
        raw = read_file(path, how.limits)
    except InputError as error:
        return NoContent(str(error))
    digest = hashlib.sha256(raw).digest()
    if expected is not None and digest != expected:
        return NoContent(f"{path} was changed during the run; run it again")
    name = str(path)  # begins each message, be it logged or raised
    try:
        return Content(digest, prepare(raw, how, name=name))
    except InputError as error:  # not kept itself: its traceback would keep the whole image
        return Content(digest, None, IMAGE + plain(error.args[0].removeprefix(name)))


def digests_of(
    paths: Sequence[Path], limits: DecodeLimits
) -> Iterator[tuple[Path, Digest | NoContent]]:
    """Read files for their contents alone, in order."""

    def digest(path: Path) -> Digest | NoContent:
        try:
            return hashlib.sha256(read_file(path, limits)).digest()
        except InputError as error:
            return NoContent(str(error))

    waiting = iter(paths)
    with ThreadPoolExecutor(decoding_threads()) as pool:
        while some := list(islice(waiting, _AT_ONCE)):
            yield from zip(some, pool.map(digest, some), strict=True)


def shown(reason: str, path: object) -> str:
    """Return a reason with the path in its place."""
    return reason.replace(IMAGE, str(path))
