"""Whether a loaded graph is the one that the manifest tells of, by its inputs and outputs."""

from collections.abc import Mapping
from pathlib import Path

from murank._exceptions import InputError
from murank.backends.protocol import Shape


def check_shapes(file: Path, has: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> None:
    """Raise InputError unless tensors of these names and shapes are there (None: any length)."""
    for name, shape in wanted.items():
        if name not in has or not _fits(has[name], shape):
            raise InputError(
                f"{file}: {name} is {has.get(name, 'missing')}, which does not fit the manifest's "
                f"{shape}; export the engine again"
            )


def _fits(lengths: Shape, wanted: Shape) -> bool:
    """Whether fixed lengths of a graph's shape are those wanted."""
    return len(lengths) == len(wanted) and all(
        have == want
        for have, want in zip(lengths, wanted, strict=True)
        if have is not None and want is not None
    )
