"""What a job takes of disk and memory, counted before it is taken."""

import math
import shutil
from pathlib import Path

from murank._exceptions import OutputError
from murank.backends.providers import may_take_gpu
from murank.folder.manifest import ScorerPart
from murank.jobs.lazy_engine import LazyEngine
from murank.machine.driver import has_driver
from murank.machine.memory import available_bytes

_PATH = 150  # bytes of a path and what is kept of its file, about
_DIGEST = 32
_SHARE = 4  # of free memory, for vision tokens
_USUAL_MB = 256


def features_bytes(num_new: int, num_images: int, dim: int) -> int:
    """Return the bytes on disk of new features in the journal, and of features.npz."""
    return num_new * (4 * dim + _DIGEST + _PATH) + num_images * (4 * dim + _PATH)


def mu_bytes(num_new: int, num_pairs: int) -> int:
    """Return the bytes on disk of new mu in the journal, and of the mu files."""
    return num_new * (2 * _DIGEST + 8) + num_pairs * 12


def check_room(folder: Path, size: int) -> None:
    """Raise OutputError unless the disk of a folder, which may be missing yet, has room."""
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if size > free:
        raise OutputError(
            f"{folder}: this stage writes about {_megabytes(size)}, and {_megabytes(free)} are "
            "free; make room, or name a folder on another disk"
        )


def token_bytes(part: ScorerPart) -> int:
    """Return the bytes of one image's vision tokens, at most."""
    return 4 * part.shapes.levels * part.shapes.vision_tokens * part.shapes.hidden


def vision_cache_mb(engine: LazyEngine, num_images: int, processes: int) -> int:
    """Return the memory for vision tokens where nobody said how much: enough for the job's images.

    At most a quarter of what is free, over all processes. On a GPU they lie in its own memory,
    which is not looked at here: the usual size.
    """
    asked = engine.options.get("providers", "auto")
    if may_take_gpu(asked) and (asked != "auto" or has_driver()):
        return _USUAL_MB
    free = available_bytes()
    wanted = num_images * token_bytes(engine.scorer)
    most = wanted if free is None else min(wanted, free // _SHARE // processes)
    return max(1, math.ceil(most / (1 << 20)))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size >= 1e6 else "less than 1 MB"
