"""Exact re-ranking of person re-identification, from neighbour lists instead of N x N matrices.

Nothing heavy is imported before it is used: what counts cores needs no compiler.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from murank_kernels._exceptions import (
        DeviceUnavailableError,
        InvalidInputError,
        MurankKernelsError,
    )
    from murank_kernels.alignment.camera_alignment import (
        AlignmentWarning,
        CameraAlignment,
        align_cameras,
    )
    from murank_kernels.evaluation.rank_evaluator import (
        RankEvaluation,
        RankEvaluator,
        evaluate_rank,
    )
    from murank_kernels.fusion.fuse_mu import fuse_mu
    from murank_kernels.methods.ca_jaccard import ca_jaccard, ca_jaccard_blocks
    from murank_kernels.methods.ecn import ecn, ecn_blocks
    from murank_kernels.methods.k_reciprocal import k_reciprocal, k_reciprocal_blocks
    from murank_kernels.methods.re_ranking import re_ranking
    from murank_kernels.methods.simple import simple, simple_blocks
    from murank_kernels.online.online_ca_jaccard import OnlineCaJaccard, OnlineCameraQuery
    from murank_kernels.online.online_k_reciprocal import OnlineKReciprocal, OnlineQuery
    from murank_kernels.tiles.distance_blocks import DistanceBlocks
    from murank_kernels.tiles.selection import smallest_k

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
    "tiles.distance_blocks": ("DistanceBlocks",),
    "methods.ca_jaccard": ("ca_jaccard", "ca_jaccard_blocks"),
    "methods.ecn": ("ecn", "ecn_blocks"),
    "evaluation.rank_evaluator": ("RankEvaluation", "RankEvaluator", "evaluate_rank"),
    "_exceptions": ("DeviceUnavailableError", "InvalidInputError", "MurankKernelsError"),
    "fusion.fuse_mu": ("fuse_mu",),
    "methods.k_reciprocal": ("k_reciprocal", "k_reciprocal_blocks"),
    "online.online_k_reciprocal": ("OnlineKReciprocal", "OnlineQuery"),
    "online.online_ca_jaccard": ("OnlineCaJaccard", "OnlineCameraQuery"),
    "methods.re_ranking": ("re_ranking",),
    "tiles.selection": ("smallest_k",),
    "methods.simple": ("simple", "simple_blocks"),
    "alignment.camera_alignment": ("AlignmentWarning", "CameraAlignment", "align_cameras"),
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
