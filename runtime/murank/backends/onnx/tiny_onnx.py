"""ONNX models of one node, written byte by byte: the runtime has no onnx package.

Numbers are those of onnx.proto and of the protocol buffer encoding.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

_IR_VERSION, _OPSET = 8, 17
_TYPES: Mapping[str, int] = {
    "float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "float16": 10, "bfloat16": 16,
}  # fmt: skip
_BYTES = 2  # wire type of what has a length
_INT, _TENSOR = 2, 4  # of AttributeProto.AttributeType
_SHORT = 0x80
Tensor = tuple[str, str, Sequence[int | str]]  # name, type, lengths (a name: any)


def gather(dtype: np.dtype[Any], row: Sequence[int]) -> bytes:
    """Return a model: rows [n,...] of this type, places [q,k] int64 -> found [q,k,...]."""
    shape = list(row)
    return _model(
        "Gather", [("rows", dtype.name, ["n", *shape]), ("places", "int64", ["q", "k"])],
        ("found", dtype.name, ["q", "k", *shape]),
    )  # fmt: skip


def matmul(size: int) -> bytes:
    """Return a model: a, b [size,size] float32 -> their product c."""
    a, b, c = ((name, "float32", [size, size]) for name in "abc")
    return _model("MatMul", [a, b], c)


def zeros(dtype: np.dtype[Any], rank: int) -> bytes:
    """Return a model: lengths [rank] int64 -> made, zeros of this type and these lengths."""
    zero = _join([_number(1, 1), _number(2, _TYPES[dtype.name]), _field(9, bytes(dtype.itemsize))])
    value = _join([_field(1, b"value"), _field(5, zero), _number(20, _TENSOR)])
    made = ("made", dtype.name, [f"d{axis}" for axis in range(rank)])
    return _model("ConstantOfShape", [("lengths", "int64", [rank])], made, value)


def to_bfloat16(rank: int) -> bytes:
    """Return a model: wide, float32 of so many axes of any length -> narrow, in bfloat16."""
    lengths = [f"d{axis}" for axis in range(rank)]
    to = _join([_field(1, b"to"), _number(3, _TYPES["bfloat16"]), _number(20, _INT)])
    return _model("Cast", [("wide", "float32", lengths)], ("narrow", "bfloat16", lengths), to)


def integer_product(weight: NDArray[np.int8]) -> bytes:
    """Return a model: x [n,in] uint8 -> its product y [n,out] int32 with this weight [in,out]."""
    held = _join([
        *(_number(1, length) for length in weight.shape), _number(2, _TYPES["int8"]),
        _field(8, b"weight"), _field(9, np.ascontiguousarray(weight).tobytes()),
    ])  # fmt: skip
    rows, columns = weight.shape
    x, y = ("x", "uint8", ["n", rows]), ("y", "int32", ["n", columns])
    return _model("MatMulInteger", [x], y, weights={"weight": held})


def _model(
    operator: str,
    inputs: Sequence[Tensor],
    output: Tensor,
    attribute: bytes | None = None,
    weights: Mapping[str, bytes] = MappingProxyType({}),
) -> bytes:
    names = [_field(1, name.encode()) for name in (*(one[0] for one in inputs), *weights)]
    attributes = [] if attribute is None else [_field(5, attribute)]
    node = _join([*names, _field(2, output[0].encode()), _field(4, operator.encode()), *attributes])
    graph = _join([
        _field(1, node), _field(2, operator.lower().encode()),
        *(_field(5, one) for one in weights.values()),
        *(_field(11, _value(one)) for one in inputs), _field(12, _value(output)),
    ])  # fmt: skip
    opset = _number(2, _OPSET)
    return _join([_number(1, _IR_VERSION), _field(7, graph), _field(8, opset)])


def _value(tensor: Tensor) -> bytes:
    name, type_, lengths = tensor
    shape = _join(_field(1, _length(length)) for length in lengths)
    typed = _join([_number(1, _TYPES[type_]), _field(2, shape)])
    return _join([_field(1, name.encode()), _field(2, _field(1, typed))])


def _length(length: int | str) -> bytes:
    return _number(1, length) if isinstance(length, int) else _field(2, length.encode())


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _field(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= _SHORT:
        out.append(value & (_SHORT - 1) | _SHORT)
        value >>= 7
    out.append(value)
    return bytes(out)


def _join(parts: Iterable[bytes]) -> bytes:
    return b"".join(parts)
