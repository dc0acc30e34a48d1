"""What onnxruntime says when it fails, in one sentence that says what to do."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from murank._exceptions import InputError, MachineError
from murank.backends.memory_errors import (
    NO_MEMORY,
    no_memory_to_load,
    no_memory_to_run,
    ran_out,
)
from murank.backends.providers import CPU, name_of

_FAULT = re.compile(r"\b(?:cuda|cublas|cudnn)\w* (?:failure|error)\b|enqueue failed", re.IGNORECASE)
_HOST = re.compile(r"\bhostname=\S*\s*;?\s*")  # which CUDA's errors give away
# Of operators, files and operator sets that are newer than it.
_TOO_NEW = re.compile(
    r"find an implementation for|Unsupported model IR version|guarantees\W+ support for models",
    re.IGNORECASE,
)
_SHOWN = 300  # characters


def message_of(error: Exception) -> str:
    """Return what it says on one line, not too long, without the machine's name.

    A fault of CUDA stands behind a long signature of C++: what is shown begins with the cause.
    """
    text = _whole(error)
    causes = [match for match in (_FAULT.search(text), NO_MEMORY.search(text)) if match]
    start = min((match.start() for match in causes), default=0)
    if all(match.end() <= _SHOWN for match in causes):
        start = 0
    return text[start : start + _SHOWN]


def is_fault(error: Exception) -> bool:
    """Whether the GPU failed, so that nothing in this process can use it any more."""
    text = _whole(error)
    return _FAULT.search(text) is not None and NO_MEMORY.search(text) is None


def _whole(error: Exception) -> str:
    return _HOST.sub("", " ".join(str(error).split()))


def load_error(file: Path, asked: Sequence[Any], error: Exception, version: str) -> Exception:
    """Return what to raise when a graph could not be loaded with these providers."""
    if _TOO_NEW.search(_whole(error)):
        return MachineError(
            f"{file} holds what onnxruntime {version} does not run, and a newer one may: pip "
            "install -U onnxruntime (or onnxruntime-gpu; Python 3.10 has none from 1.24 on). An "
            "MLLM in int8 or w8a16 runs on older ones, too, after murank export with --portable: "
            f"{message_of(error)}"
        )
    named = {name_of(one) for one in asked}
    if named - {CPU}:
        return MachineError(
            f"{file} could not be loaded with {', '.join(sorted(named))}: {message_of(error)}"
        )
    if ran_out(error):
        return no_memory_to_load(file, message_of(error))
    return InputError(f"{file} could not be loaded by onnxruntime: {message_of(error)}")


def run_error(file: Path, shapes: Sequence[str], error: Exception) -> Exception:
    """Return what to raise when a run on inputs of these shapes failed."""
    text = message_of(error)
    if is_fault(error):
        told = ", ".join(shapes)[:_SHOWN]
        return MachineError(
            f"{file}: the GPU failed while it ran this graph on {told}; start again in a new "
            f"process, and if it fails again see `murank doctor`: {text}"
        )
    if ran_out(error) or "alloc" in text.lower():
        return no_memory_to_run(file, text)
    return InputError(f"{file} could not be run: {text}")
