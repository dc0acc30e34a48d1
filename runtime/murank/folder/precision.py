"""What an engine computes in: one word in the manifest, and all that follows from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "fp16", "bf16", "w8", "int8", "w8a16", "int8-qdq", "fp8", "int4"]
Float = Literal["float32", "float16", "bfloat16"]
# onnxruntime on either, TensorRT, OpenVINO
Backend = Literal["cpu", "cuda", "plans", "openvino"]
_Capability = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """How the scorer of an engine computes. An encoder is float32 or as its file has it."""

    floats: Float  # of activations and K/V
    weight_bits: int  # of linear layers
    backends: tuple[Backend, ...]  # that run it, the usual one first
    least_capability: _Capability = (7, 5)  # of a GPU whose plans have such products
    rounded: bool = False  # weights or activations are made for calibration pairs
    widened: bool = False  # narrow weights become floats once, when the engine is loaded

    def widening(self, backend: Backend) -> int:
        """How many times its size in the file a weight takes in the memory of a backend."""
        copies = 2 if backend == "openvino" else 1  # the graph's, and as its products take them
        if self.widened:
            return copies * 32 // self.weight_bits
        on_cpu = backend in ("cpu", "openvino")
        return copies * (2 if on_cpu and self.weight_bits == 16 else 1)  # computed as float32

    @property
    def item_bytes(self) -> int:
        """Bytes of one value of K/V."""
        return 4 if self.floats == "float32" else 2

    @property
    def token_bytes(self) -> int:
        """Bytes of one value of vision tokens, which the host sees: NumPy knows no bfloat16."""
        return 2 if self.floats == "float16" else 4


ARITHMETIC: Mapping[Precision, Arithmetic] = {
    "fp32": Arithmetic(
        floats="float32", weight_bits=32, backends=("cpu", "cuda", "plans", "openvino")
    ),
    "fp16": Arithmetic(
        floats="float16", weight_bits=16, backends=("cuda", "plans", "cpu", "openvino")
    ),
    "bf16": Arithmetic(
        floats="bfloat16", weight_bits=16, backends=("cuda", "plans"), least_capability=(8, 0)
    ),
    # A file of a quarter: weights are widened once, when the engine is loaded.
    "w8": Arithmetic(
        floats="float32",
        weight_bits=8,
        backends=("cpu", "cuda", "openvino"),
        rounded=True,
        widened=True,
    ),
    # Integer products of onnxruntime, a scale per token.
    "int8": Arithmetic(floats="float32", weight_bits=8, backends=("cpu",), rounded=True),
    "w8a16": Arithmetic(floats="float32", weight_bits=8, backends=("cpu",), rounded=True),
    # Q/DQ pairs that TensorRT makes its own products of. A CPU computes them in float, slowly.
    "int8-qdq": Arithmetic(
        floats="float16", weight_bits=8, backends=("plans", "cpu"), rounded=True
    ),
    "fp8": Arithmetic(
        floats="float16",
        weight_bits=8,
        backends=("plans", "cpu"),
        least_capability=(8, 9),
        rounded=True,
    ),
    "int4": Arithmetic(
        floats="float16",
        weight_bits=4,
        backends=("plans", "cpu"),
        least_capability=(8, 0),
        rounded=True,
    ),
}
INTEGER: tuple[Precision, ...] = ("int8", "w8a16")  # products that only onnxruntime's CPU has
