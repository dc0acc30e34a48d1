"""Whether a gallery fits into memory, before anything is drawn or loaded."""

from murank._exceptions import InputError
from murank.bench.bench_settings import BenchSettings
from murank.folder.manifest import Manifest

# Features are there three times: as they are made up, as the kernels keep them, and once more while
# either is going on. Beside them the kernels' lists and the names of the images. Measured.
_COPIES, _FLOAT = 3, 4
_LISTS = 288  # bytes an image
_GIB = 1 << 30


def gallery_bytes(manifest: Manifest, gallery_size: int) -> int:
    """Memory that a gallery takes at most while it is made ready; 0 if nothing is retrieved."""
    if manifest.encoder is None:
        return 0
    return gallery_size * (_COPIES * _FLOAT * manifest.encoder.dim + _LISTS)


def check_room(manifest: Manifest, settings: BenchSettings, available: int | None) -> None:
    """Raise InputError if the gallery needs more than `available` bytes; None: nobody knows."""
    needed = gallery_bytes(manifest, settings.gallery_size)
    if available is not None and needed > available:
        raise InputError(
            f"a gallery of {settings.gallery_size} images takes about {needed / _GIB:.1f} GiB, and "
            f"{available / _GIB:.1f} GiB are free: pass a smaller --gallery-size"
        )
