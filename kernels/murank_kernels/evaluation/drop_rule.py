"""Which gallery items are dropped from a query's ranking before anything is counted."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from murank_kernels._exceptions import InvalidInputError
from murank_kernels._types import I64
from murank_kernels.checks.host_array import NO_ARRAY, copied_to_host, host_array

RuleName = Literal["same-camera", "same-clothes", "other-clothes", "whole-camera", "none"]
RULES: Mapping[str, str] = {
    "same-camera": "of the query's person by its camera",
    "same-clothes": "of the query's person by its camera or in its clothes",
    "other-clothes": "of the query's person by its camera or in other clothes",
    "whole-camera": "of anyone by the query's camera",
    "none": "nothing",
}
"""Name -> what it drops."""

Sides = tuple[I64, I64]  # labels of queries [Q] and gallery [G]
Known = tuple[I64 | None, I64 | None]
Bools = NDArray[np.bool_]
Mask = Callable[[I64], ArrayLike] | NDArray[Any]
Drop = RuleName | Mask
_MASK = "mask"
_OF_CLOTHES = ("same-clothes", "other-clothes")

_NAMED = 20  # cameras
_AT_ONCE = 1 << 22  # pairs of a mask that a function makes


def looks_at(drop: object) -> tuple[str, ...]:
    """Return the labels that a rule looks at, beside pids."""
    if not isinstance(drop, str) or drop == "none":
        return ()
    return ("camids", "clothes") if drop in _OF_CLOTHES else ("camids",)


@dataclass(frozen=True)
class DropRule:
    """A rule and the labels that it looks at; `of` makes one."""

    name: str  # of RULES, or "mask"
    pids: Sides
    camids: Sides | None = None  # cameras of one group have one number
    clothes: Sides | None = None
    mask: Mask | None = None

    @classmethod
    def of(
        cls,
        drop: Drop,
        pids: Sides,
        camids: Known,
        clothes: Known = (None, None),
        camera_groups: Sequence[Sequence[int]] = (),
    ) -> "DropRule":
        """Make a rule for labels of queries and gallery; arguments as in `evaluate_rank`.

        Raises InvalidInputError.
        """
        if drop is None or (isinstance(drop, str) and drop not in RULES):
            names = ", ".join(repr(name) for name in RULES)
            raise InvalidInputError(f"drop must be {names}, or a mask [Q, G], got {drop!r}")
        groups = _as_groups(camera_groups)
        if groups and not looks_at(drop):
            raise InvalidInputError("camera_groups is of rules that look at cameras; drop does not")
        if not isinstance(drop, str):
            return cls(_MASK, pids, mask=_as_mask(drop, len(pids[0]), len(pids[1])))
        if drop == "none":
            return cls(drop, pids)
        cameras = _both(camids, drop, "cameras", "camids", "; where there are none, drop='none'")
        cameras = _grouped(*cameras, groups)
        if drop not in _OF_CLOTHES:
            return cls(drop, pids, cameras)
        return cls(drop, pids, cameras, _both(clothes, drop, "clothes", "clothes"))

    @property
    def words(self) -> str:
        """What messages call it."""
        return "the mask" if self.name == _MASK else f"drop={self.name!r}"

    @property
    def of_anyone(self) -> bool:
        """Whether other people than the query's may be dropped."""
        return self.name in ("whole-camera", _MASK)

    def rows(self, queries: I64, items: I64) -> Bools:
        """Whether gallery items [n] are dropped from the rankings of queries [b]: [b,n]."""
        if callable(self.mask):
            return self._asked(self.mask, queries)[:, items]
        return self._looked_up(queries[:, None], items[None, :])

    def pairs(self, queries: I64, items: I64) -> Bools:
        """Whether items[p] is dropped from the ranking of queries[p]: [P]."""
        if not callable(self.mask):
            return self._looked_up(queries, items)
        dropped = np.empty(len(queries), bool)
        known, which = np.unique(queries, return_inverse=True)
        step = max(1, _AT_ONCE // len(self.pids[1]))
        for start in range(0, len(known), step):
            some = (which >= start) & (which < start + step)
            mask = self._asked(self.mask, known[start : start + step])
            dropped[some] = mask[which[some] - start, items[some]]
        return dropped

    def _asked(self, mask: Callable[[I64], ArrayLike], queries: I64) -> Bools:
        return _as_bools(mask(queries), (len(queries), len(self.pids[1])), "drop(queries)")

    def _looked_up(self, queries: I64, items: I64) -> Bools:
        """Queries and items in any shapes that broadcast."""
        if isinstance(self.mask, np.ndarray):
            given: Bools = self.mask[queries, items]
            return given
        if self.camids is None:
            return np.zeros(np.broadcast_shapes(queries.shape, items.shape), bool)
        dropped = _equal(self.camids, queries, items)
        if self.clothes is not None:
            dropped |= self._by_clothes(self.clothes, queries, items)
        if self.name != "whole-camera":
            dropped &= _equal(self.pids, queries, items)
        return dropped

    def _by_clothes(self, clothes: Sides, queries: I64, items: I64) -> Bools:
        """A pair of which one has unknown clothes is neither of the same nor of other clothes."""
        same = _equal(clothes, queries, items)
        unknown: Bools = (clothes[0][queries] < 0) | (clothes[1][items] < 0)
        return unknown | (same if self.name == "same-clothes" else ~same)


def _equal(sides: Sides, queries: I64, items: I64) -> Bools:
    equal: Bools = sides[0][queries] == sides[1][items]
    return equal


def _both(labels: Known, drop: str, what: str, name: str, otherwise: str = "") -> Sides:
    query, gallery = labels
    if query is None or gallery is None:
        raise InvalidInputError(
            f"drop={drop!r} looks at {what}: pass q_{name} and g_{name}{otherwise}"
        )
    return query, gallery


def _as_groups(groups: Any) -> list[list[int]]:
    """Return groups of cameras, none of which is in two."""
    found = [_as_group(group) for group in groups] if _is_list(groups) else [_as_group(groups)]
    cameras = [camera for group in found for camera in group]
    twice = [camera for place, camera in enumerate(cameras) if camera in cameras[:place]]
    if twice:
        raise InvalidInputError(f"camera_groups must name a camera once, got {twice[0]} again")
    return found


def _as_group(group: Any) -> list[int]:
    given = np.asarray(list(group) if _is_list(group) else None)
    if given.ndim != 1 or len(given) < 2 or given.dtype.kind not in "iu":
        raise InvalidInputError(
            f"camera_groups must hold groups of two or more cameras, as [(2, 3)], got {group!r}"
        )
    return list(group)  # as they were written, for messages


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence | Set | np.ndarray) and not isinstance(value, str)


