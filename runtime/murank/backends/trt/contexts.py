"""Execution contexts of one plan: one a profile, on one set of weights and scratch memory."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from murank._exceptions import InputError, MachineError
from murank.backends.trt.api import first_error
from murank.backends.trt.arrays import DeviceArray, Shape, allocate_all
from murank.backends.trt.bfloat16 import BFLOAT16
from murank.backends.trt.cuda import Gpu
from murank.backends.trt.loader import Loaded


@dataclass(frozen=True)
class Tensor:
    """An input or output of the plan."""

    name: str
    shape: Shape  # -1: free
    dtype: np.dtype[Any]
    is_input: bool


@dataclass
class _Context:
    """One profile's, with what it was last told."""

    context: Any
    shapes: dict[str, Shape] = field(default_factory=dict)
    unread: dict[str, DeviceArray] = field(default_factory=dict)  # outputs nobody asked for


class Contexts:
    """Not for several threads at once."""

    def __init__(self, loaded: Loaded, gpu: Gpu, file: Path) -> None:
        self._loaded, self._gpu, self._file = loaded, gpu, file
        self._engine = loaded.engine
        self.tensors = {one.name: one for one in self._tensors()}
        self._profiles = [
            {name: self._limits(name, i) for name, one in self.tensors.items() if one.is_input}
            for i in range(self._engine.num_optimization_profiles)
        ]
        # Runs follow one another on one stream: the scratch memory of the largest serves all.
        sizes = [
            self._engine.get_device_memory_size_for_profile_v2(i)
            for i in range(len(self._profiles))
        ]
        self._scratch_bytes = max(sizes)
        self._scratch = gpu.reserve(self._scratch_bytes)
        self._contexts: dict[int, _Context] = {}

    def _tensors(self) -> Iterator[Tensor]:
        trt, engine = self._loaded.machine.api.module, self._engine
        for i in range(engine.num_io_tensors):
            name = engine.get_tensor_name(i)
            is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            shape = tuple(engine.get_tensor_shape(name))
            yield Tensor(name, shape, self._dtype(name, engine.get_tensor_dtype(name)), is_input)

    def _dtype(self, name: str, kind: Any) -> np.dtype[Any]:
        trt = self._loaded.machine.api.module
        if kind == trt.DataType.BF16:
            return BFLOAT16
        try:
            known: np.dtype[Any] = np.dtype(trt.nptype(kind))
        except TypeError as error:
            raise InputError(
                f"{self._file}: {name} is {kind}, which is no type of an engine's values: export "
                "the engine again"
            ) from error
        return known

    def _limits(self, name: str, profile: int) -> tuple[Shape, Shape]:
        least, _, most = self._engine.get_tensor_profile_shape(name, profile)
        return tuple(least), tuple(most)

    def profile_of(self, shapes: Mapping[str, Shape]) -> int | None:
        """Return the profile that these shapes of all inputs are within; None: there is none."""
        for index, profile in enumerate(self._profiles):
            if all(_within(shapes[name], *limits) for name, limits in profile.items()):
                return index
        return None

    def most(self, name: str, axis: int) -> int:
        """Return the largest length of an input's axis in any profile."""
        return max(profile[name][1][axis] for profile in self._profiles)

    def output_shapes(self, index: int, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        """Tell a profile's context the shapes of its inputs; return those of all outputs."""
        one = self._context(index)
        for name, shape in shapes.items():
            if one.shapes.get(name) != shape:
                if not one.context.set_input_shape(name, shape):
                    raise self._failed(f"took no {name} of shape {shape}")
                one.shapes[name] = shape
        return {
            name: tuple(one.context.get_tensor_shape(name))
            for name, tensor in self.tensors.items()
            if not tensor.is_input
        }

    def execute(self, index: int, arrays: Mapping[str, DeviceArray]) -> None:
        """Queue a run on these inputs into these outputs; others go where nobody looks."""
        one = self._context(index)
        outputs = self._unread(one, set(self.tensors) - set(arrays))
        for name, array in {**outputs, **arrays}.items():
            if not one.context.set_tensor_address(name, array.address):
                raise self._failed(f"took no address of {name}")
        if not one.context.execute_async_v3(self._gpu.stream):
            raise self._failed("did not run")

    def _unread(self, one: _Context, names: set[str]) -> dict[str, DeviceArray]:
        """Return memory for outputs; the same as last time if it fits."""
        wanted = {
            name: (tuple(one.context.get_tensor_shape(name)), self.tensors[name].dtype)
            for name in sorted(names)
        }
        known = {name: (array.shape, array.dtype) for name, array in one.unread.items()}
        if known != wanted:
            one.unread = allocate_all(self._gpu, wanted)
        return one.unread

    def _context(self, index: int) -> _Context:
        if index not in self._contexts:
            trt = self._loaded.machine.api.module
            how = trt.ExecutionContextAllocationStrategy.USER_MANAGED
            made = self._engine.create_execution_context(how)
            if made is None:
                raise self._failed("made no context")
            made.set_device_memory(int(self._scratch), self._scratch_bytes)
            if not made.set_optimization_profile_async(index, self._gpu.stream):
                raise self._failed(f"took no profile {index}")
            self._contexts[index] = _Context(made)
        return self._contexts[index]

    def _failed(self, what: str) -> MachineError:
        return MachineError(
            f"{self._file}: the plan {what} ({first_error(self._loaded.logger)}); pass a smaller "
            "max_pairs if memory is short, else run murank build again"
        )


def _within(shape: Shape, least: Shape, most: Shape) -> bool:
    return len(shape) == len(least) and all(
        low <= here <= high for low, here, high in zip(least, shape, most, strict=True)
    )
