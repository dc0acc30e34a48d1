"""Who is on an image, and which camera took it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.integer[Any]]
JUNK_PID = -1


@dataclass(frozen=True)
class Labels:
    """Person and camera ids of queries and gallery, in the order evaluators take them."""

    q_pids: Ids  # [Q]
    g_pids: Ids  # [G]
    q_camids: Ids  # [Q]
    g_camids: Ids  # [G]

    def as_arguments(self) -> tuple[Ids, Ids, Ids, Ids]:
        """Return the four arrays in order."""
        return self.q_pids, self.g_pids, self.q_camids, self.g_camids

    def without_junk(self) -> "Labels":
        """Return those whose pid is not -1, on either side."""
        query, gallery = self.q_pids != JUNK_PID, self.g_pids != JUNK_PID
        return Labels(
            self.q_pids[query], self.g_pids[gallery], self.q_camids[query], self.g_camids[gallery]
        )

    def junk_note(self, junk: str) -> str | None:
        """Say how many have pid -1 and what becomes of them; None: there are none."""
        counts = {
            "query": int((self.q_pids == JUNK_PID).sum()),
            "gallery image": int((self.g_pids == JUNK_PID).sum()),
        }
        found = [f"{count} of pid -1 ({name})" for name, count in counts.items() if count]
        if not found:
            return None
        if junk == "drop":
            return f"left out of the evaluation as junk: {', '.join(found)}"
        return (
            f"evaluated as persons: {', '.join(found)}; where -1 is junk, as in Market-1501, "
            "pass --drop-junk (junk='drop')"
        )

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


def _count(wanted: Ids, values: Ids) -> NDArray[np.int64]:
    """Return how often each of `wanted` occurs in `values`."""
    ordered = np.sort(values)
    return np.searchsorted(ordered, wanted, "right") - np.searchsorted(ordered, wanted, "left")
