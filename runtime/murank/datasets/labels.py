"""Who is on an image, and which camera took it."""

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

    Cameras are not known of every data set, nor are clothes. These tell the outfits of a person
    apart; -1: of this image they are not known.
    """

    q_pids: Ids  # [Q]
    g_pids: Ids  # [G]
    q_camids: Ids | None = None  # [Q]
    g_camids: Ids | None = None  # [G]
    q_clothes: Ids | None = None  # [Q]
    g_clothes: Ids | None = None  # [G]

    def as_arguments(self) -> tuple[Ids, Ids, Ids | None, Ids | None]:
        """Return person and camera ids in order."""
        return self.q_pids, self.g_pids, self.q_camids, self.g_camids
