"""How a folder says that images are prepared, whichever version of transformers wrote it."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from murank import InputError
from murank_export.sources.loading import read_json

_BYTE = 1 / 255
_OWN, _OF_ALL = "preprocessor_config.json", "processor_config.json"


def read_image_processor(folder: Path, deciding: Sequence[str]) -> tuple[Path, dict[str, Any]]:
    """Return the file that says it, and what; nothing if none does.

    transformers 5 writes it into the file of the whole processor.

    Raises
    ------
    InputError
        What is `deciding` is said twice, and not alike; or pixels are scaled to another range.
    """
    own, of_all = folder / _OWN, folder / _OF_ALL
    said = read_json(own) if own.exists() else {}
    within = read_json(of_all).get("image_processor", {}) if of_all.exists() else {}
    if not isinstance(within, dict):
        raise InputError(f"{of_all} must hold an object as image_processor")
    for name in deciding:
        if name in said and name in within and said[name] != within[name]:
            raise InputError(
                f"{own} and {of_all.name} differ in {name}: remove the one that is wrong"
            )
    file, config = of_all if within else own, {**said, **within}
    scale = config.get("rescale_factor", _BYTE)
    if not isinstance(scale, int | float) or not math.isclose(scale, _BYTE, rel_tol=1e-6):
        raise InputError(f"{file}: rescale_factor is {scale!r}; murank scales pixels by 1/255")
    return file, config
