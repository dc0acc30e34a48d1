"""The steps of re-ranking on an NVIDIA GPU: what device="cuda" runs.

Arrays and the matrix product are CuPy's; kernels are compiled by Numba, kept on disk, and started
by CuPy. Without a GPU they run in Numba's simulator. Nothing here is imported before device="cuda"
is asked for.
"""

from murank_kernels.cuda._alignment import unit_rows
from murank_kernels.cuda._evaluation import is_float32_matrix, match_places
from murank_kernels.cuda._methods import (
    ca_jaccard_blocks,
    ecn_blocks,
    k_reciprocal_blocks,
    simple_blocks,
)
from murank_kernels.cuda._prepare import to_host

__all__ = [
    "ca_jaccard_blocks",
    "ecn_blocks",
    "is_float32_matrix",
    "k_reciprocal_blocks",
    "match_places",
    "simple_blocks",
    "to_host",
    "unit_rows",
]
