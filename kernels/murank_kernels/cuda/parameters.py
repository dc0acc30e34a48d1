"""What a kernel takes, checked at each launch, and the words that the GPU is handed of it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_TYPE = re.compile(r"([bif]\d)(\[[:,]*::1\])?")
_NUMBERS: dict[str, type] = {"i8": int, "b1": bool, "f4": np.float32, "f8": float}


@dataclass(frozen=True)
class Parameter:
    """One argument of a kernel: an array in C order, or a number."""

    kind: str  # as Numba writes it
    dtype: np.dtype[Any]
    dimensions: int  # 0: a number

    def fits(self, value: Any, array_type: Any) -> bool:
        """Whether the kernel would read an argument as what it is."""
        if self.dimensions == 0:
            return type(value) is _NUMBERS[self.kind]
        fits: bool = (
            isinstance(value, array_type)
            and value.dtype == self.dtype
            and value.ndim == self.dimensions
            and value.flags.c_contiguous
            and value.size > 0  # an empty array has no address on a GPU
        )
        return fits


def parameters_of(signature: str) -> tuple[Parameter, ...]:
    """Parse what Numba writes as `void(f4[:,::1], i8)`: types in C order only."""
    return tuple(
        Parameter(
            kind + brackets,
            np.dtype("?" if kind == "b1" else kind),
            brackets.count(",") + 1 if brackets else 0,
        )
        for kind, brackets in _TYPE.findall(signature)
    )


def check_arguments(
    name: str, parameters: Sequence[Parameter], arguments: Sequence[Any], array_type: Any
) -> None:
    """Raise TypeError unless arguments have the kernel's types."""
    if len(parameters) != len(arguments):
        raise TypeError(f"{name} takes {len(parameters)} arguments")
    for place, (parameter, value) in enumerate(zip(parameters, arguments, strict=True)):
        if not parameter.fits(value, array_type):
            raise TypeError(f"argument {place} of {name} is not {parameter.kind}")


def as_words(parameters: Sequence[Parameter], arguments: Sequence[Any]) -> list[Any]:
    """Arguments of the compiled kernel, by Numba's rule, which `probe` puts to the test.

    An array is nothing, nothing, its size, bytes of a value, its address, its shape and its strides
    in bytes: int64 each. A number is itself; CuPy hands over an int as int64.
    """
    out: list[Any] = []
    for parameter, value in zip(parameters, arguments, strict=True):
        if parameter.dimensions == 0:
            out.append(np.bool_(value) if parameter.kind == "b1" else value)
            continue
        shape, width = value.shape, parameter.dtype.itemsize
        out += (0, 0, value.size, width, value.data.ptr)
        out += shape
        if parameter.dimensions == 1:
            out.append(width)
        else:
            out += (shape[1] * width, width)
    return out


def word_bits(parameters: Sequence[Parameter]) -> list[int]:
    """Width of each of these words."""
    out: list[int] = []
    for parameter in parameters:
        if parameter.dimensions == 0:
            out.append(8 * parameter.dtype.itemsize)
        else:
            out += [64] * (5 + 2 * parameter.dimensions)
    return out
