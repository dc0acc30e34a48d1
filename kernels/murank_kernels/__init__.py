"""Exact re-ranking of person re-identification, from neighbour lists instead of N x N matrices."""

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
from murank_kernels._re_ranking import re_ranking
from murank_kernels._selection import smallest_k
from murank_kernels._simple import simple, simple_blocks

__all__ = [
    "DeviceUnavailableError",
    "DistanceBlocks",
    "InvalidInputError",
    "MurankKernelsError",
    "OnlineKReciprocal",
    "OnlineQuery",
    "RankEvaluation",
    "RankEvaluator",
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
