"""Which files an ONNX file refers to, and which operators it holds, read from its bytes.

An ONNX file is one protocol buffer message. Weights may lie in other files, named by
TensorProto.external_data, and a tensor may stand in a graph, in a node's attribute, in the graph
of an attribute (a branch of If, the body of a Loop), in a function or in the training part. All of
these are walked; everything else, weights above all, is skipped by its length. Numbers are those
of onnx.proto and of the protocol buffer encoding.
"""

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from murank.files.damage import damaged
from murank.files.plain import open_file

_MAX_DEPTH = 100  # messages inside messages, as protobuf itself allows
_MAX_FIELDS = 4_000_000  # some seconds; a node with its attributes has tens of them
_MAX_TEXT = 4096  # bytes

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
_INPUT, _OPERATOR, _DOMAIN = 1, 4, 7  # fields of a node

_WITH_ZERO_POINT = 3  # inputs of DequantizeLinear: steps, scale, zero point

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}


class _DamagedError(Exception):
    """The bytes are not those of an ONNX file."""


@dataclass(frozen=True)
class GraphFacts:
    """What an ONNX file says of itself, bodies of branches, loops and functions included."""

    locations: frozenset[str]  # of external data, as they are written there
    operators: frozenset[tuple[str, str]]  # (domain, name)
    has_functions: bool
    omits_zero_points: bool  # a DequantizeLinear has a scale alone: its zero point is 0


def graph_facts(path: Path, called: Path | None = None) -> GraphFacts:
    """Walk an ONNX file; `called` is its name for messages.

    The file is mapped, not read: weights inside it cost neither time nor memory.

    Raises
    ------
    InputError
        The file is missing, no regular file, or not a valid ONNX file.
    """
    shown = path if called is None else called
    with open_file(path) as file:
        try:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: an empty file
            raise damaged(shown, "it is empty, or cannot be mapped into memory") from error
    with content:
        return facts_of(content, shown)


def facts_of(content: bytes | mmap.mmap, shown: Path) -> GraphFacts:
    """Walk what an ONNX file holds; InputError that names `shown` if it is not valid."""
    walk = _Walk(content)
    try:
        walk.through("Model", 0, len(content), _MAX_DEPTH)
    except _DamagedError as error:
        raise damaged(shown, f"it is not an ONNX file: {error}") from error
    return GraphFacts(
        frozenset(walk.locations), frozenset(walk.operators), walk.has_functions,
        walk.omits_zero_points,
    )  # fmt: skip


class _Walk:
    """One pass over the bytes."""

    def __init__(self, content: bytes | mmap.mmap) -> None:
        self._content = content
        self._fields = 0  # read so far
        self.locations: set[str] = set()
        self.operators: set[tuple[str, str]] = set()
        self.has_functions = False
        self.omits_zero_points = False

    def through(self, message: str, start: int, stop: int, depth: int) -> None:
        """Note what is in the message that lies in [start, stop)."""
        if not depth:
            raise _DamagedError(f"over {_MAX_DEPTH} messages inside each other")
        if message == "ExternalData":
            key, value = self._texts(start, stop, (_KEY, _VALUE), "an external_data entry")
            if key == b"location":
                self.locations.add(_text(value, "a location"))
            return
        if message == "Node":
            name, domain = self._texts(start, stop, (_OPERATOR, _DOMAIN), "an operator")
            self.operators.add((_text(domain, "a domain"), _text(name, "an operator")))
            if name == b"DequantizeLinear":
                inputs = sum(part[0] == _INPUT for part in self._parts(start, stop))
                self.omits_zero_points |= inputs < _WITH_ZERO_POINT
        self.has_functions |= message == "Function"
        inner = _MESSAGES[message]
        for number, wire_type, begin, end in self._parts(start, stop):
            if number not in inner:
                continue
            if wire_type != _BYTES:
                raise _DamagedError(f"a {inner[number]} of wire type {wire_type}")
            self.through(inner[number], begin, end, depth - 1)

    def _texts(
        self, start: int, stop: int, numbers: tuple[int, int], what: str
    ) -> tuple[bytes, bytes]:
        """Return two text fields of a message; of one given several times, the last one counts."""
        texts = dict.fromkeys(numbers, b"")
        for number, wire_type, begin, end in self._parts(start, stop):
            if number not in texts:
                continue
            if wire_type != _BYTES or end - begin > _MAX_TEXT:
                raise _DamagedError(f"{what} that is no short text")
            texts[number] = self._content[begin:end]
        first, second = numbers
        return texts[first], texts[second]

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


def _text(raw: bytes, what: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise _DamagedError(f"{what} that is not UTF-8") from error
