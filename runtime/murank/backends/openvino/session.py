"""A graph of an engine, run by OpenVINO: what `backends.onnx.session` is to onnxruntime."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank._exceptions import InputError, MachineError
from murank.backends.graph_shapes import check_shapes
from murank.backends.memory_errors import no_memory_to_run, ran_out
from murank.backends.openvino.devices import message_of, openvino
from murank.backends.openvino.loader import load_compiled
from murank.backends.protocol import Memory, RowBlock, SessionSettings, Shape
from murank.folder.contents import EngineFiles


class HostValue:
    """A tensor of OpenVINO in the host's memory, where all of its inputs and outputs lie."""

    def __init__(self, tensor: Any, holder: object = None) -> None:
        self.tensor, self._holder = tensor, holder  # of the memory that is shared with it

    @property
    def shape(self) -> tuple[int, ...]:
        """Its lengths."""
        return tuple(self.tensor.shape)

    def numpy(self) -> NDArray[Any]:
        """Return a copy."""
        values: NDArray[Any] = self.tensor.data.copy()
        return values


@dataclass(frozen=True)
class _Port:
    """An input or output of a graph."""

    type: Any  # as OpenVINO has it
    lengths: Shape

    @classmethod
    def of(cls, port: Any) -> "_Port":
        lengths = (one.get_length() if one.is_static else None for one in port.get_partial_shape())
        return cls(port.get_element_type(), tuple(lengths))


class OpenVinoSession:
    """One compiled graph. Calls from several threads are safe; they wait for one another.

    What a run returns lies in tensors of its own, which the next run takes as they are: K/V of a
    prefix are written once, by the prefill. Nothing of a run is kept after it.
    """

    device = "cpu"  # where outputs lie, whatever computes them

    def __init__(self, files: EngineFiles, name: str, settings: SessionSettings) -> None:
        """Load a graph of an engine folder; see `load_compiled`."""
        self._file = files.folder / name
        self._module = openvino()
        model = load_compiled(self._module, files, name, settings)
        self.providers, self._on_cpu = [model.title], model.on_cpu
        self._inputs = {port.get_any_name(): _Port.of(port) for port in model.compiled.inputs}
        self._outputs = {port.get_any_name(): _Port.of(port) for port in model.compiled.outputs}
        self._request: Any = model.compiled.create_infer_request()
        self._empty = {
            name: self._new(port) for name, port in {**self._inputs, **self._outputs}.items()
        }
        self._lock = threading.Lock()

    @property
    def memory(self) -> Memory:
        """Where outputs lie."""
        return "openvino", self.device, 0

    def expect(self, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]) -> None:
        """Raise InputError unless the graph has these, with these shapes (None: any length)."""
        for wanted, ports in ((inputs, self._inputs), (outputs, self._outputs)):
            check_shapes(self._file, {name: one.lengths for name, one in ports.items()}, wanted)

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str]) -> list[Any]:
        """Run the graph on arrays or values; return values in the host's memory.

        Raises
        ------
        MachineError
            Out of memory; or a GPU or NPU failed.
        InputError
            The graph cannot be run on these inputs.
        """
        given = {name: self._value(value) for name, value in inputs.items()}
        # Also of those that nobody wants: what a tensor held, the next run would overwrite.
        made = {name: HostValue(self._new(port)) for name, port in self._outputs.items()}
        with self._lock:
            request = self._request
            if request is None:
                raise InputError(f"{self._file} was closed with its engine: load that again")
            try:
                for name, value in {**given, **made}.items():
                    request.set_tensor(name, value.tensor)
                request.infer()
            except Exception as error:
                # OpenVINO raises RuntimeError for whatever it was.
                raise self._failure(error, given) from error
            finally:
                for name, tensor in self._empty.items():  # what was seen is not kept here
                    request.set_tensor(name, tensor)
        return [made[name] for name in outputs]

    def longest(self, name: str, axis: int) -> int | None:
        """Return the length that the graph was made for; None: any."""
        return self._inputs[name].lengths[axis]

    def to_device(self, array: NDArray[Any], name: str | None = None) -> HostValue:
        """Return the array as a value, not copied."""
        del name
        return self._value(array)

    def row_block(
        self, output: str, count: int, shape: Sequence[int], dtype: np.dtype[Any]
    ) -> RowBlock | None:
        """Return None: rows lie on the host anyway."""
        del output, count, shape, dtype
        return None

    def close(self) -> None:
        """Free what was loaded, after runs in progress; what is asked later is an InputError."""
        with self._lock:
            self._request = None

    def _value(self, value: Any) -> HostValue:
        if isinstance(value, HostValue):
            return value
        # Of two names for one type OpenVINO knows the usual one; it writes to no input.
        array = np.require(value.view(np.dtype(value.dtype.name)), requirements=("C", "W"))
        return HostValue(self._module.Tensor(array, shared_memory=True), array)

    def _new(self, port: "_Port") -> Any:
        """Return a tensor that grows to what a run makes, where its lengths are free."""
        return self._module.Tensor(port.type, [length or 0 for length in port.lengths])

    def _failure(self, error: Exception, given: Mapping[str, HostValue]) -> Exception:
        text = message_of(error)
        if ran_out(error):
            return no_memory_to_run(self._file, text)
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in given.items())
        told = f"{self._file} could not be run by {self.providers[0]} on {shapes[:200]}: {text}"
        # A device that fails is no fault of an image, which would be left out for it.
        return InputError(told) if self._on_cpu else MachineError(f"{told}; try again on the CPU")
