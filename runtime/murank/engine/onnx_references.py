"""Which files an ONNX file refers to, read from its bytes.

An ONNX file is one protocol buffer message. Weights may lie in other files, named by
TensorProto.external_data, and a tensor may stand in a graph, in a node's attribute, in the graph
of an attribute (a branch of If, the body of a Loop), in a function or in the training part. All of
these are walked; everything else, weights above all, is skipped by its length. Numbers are those
of onnx.proto and of the protocol buffer encoding.
"""

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path

from murank.engine._damage import damaged
from murank.engine._plain import open_file

_MAX_DEPTH = 100  # messages inside messages, as protobuf itself allows
_MAX_FIELDS = 4_000_000  # some seconds; a node with its attributes has tens of them
_MAX_LOCATION = 4096  # bytes

# Message -> number of a field -> the message in it, where a tensor can be further inside.
_MESSAGES: Mapping[str, Mapping[int, str]] = {
    "Model": {7: "Graph", 20: "TrainingInfo", 25: "Function"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {
        5: "Tensor",
        6: "Graph",
        10: "Tensor",
        11: "Graph",
        22: "SparseTensor",
        23: "SparseTensor",
    },
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "ExternalData"},
}
_FIELDS_STOP = 1 << 29  # numbers of fields are below
_KEY, _VALUE = 1, 2  # fields of one entry of external_data

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}


class _DamagedError(Exception):
    """The bytes are not those of an ONNX file."""


def external_data_files(path: Path) -> frozenset[str]:
    """Return the locations of external data in an ONNX file, as they are written there.

    The file is mapped, not read: weights inside it cost neither time nor memory.

    Raises
    ------
    InputError
        The file is missing, no regular file, or not a valid ONNX file.
    """
    with open_file(path) as file:
        try:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: an empty file
            raise damaged(path, "it is empty, or cannot be mapped into memory") from error
    with content:
        try:
            return frozenset(_Walk(content).locations("Model", 0, len(content), _MAX_DEPTH))
        except _DamagedError as error:
            raise damaged(path, f"it is not an ONNX file: {error}") from error


class _Walk:
    """One pass over the bytes."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._fields = 0  # read so far

    def locations(self, message: str, start: int, stop: int, depth: int) -> Iterator[str]:
        """Yield the locations in the message that lies in [start, stop)."""
        if not depth:
            raise _DamagedError(f"over {_MAX_DEPTH} messages inside each other")
        if message == "ExternalData":
            yield from self._location(start, stop)
            return
        inner = _MESSAGES[message]
        for number, wire_type, begin, end in self._parts(start, stop):
            if number not in inner:
                continue
            if wire_type != _BYTES:
                raise _DamagedError(f"a {inner[number]} of wire type {wire_type}")
            yield from self.locations(inner[number], begin, end, depth - 1)

    def _location(self, start: int, stop: int) -> Iterator[str]:
        """Yield the value of an external_data entry if its key is "location"."""
        entry = {_KEY: b"", _VALUE: b""}
        for number, wire_type, begin, end in self._parts(start, stop):
            if number not in entry:
                continue
            if wire_type != _BYTES or end - begin > _MAX_LOCATION:
                raise _DamagedError("an external_data entry that is no short text")
            entry[number] = self._content[begin:end]  # of several, the last one counts
        if entry[_KEY] == b"location":
            try:
                yield entry[_VALUE].decode()
            except UnicodeDecodeError as error:
                raise _DamagedError("a location that is not UTF-8") from error

    def _parts(self, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield number, wire type, begin and end of the value of each field in [start, stop)."""
        at = start
        while at < stop:
            self._fields += 1
            if self._fields > _MAX_FIELDS:
                raise _DamagedError(f"over {_MAX_FIELDS} fields")
            tag, at = self._varint(at, stop)
            number, wire_type = tag >> 3, tag & 7
            if not 1 <= number < _FIELDS_STOP:
                raise _DamagedError(f"field number {number}")
            begin, at = self._skip(wire_type, at, stop)
            if at > stop:
                raise _DamagedError("it is cut off, or a length is wrong")
            yield number, wire_type, begin, at

    def _skip(self, wire_type: int, at: int, stop: int) -> tuple[int, int]:
        """Return where the value at `at` begins, its length left aside, and where it ends."""
        if wire_type == _VARINT:
            return at, self._varint(at, stop)[1]
        if wire_type == _BYTES:
            length, begin = self._varint(at, stop)
            return begin, begin + length
        if wire_type in _FIXED_SIZES:
            return at, at + _FIXED_SIZES[wire_type]
        raise _DamagedError(f"wire type {wire_type}")

    def _varint(self, at: int, stop: int) -> tuple[int, int]:
        """Return the number of up to ten bytes at `at`, and what follows it."""
        value = 0
        for shift in range(0, 70, 7):
            if at >= stop:
                raise _DamagedError("it is cut off, or a length is wrong")
            byte = self._content[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        raise _DamagedError("a number of over ten bytes")
