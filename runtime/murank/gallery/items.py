"""What callers say of the items they add: one value for all, or a list of one each; checked."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import numpy as np

from murank._exceptions import InputError
from murank.checks.text import shown
from murank.gallery.shot_records import AttributeValue
from murank.images.arguments import check_whole

Time = float | int | datetime
_LARGEST = 2**63 - 1  # of a whole number in the file
_LAST_TIME = 253_402_300_799.0  # the end of the year 9999, in seconds since the epoch
_LONGEST = 1000  # characters of a name
_T = TypeVar("_T")


@dataclass(frozen=True)
class Item:
    """What is said of one item."""

    camera: int
    time: float
    track: str | None
    id: str | None
    subject: str | None
    attributes: Mapping[str, AttributeValue]


def check_items(
    count: int,
    *,
    camera: object,
    time: object,
    track: object,
    id: object,  # noqa: A002  the caller's own word
    subject: object,
    attributes: object,
) -> list[Item]:
    """Return one for each of `count` items. Raises InputError for what cannot be, of any."""
    columns = [
        _each(camera, count, "camera"), _each(time, count, "time"), _each(track, count, "track"),
        _each(id, count, "id"), _each(subject, count, "subject"),
        _each(attributes, count, "attributes"),
    ]  # fmt: skip
    items = []
    for place, (a_camera, a_time, a_track, an_id, a_subject, some) in enumerate(
        zip(*columns, strict=True)
    ):
        at = f"[{place}]" if count > 1 else ""
        items.append(
            Item(
                check_camera(a_camera, f"camera{at}"),
                check_time(a_time, f"time{at}"),
                check_track(a_track, f"track{at}"),
                _shot_id(an_id, f"id{at}"),
                _name(a_subject, f"subject{at}"),
                check_attributes(some, f"attributes{at}"),
            )
        )
    ids = [item.id for item in items if item.id is not None]
    twice = [one for one, count in Counter(ids).items() if count > 1]
    if twice:
        raise InputError(f"id {shown(twice[0])} stands twice in one call: give each item its own")
    return items


def check_camera(value: object, name: str) -> int:
    """Return a camera's number."""
    number = check_whole(value, name, least=0)
    if number > _LARGEST:
        raise InputError(f"{name} must be at most {_LARGEST}, got {shown(value)}")
    return number


def check_time(value: object, name: str) -> float:
    """Return seconds since the epoch, of a number of them or an aware datetime."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InputError(
                f"{name} has no time zone: pass an aware datetime, as datetime.now(timezone.utc), "
                "or seconds since the epoch"
            )
        return value.timestamp()  # of a year up to 9999
    is_number = isinstance(value, (int, float, np.integer, np.floating))
    if isinstance(value, bool) or not is_number or not _is_finite(value):
        raise InputError(
            f"{name} must be seconds since the epoch or an aware datetime, got {shown(value)}"
        )
    seconds = float(value)  # type: ignore[arg-type]
    if abs(seconds) > _LAST_TIME:
        raise InputError(
            f"{name} must be seconds since the epoch, got {shown(value)}: are these milliseconds?"
        )
    return seconds


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def check_track(value: object, name: str) -> str | None:
    """Return a track's name; a tracker's number is one, too."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return str(int(value))
    return _name(value, name)


def check_attributes(value: object, name: str) -> dict[str, AttributeValue]:
    """Return names with texts, numbers or truth values."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"{name} must be a mapping, got {shown(value)}")
    for key, one in value.items():
        if not isinstance(key, str) or not key:
            raise InputError(f"{name} has the key {shown(key)}: keys are texts")
        fits = isinstance(one, str) and len(one) <= _LONGEST
        fits |= isinstance(one, int) and abs(one) <= _LARGEST
        fits |= isinstance(one, float) and math.isfinite(one)
        if not fits:
            raise InputError(
                f"{name}[{shown(key)}] must be a text, a finite number, True or False, got "
                f"{shown(one)}"
            )
    return dict(value)


def names(value: object, name: str) -> list[str]:
    """Return a list of names, of one or several."""
    given = [value] if isinstance(value, (str, int)) else value
    if not isinstance(given, (list, tuple, set, frozenset, np.ndarray)):
        raise InputError(f"{name} must be a text or a list of texts, got {shown(value)}")
    found = [check_track(one, f"{name}[{place}]") for place, one in enumerate(given)]
    missing = [place for place, one in enumerate(found) if one is None]
    if missing:
        raise InputError(f"{name}[{missing[0]}] must be a text, got None")
    return [one for one in found if one is not None]


def cameras_of(value: object, name: str) -> list[int]:
    """Return a list of cameras, of one or several."""
    given = (
        value if isinstance(value, (list, tuple, set, frozenset, range, np.ndarray)) else [value]
    )
    return [check_camera(one, f"{name}[{place}]") for place, one in enumerate(given)]


def _shot_id(value: object, name: str) -> str | None:
    if value in (".", ".."):
        raise InputError(f"{name} must not be . or .., which no URL can name")
    return _name(value, name)


def _name(value: object, name: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value or len(value) > _LONGEST:
        raise InputError(f"{name} must be a text of 1 to {_LONGEST} characters, got {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InputError(f"{name} is no text in UTF-8: {shown(value)}") from None
    return str(value)


def _each(value: Any, count: int, name: str) -> Sequence[Any]:
    """Return one value an item."""
    if not isinstance(value, (list, tuple, np.ndarray)):
        return [value] * count
    if isinstance(value, np.ndarray) and value.ndim != 1:
        raise InputError(f"{name} must be one value or a list, got an array {list(value.shape)}")
    if len(value) != count:
        raise InputError(
            f"{name} has {len(value)} values for {count} items: one for all, or one each"
        )
    return value.tolist() if isinstance(value, np.ndarray) else value
