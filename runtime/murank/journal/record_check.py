"""Whether a record is what this version writes: its checksum says only that it is whole."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from murank.journal.segments import SegmentRecord

_DIGEST = 32


def is_right(record: SegmentRecord) -> bool:
    """Whether kind, names, types, lengths and places fit together."""
    check = _CHECKS.get(record.kind)
    try:
        return check is not None and check(record.facts, record.arrays)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return False


def _files(facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bool:
    count = len(facts["paths"])
    stats = arrays["stats"]
    fits = stats.shape == (count, 3) and stats.dtype == np.int64
    return fits and _texts(facts["paths"], count) and _digests(arrays["digests"], count)


def _features(facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bool:
    rows = arrays["features"]
    fits = rows.ndim == 2 and rows.dtype == np.float32 and bool(np.isfinite(rows).all())
    return fits and _digests(arrays["digests"], len(rows)) and _maker(facts, arrays)


def _mu(facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bool:
    pairs, mu, images = arrays["pairs"], arrays["mu"], arrays["images"]
    count, unanswered = len(mu), facts["unanswered"]
    inside = pairs.shape == (count, 2) and pairs.dtype.kind == "u"
    inside = inside and int(pairs.max(initial=0)) < max(1, len(images))
    share = mu.dtype == np.float32 and bool(((mu >= 0) & (mu <= 1) | np.isnan(mu)).all())
    places = all(type(place) is int and 0 <= place < count for place in unanswered)
    said = _texts(facts["reasons"], len(unanswered)) and facts["order"] in ("given", "swapped")
    return inside and share and places and said and _digests(images) and _maker(facts, arrays)


def _maker(facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bool:
    named = _texts([facts["engine"], facts["device"], *facts["providers"]])
    listed = all(_texts(names) for names in facts["providers"].values())
    refused = _digests(arrays["refused"], len(facts["unusable"]))
    return named and listed and refused and _texts(facts["unusable"])


def _texts(values: Any, count: int | None = None) -> bool:
    fits = isinstance(values, list) and (count is None or len(values) == count)
    return fits and all(isinstance(one, str) for one in values)


def _digests(rows: NDArray[Any], count: int | None = None) -> bool:
    fits = rows.dtype == np.uint8 and rows.ndim == 2 and rows.shape[1] == _DIGEST
    return fits and (count is None or len(rows) == count)


_CHECKS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, NDArray[Any]]], bool]] = {
    "files": _files, "features": _features, "mu": _mu
}  # fmt: skip
