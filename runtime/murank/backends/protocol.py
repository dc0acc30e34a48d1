"""What the parts of an engine ask of a loaded graph, whatever runs it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from murank.backends.providers import Providers

Shape = tuple[int | None, ...]
# What factors are rounded to before they are multiplied; OpenVINO's to choose.
Products = Literal["float32", "bf16", "fp16"]
Memory = tuple[str, str, int]  # library, "cpu" or "cuda", which GPU


@dataclass(frozen=True)
class SessionSettings:
    """How graphs are run."""

    # Or cpu, cuda, tensorrt, tensorrt-plans, openvino, openvino:DEVICE, or onnxruntime's list.
    # "auto" is CUDA where this onnxruntime has it; whether it works, `murank.backends.choose` sees
    # to for whole engines.
    providers: Providers = "auto"
    threads: int | None = None  # of one operator; None: the cores that this process may use
    plans: Path | None = None  # see murank.backends.plan_folder
    products: Products = "float32"  # of the MLLM's graphs, with OpenVINO; an encoder's are float32
    optimise: bool = True  # False: node by node, as the graph is written (onnxruntime)


@dataclass(frozen=True)
class Place:
    """Where an output goes."""

    address: int  # on the device, of memory that is large enough
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class RowBlock(Protocol):
    """Rows of one shape and type in one piece of a session's memory, by their place.

    Calls from several threads are safe as long as nobody writes a place that is written or
    gathered at the same time: whoever hands out places sees to that.
    """

    def write(self, place: int, batch: Any, number: int, count: int = 1) -> None:
        """Copy rows `number` to `number + count - 1` of `batch` into the places from `place` on.

        `batch` [n,*shape] is an array, or a value of this session's memory. Whoever gathers after
        the return finds the rows there; `batch` may go then.
        """

    def gathered(self, places: NDArray[np.int64]) -> Any:
        """Return the rows at places [q,k] as a value [q,k,*shape] of this session's memory.

        The value is a copy: what is written afterwards does not change it.
        """


class GraphSession(Protocol):
    """A loaded graph. Calls from several threads are safe."""

    providers: list[str]  # what runs it, first choice first
    device: str  # "cpu" or "cuda": where outputs lie

    @property
    def memory(self) -> Memory:
        """Where outputs lie; a session takes values of others whose memory is equal to its own."""

    def expect(self, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]) -> None:
        """Raise InputError unless the graph has these, with these shapes (None: any length)."""

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str]) -> list[Any]:
        """Run it on arrays or values of the device; return values that stay there.

        A value has `numpy()`, which returns a copy on the host.
        """

    def longest(self, name: str, axis: int) -> int | None:
        """Return how long an input's axis may be in one run; None: as memory allows."""

    def to_device(self, array: NDArray[Any], name: str | None = None) -> Any:
        """Return the array as a value on the device.

        It has the array's type; but with the `name` of an input that is bfloat16, which NumPy does
        not know, float32 values become that.
        """

    def row_block(
        self, output: str, count: int, shape: Sequence[int], dtype: np.dtype[Any]
    ) -> RowBlock | None:
        """Return a block of `count` rows of this shape and type for rows of an output.

        None where they may as well lie on the host: on CPUs, or where the output has another type.

        Raises
        ------
        MachineError
            The device has no memory for it.
        """

    def close(self) -> None:
        """Free what was loaded, after runs in progress; what is asked later is an InputError."""