def _grouped(query: I64, gallery: I64, groups: list[list[int]]) -> Sides:
    """Return camera ids in which the cameras of a group are one."""
    there = np.unique(np.concatenate([query, gallery])).tolist() if groups else []
    for camera in (camera for group in groups for camera in group):
        if camera not in there:
            raise InvalidInputError(
                f"camera_groups must name cameras that took images: {camera} is none of "
                f"{', '.join(map(str, there[:_NAMED]))}{', ...' * (len(there) > _NAMED)}"
            )
    for group in groups:
        query, gallery = (
            np.where(np.isin(camids, group), group[0], camids) for camids in (query, gallery)
        )
    return query, gallery


def _as_mask(drop: Any, num_query: int, num_gallery: int) -> Mask:
    if callable(drop):
        mask: Callable[[I64], ArrayLike] = drop
        return mask
    return _as_bools(drop, (num_query, num_gallery), "drop")


def _as_bools(value: ArrayLike, shape: tuple[int, int], name: str) -> Bools:
    try:
        given = host_array(copied_to_host(value))
    except NO_ARRAY as error:
        raise InvalidInputError(f"{name} cannot be read as an array: {error}") from error
    if given.dtype != bool or given.shape != shape:
        raise InvalidInputError(
            f"{name} must be booleans of shape {list(shape)}, true where an item is dropped, got "
            f"{given.dtype} of shape {list(given.shape)}"
        )
    return given
