"""Where TensorRT plans of an engine are kept: plans are code, and the place vouches for them.

That is the user's own cache folder, unless another one is named, such as an image for equal boards.
"""

import hashlib
import os
from pathlib import Path

from murank._exceptions import MachineError
from murank.files.json_object import write_json
from murank.folder.manifest import Manifest

_DIGITS = 16  # of the engine's hash, in the name of the folder of its plans


def files_sha256(manifest: Manifest) -> str:
    """Return the hash of all files of an engine; its calibration is none of them."""
    entries = {name: manifest.files[name].to_json() for name in sorted(manifest.files)}
    return hashlib.sha256(write_json(entries)).hexdigest()


def plans_of(manifest: Manifest, plans: Path | None = None) -> Path:
    """Return the folder of an engine's plans, which may be missing: in it one for each target.

    `plans` is the folder of those of all engines; None: in the user's cache folder.

    Raises
    ------
    MachineError
        This user has none.
    """
    return (_in_cache() if plans is None else plans) / files_sha256(manifest)[:_DIGITS]


def has_plans(manifest: Manifest, plans: Path | None = None) -> bool:
    """Whether any were built of an engine, for whatever target."""
    try:
        return os.path.isdir(plans_of(manifest, plans))  # noqa: PTH112 - False where it is closed
    except MachineError:
        return False


def _in_cache() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        root = cache if cache.is_absolute() else Path.home() / ".cache"
    except RuntimeError as error:
        raise MachineError(
            "this user has no home folder to keep plans in: set XDG_CACHE_HOME, or name a folder "
            "(plans=)"
        ) from error
    return root / "murank" / "plans"
