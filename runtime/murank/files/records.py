"""Frozen dataclasses to JSON objects and back: every key there, none unknown, each of its type."""

import math
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from murank._exceptions import InputError
from murank.checks.text import shown

_WORDS = {int: "a whole number", float: "a number", str: "a text", dict: "an object"}
_LARGEST_INT = 1 << 63

R = TypeVar("R", bound="Record")


@dataclass(frozen=True)
class Must:
    """A condition in the annotation of a field: Annotated[int, Must(...)]."""

    hold: Callable[[Any], object]  # true: it does
    words: str  # what follows "must be"


class Record:
    """Base of the dataclasses that stand in a JSON file, keys in declared order.

    Fields may be int, float, str, a Literal of texts, tuple of fixed length, Mapping from str, Any,
    another record (or whatever has its two methods), and `X | None` of these; Annotated with
    `Must` for what the type does not say.
    """

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {key: _plain(value) for key, value in vars(self).items()}

    @classmethod
    def from_json(cls: type[R], data: Any, where: str = "") -> R:
        """Read what `to_json` returns.

        Raises
        ------
        InputError
            A key is missing, unknown or of another type; the message begins with its path, and
            that with `where`.
        """
        hints = get_type_hints(cls, include_extras=True)
        members = _scalar(dict, data, where)
        missing, unknown = hints.keys() - members.keys(), members.keys() - hints.keys()
        if missing:
            raise InputError(f"{where or 'the top level'} lacks the key {min(missing)}")
        if unknown:
            raise InputError(f"{where or 'the top level'} has an unknown key {shown(min(unknown))}")
        prefix = f"{where}." if where else ""
        return cls(**{key: _value(kind, members[key], prefix + key) for key, kind in hints.items()})


def _plain(value: Any) -> Any:
    if hasattr(value, "to_json"):
        return value.to_json()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _value(kind: Any, value: Any, where: str) -> Any:
    """Return `value` as a `kind`, or raise InputError."""
    if kind is Any:
        return value
    read = _READERS.get(get_origin(kind))
    if read is not None:
        return read(get_args(kind), value, where)
    if hasattr(kind, "from_json"):
        return _object(kind, value, where)
    return _scalar(kind, value, where)


def _annotated(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    kind, *conditions = arguments
    read = _value(kind, value, where)
    for must in conditions:
        if not must.hold(read):
            raise _wrong(where, must.words, value)
    return read


def _optional(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    (kind,) = (argument for argument in arguments if argument is not type(None))
    return None if value is None else _value(kind, value, where)


def _literal(texts: tuple[Any, ...], value: Any, where: str) -> Any:
    if not isinstance(value, str) or value not in texts:
        raise _wrong(where, "one of " + ", ".join(texts), value)
    return value


def _tuple(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if not isinstance(value, list) or len(value) != len(kinds):
        raise _wrong(where, f"a list of {len(kinds)}", value)
    return tuple(_value(kinds[i], item, f"{where}[{i}]") for i, item in enumerate(value))


def _mapping(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    of_key, of_item = kinds
    return {
        _value(of_key, key, f"a key of {where}"): _value(of_item, item, f"{where}[{shown(key)}]")
        for key, item in _scalar(dict, value, where).items()
    }


_READERS: dict[Any, Callable[[tuple[Any, ...], Any, str], Any]] = {
    Annotated: _annotated,
    Union: _optional,
    types.UnionType: _optional,
    Literal: _literal,
    tuple: _tuple,
    Mapping: _mapping,
}


def _object(kind: Any, value: Any, where: str) -> Any:
    if issubclass(kind, Record):
        return kind.from_json(value, where)
    members = _scalar(dict, value, where)
    try:  # a class from elsewhere, which does not know where it stands
        return kind.from_json(members)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _scalar(kind: type, value: Any, where: str) -> Any:
    accepted: Any = (int, float) if kind is float else kind
    # True is an int to Python, not to us.
    if not isinstance(value, accepted) or isinstance(value, bool):
        raise _wrong(where, _WORDS[kind], value)
    if isinstance(value, int) and abs(value) >= _LARGEST_INT:
        raise _wrong(where, f"{_WORDS[kind]} of 64 bits", value)
    if kind is float and not math.isfinite(value):
        raise _wrong(where, "a finite number", value)
    return float(value) if kind is float else value


def _wrong(where: str, words: str, value: Any) -> InputError:
    return InputError(f"{where or 'the top level'} must be {words}, got {shown(value)}")
