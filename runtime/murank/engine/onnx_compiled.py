"""Whether an ONNX file holds code for one device instead of operators."""

import mmap
from pathlib import Path

from murank._exceptions import InputError

_COMPILED = b"EPContext"


def refuse_compiled(file: Path) -> None:
    """Raise InputError if a node is code for one device, which a provider would run as it is."""
    try:
        with (
            file.open("rb") as opened,
            mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            compiled = content.find(_COMPILED) >= 0
    except (OSError, ValueError):  # missing or empty: onnxruntime will say so
        return
    if compiled:
        raise InputError(
            f"{file} holds a node compiled for one device ({_COMPILED.decode()}), which is not "
            "run on trust: export the engine again"
        )
