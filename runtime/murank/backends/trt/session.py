"""A graph of an engine, run by its TensorRT plan: what `backends.onnx.session` is to ONNX."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError, MachineError
from murank.backends.graph_shapes import check_shapes
from murank.backends.protocol import Shape as FreeShape
from murank.backends.trt.arrays import DeviceArray, Shape, aligned, allocate_all, beside, put
from murank.backends.trt.bfloat16 import BFLOAT16, to_bfloat16, type_name
from murank.backends.trt.contexts import Contexts
from murank.backends.trt.faults import AGAIN, Run, forget_frames, reason_of
from murank.backends.trt.loader import load_plan
from murank.backends.trt.profiles import SHARED
from murank.backends.trt.rows import PlanRows
from murank.folder.contents import EngineFiles


class PlanSession:
    """One plan, loaded. Calls from several threads are safe; they wait for one another.

    All of a process share the GPU's one stream, so each finds what was queued before it done.
    """

    device = "cuda"

    def __init__(
        self, files: EngineFiles, name: str, index: int = 0, plans: Path | None = None
    ) -> None:
        """Load the plan of a graph of an engine folder on GPU `index`; see `load_plan`."""
        loaded, file = load_plan(files, name, index, plans), files.folder / name
        gpu = loaded.machine.gpu
        assert gpu is not None  # noqa: S101 (`load_plan` opened it)
        self._file, self._gpu, self._logger = file, gpu, loaded.logger
        self.providers = [f"{loaded.machine.api.title} plan"]
        with gpu.active():
            self._loaded: Contexts | None = Contexts(loaded, gpu, file)
        self.memory = ("tensorrt", self.device, index)
        self._lock, self._closed = threading.Lock(), False

    def expect(self, inputs: Mapping[str, FreeShape], outputs: Mapping[str, FreeShape]) -> None:
        """Raise InputError unless the plan has these, with these shapes (None: any length)."""
        tensors = self._contexts().tensors.items()
        for is_input, wanted in ((True, inputs), (False, outputs)):
            has = {name: _free(one.shape) for name, one in tensors if one.is_input == is_input}
            check_shapes(self._file, has, wanted)

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str]) -> list[Any]:
        """Run the plan on arrays or values of this device; return values that stay on it.

        More queries (or images) than the plan was built for run one part after the other.

        Raises
        ------
        InputError
            The plan was not built for such inputs.
        MachineError
            Out of memory; or the GPU failed: the plan is given up, and its memory with it.
        """
        with self._lock:
            contexts = self._contexts()
            self._check(contexts, inputs)
            run = Run(self._file, {name: tuple(value.shape) for name, value in inputs.items()})
            self._logger.errors.clear()
            try:
                with self._gpu.active():
                    made = self._run_in_parts(contexts, inputs, outputs, run)
            except MachineError as error:
                if not self._gpu.has_failed():
                    raise
                # A CUDA context that failed stays so: free what can be freed, tracebacks included.
                self._loaded = None
                del contexts
                forget_frames(error)
                raise run.fault(reason_of(error)) from error
        return [made[name] for name in outputs]

    def longest(self, name: str, axis: int) -> int | None:
        """Return how long an input's axis was built to be, at most."""
        return self._contexts().most(name, axis)

    def to_device(self, array: NDArray[Any], name: str | None = None) -> DeviceArray:
        """Return the array as a value on the GPU; as bfloat16, if the input `name` is."""
        contexts = self._contexts()
        if name is not None and contexts.tensors[name].dtype == BFLOAT16:
            array = to_bfloat16(array)
        with self._gpu.active():
            return put(self._gpu, array)

    def row_block(
        self, output: str, count: int, shape: Sequence[int], dtype: np.dtype[Any]
    ) -> PlanRows | None:
        """Return memory for `count` rows of an output; None if that is of another type.

        Raises
        ------
        MachineError
            Out of memory.
        """
        if self._contexts().tensors[output].dtype != dtype:
            return None
        return PlanRows(self._gpu, self._lock, count, shape, dtype)

    def close(self) -> None:
        """Free what was loaded, after runs in progress; what is asked later is an InputError."""
        with self._lock, self._gpu.active():
            self._loaded, self._closed = None, True

    def _contexts(self) -> Contexts:
        """Return what was loaded; MachineError if the GPU has failed, InputError if closed."""
        if self._closed:
            raise InputError(f"{self._file} was closed with its engine: load that again")
        loaded = self._loaded
        if loaded is None or self._gpu.failed:
            self._loaded = None
            raise MachineError(f"{self._file} was given up when the GPU failed: {AGAIN}")
        return loaded

    def _check(self, contexts: Contexts, inputs: Mapping[str, Any]) -> None:
        wanted = {name for name, one in contexts.tensors.items() if one.is_input}
        if wanted != set(inputs):
            differs = ", ".join(sorted(wanted ^ set(inputs)))
            raise InputError(f"{self._file} could not be run: these inputs differ: {differs}")
        for name, value in inputs.items():
            dtype = contexts.tensors[name].dtype
            if value.dtype != dtype:
                raise InputError(
                    f"{self._file}: {name} must be {type_name(dtype)}, got {type_name(value.dtype)}"
                )

    def _run_in_parts(
        self, contexts: Contexts, inputs: Mapping[str, Any], outputs: Sequence[str], run: Run
    ) -> dict[str, DeviceArray]:
        """Rows of the first axis are independent, and lie side by side.

        Parts need no copy, unless they begin where TensorRT takes no address.
        """
        arrays = {
            name: put(self._gpu, value) if isinstance(value, np.ndarray) else value
            for name, value in inputs.items()
        }
        divided = [name for name in arrays if name not in SHARED]
        count = arrays[divided[0]].shape[0]
        step = min(count, *(contexts.most(name, 0) for name in divided))
        made: dict[str, DeviceArray] = {}
        for start in range(0, max(count, 1), max(step, 1)):
            stop = min(count, start + step)
            part = {
                name: aligned(array.rows(start, stop)) if name in divided else array
                for name, array in arrays.items()
            }
            profile, shapes = self._prepare(contexts, part)
            if not made:
                wanted = {
                    name: ((count, *shapes[name][1:]), contexts.tensors[name].dtype)
                    for name in outputs
                }
                made = allocate_all(self._gpu, wanted, run)
            into = {name: array.rows(start, stop) for name, array in made.items()}
            apart = beside(into)
            contexts.execute(profile, {**part, **into, **apart})
            for name, array in apart.items():
                self._gpu.copy(into[name].address, array.address, array.nbytes)
        return made

    def _prepare(
        self, contexts: Contexts, part: Mapping[str, DeviceArray]
    ) -> tuple[int, dict[str, Shape]]:
        shapes = {name: array.shape for name, array in part.items()}
        profile = contexts.profile_of(shapes)
        if profile is None:
            told = ", ".join(f"{name} {shape}" for name, shape in list(shapes.items())[:3])
            raise InputError(
                f"{self._file}: the plan was not built for {told}; pass a smaller max_pairs, or "
                "run murank build with more --candidates"
            )
        return profile, contexts.output_shapes(profile, shapes)


def _free(lengths: Shape) -> FreeShape:
    return tuple(None if length == -1 else length for length in lengths)
