"""Whether a library ran out of memory, which is no fault of a graph or an image."""

import re
from pathlib import Path

from murank._exceptions import MachineError

NO_MEMORY = re.compile(
    r"out of memory|alloc_failed|(?:failed|cannot) (?:to )?alloc|bad_?alloc", re.IGNORECASE
)


def ran_out(error: Exception) -> bool:
    """Whether that was it."""
    return isinstance(error, MemoryError) or NO_MEMORY.search(str(error)) is not None


def no_memory_to_load(file: Path, told: str) -> MachineError:
    """Return what to raise where there was too little to load a graph."""
    return MachineError(
        f"{file}: out of memory while it was loaded; free some, or run murank export with a "
        f"smaller --dtype: {told}"
    )


def no_memory_to_run(file: Path, told: str) -> MachineError:
    """Return what to raise where there was too little to run a graph."""
    return MachineError(f"{file}: out of memory; pass a smaller max_pairs, or free some: {told}")
