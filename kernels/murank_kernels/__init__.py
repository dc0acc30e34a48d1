"""Exact re-ranking of person re-identification, from neighbour lists instead of N x N matrices.

Nothing heavy is imported before it is used: what counts cores needs no compiler.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from murank_kernels._blocks import DistanceBlocks
    from murank_kernels._ca_jaccard import ca_jaccard, ca_jaccard_blocks
    from murank_kernels._ecn import ecn, ecn_blocks
    from murank_kernels._evaluation import RankEvaluation, RankEvaluator, evaluate_rank
    from murank_kernels._exceptions import (
        DeviceUnavailableError,
        InvalidInputError,
        MurankKernelsError,
    )
    from murank_kernels._fusion import fuse_mu
    from murank_kernels._k_reciprocal import k_reciprocal, k_reciprocal_blocks
    from murank_kernels._online import OnlineKReciprocal, OnlineQuery
    from murank_kernels._online_cameras import OnlineCaJaccard, OnlineCameraQuery
    from murank_kernels._re_ranking import re_ranking
    from murank_kernels._selection import smallest_k
    from murank_kernels._simple import simple, simple_blocks
    from murank_kernels.alignment import AlignmentWarning, CameraAlignment, align_cameras

__all__ = [
    "AlignmentWarning",
    "CameraAlignment",
    "DeviceUnavailableError",
    "DistanceBlocks",
    "InvalidInputError",
    "MurankKernelsError",
    "OnlineCaJaccard",
    "OnlineCameraQuery",
    "OnlineKReciprocal",
    "OnlineQuery",
    "RankEvaluation",
    "RankEvaluator",
    "align_cameras",
    "ca_jaccard",
    "ca_jaccard_blocks",
    "ecn",
    "ecn_blocks",
    "evaluate_rank",
    "fuse_mu",
    "k_reciprocal",
    "k_reciprocal_blocks",
    "re_ranking",
    "simple",
    "simple_blocks",
    "smallest_k",
]

_HOMES = {
    "_blocks": ("DistanceBlocks",),
    "_ca_jaccard": ("ca_jaccard", "ca_jaccard_blocks"),
    "_ecn": ("ecn", "ecn_blocks"),
    "_evaluation": ("RankEvaluation", "RankEvaluator", "evaluate_rank"),
    "_exceptions": ("DeviceUnavailableError", "InvalidInputError", "MurankKernelsError"),
    "_fusion": ("fuse_mu",),
    "_k_reciprocal": ("k_reciprocal", "k_reciprocal_blocks"),
    "_online": ("OnlineKReciprocal", "OnlineQuery"),
    "_online_cameras": ("OnlineCaJaccard", "OnlineCameraQuery"),
    "_re_ranking": ("re_ranking",),
    "_selection": ("smallest_k",),
    "_simple": ("simple", "simple_blocks"),
    "alignment": ("AlignmentWarning", "CameraAlignment", "align_cameras"),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            value: object = getattr(importlib.import_module(f"murank_kernels.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
