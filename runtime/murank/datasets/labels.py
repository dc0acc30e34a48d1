"""Who is on an image, and which camera took it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.integer[Any]]
JUNK_PID = -1
NO_CLOTHES = -1  # what a person wears is not known


@dataclass(frozen=True)
class Labels:
    """Ids of queries and gallery, in the order evaluators take them.

    Clothes tell the outfits of a person apart, where that is known; -1: of this image it is not.
    """

    q_pids: Ids  # [Q]
    g_pids: Ids  # [G]
    q_camids: Ids  # [Q]
    g_camids: Ids  # [G]
    q_clothes: Ids | None = None  # [Q]
    g_clothes: Ids | None = None  # [G]

    def as_arguments(self) -> tuple[Ids, Ids, Ids, Ids]:
        """Return person and camera ids in order."""
        return self.q_pids, self.g_pids, self.q_camids, self.g_camids

    def counted(self, protocol: Mapping[str, Any]) -> "Labels":
        """Return those that an evaluator counts, given its keyword arguments."""
        is_junk = self.q_pids == JUNK_PID, self.g_pids == JUNK_PID
        query, gallery = (
            ~junk if dropped else np.ones(len(junk), bool)
            for junk, dropped in zip(is_junk, _dropped(protocol), strict=True)
        )
        return Labels(
            self.q_pids[query], self.g_pids[gallery], self.q_camids[query], self.g_camids[gallery],
            None if self.q_clothes is None else self.q_clothes[query],
            None if self.g_clothes is None else self.g_clothes[gallery],
        )  # fmt: skip

    def junk_notes(self, protocol: Mapping[str, Any]) -> list[str]:
        """Say how many have pid -1 and what an evaluator makes of them; none: there are none."""
        sides = zip(
            ("query", "gallery image"), (self.q_pids, self.g_pids), _dropped(protocol), strict=True
        )
        kept: list[str] = []
        left_out: list[str] = []
        for name, pids, dropped in sides:
            count = int((pids == JUNK_PID).sum())
            if count:
                (left_out if dropped else kept).append(f"{count} of pid -1 ({name})")
        notes = []
        if left_out:
            notes.append(f"left out of the evaluation as junk: {', '.join(left_out)}")
        if kept:
            notes.append(
                f"evaluated as persons: {', '.join(kept)}; where -1 is junk, as in Market-1501, "
                "pass --drop-junk (junk='drop')"
            )
        return notes

    def num_matches(self) -> NDArray[np.int64]:
        """Return for each query the number of gallery images of its pid from other cameras."""
        num_query = len(self.q_pids)
        _, pids = np.unique(np.concatenate([self.q_pids, self.g_pids]), return_inverse=True)
        cameras, camids = np.unique(
            np.concatenate([self.q_camids, self.g_camids]), return_inverse=True
        )
        both = pids.astype(np.int64) * len(cameras) + camids
        same_pid = _count(pids[:num_query], pids[num_query:])
        return same_pid - _count(both[:num_query], both[num_query:])


def _dropped(protocol: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether an evaluator leaves out junk among queries and in the gallery."""
    dropped = protocol.get("junk") == "drop"
    return dropped, dropped or protocol.get("protocol") == "trapezoid"


def _count(wanted: Ids, values: Ids) -> NDArray[np.int64]:
    """Return how often each of `wanted` occurs in `values`."""
    ordered = np.sort(values)
    return np.searchsorted(ordered, wanted, "right") - np.searchsorted(ordered, wanted, "left")
