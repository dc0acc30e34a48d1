"""Fused squared distances of some queries to the whole gallery."""

from dataclasses import dataclass

import numpy as np

from murank_kernels._fusion import Changes
from murank_kernels._neighbors import finish_tile, squared_norms
from murank_kernels._types import F32


@dataclass(frozen=True)
class QueryRows:
    """What squared distances [b,G] are made from."""

    features: F32  # [N,D]
    norms: F32  # [N] squared length of each row
    num_query: int
    changes: Changes

    @classmethod
    def of(cls, features: F32, num_query: int, changes: Changes) -> "QueryRows":
        """Build, computing the norms."""
        return cls(features, squared_norms(features), num_query, changes)

    def measure(self, first_query: int, rows: F32) -> None:
        """Write the squared distances of the queries first_query.. into rows [b,G]."""
        queries = self.features[first_query : first_query + len(rows)]
        np.matmul(queries, self.features[self.num_query :].T, out=rows)
        finish_tile(
            rows, self.norms, first_query, self.num_query,
            self.changes.indptr, self.changes.indices, self.changes.values,
        )  # fmt: skip
