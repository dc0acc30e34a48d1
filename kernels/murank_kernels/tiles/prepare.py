"""The first step that every method shares: checked, normalised, fused input."""

from dataclasses import dataclass, field
from typing import Any

from murank_kernels._exceptions import InvalidInputError
from murank_kernels._types import F32, I32, I64
from murank_kernels.checks import validate
from murank_kernels.fusion.changes import Changes, fused_changes
from murank_kernels.fusion.fusion import Fusion, NamedPairs
from murank_kernels.fusion.scores import ScoredPairs
from murank_kernels.loops.parallel import Progress
from murank_kernels.tiles.distances import DistanceTiles, fill_squared_distances
from murank_kernels.tiles.search import Search


@dataclass(frozen=True)
class MethodInput:
    """What every method is given beside its settings, as `k_reciprocal` tells; not checked yet."""

    features: Any  # [N,D]
    num_query: int
    fusion: Fusion = field(default_factory=Fusion)
    normalize: bool = True
    device: str = "cpu"
    products: str = "float32"
    progress: Progress | None = None

    def on_device(self, search: Search | None = None) -> bool:
        """Whether a GPU is asked for. Raises InvalidInputError: it cannot do what is asked."""
        validate.check_products(self.products, self.device)
        if search is not None and self.device == "cuda":
            raise InvalidInputError("search is for device='cpu': a GPU looks itself; leave it out")
        return self.device == "cuda"

    def checked(self) -> "Checked":
        """Check everything but the values of the features, wherever these are."""
        alpha = self.fusion.weight()
        num_rows = validate.num_rows(self.features)
        num_query = validate.as_num_query(self.num_query, num_rows)
        pairs = self.fusion.named_pairs(num_query, num_rows - num_query)
        return Checked(num_query, num_rows, alpha, pairs)


@dataclass(frozen=True)
class Checked:
    """What the methods have in common beside features, known to be good."""

    num_query: int
    num_rows: int
    alpha: float
    pairs: NamedPairs  # scored ones


@dataclass(frozen=True)
class Prepared:
    """Input that is known to be good."""

    features: F32  # [N,D]
    num_query: int
    changes: Changes

    @property
    def num_gallery(self) -> int:
        """G."""
        return len(self.features) - self.num_query

    def tiles(self) -> DistanceTiles:
        """What makes fused squared distances."""
        return DistanceTiles.of(self.features, self.changes)

    def pair_distances(self, rows: tuple[int, int], indptr: I64, indices: I32, out: F32) -> None:
        """Write the fused squared distance of each stored pair of these rows to `out`."""
        fill_squared_distances(self.features, rows, indptr, indices, self.changes, out)


def prepare(given: MethodInput) -> Prepared:
    """Check everything that the methods have in common, then normalise and fuse."""
    validate.check_device(given.device)
    checked = given.checked()
    rows = validate.as_features(given.features, normalize=given.normalize)
    pairs = ScoredPairs.of(*checked.pairs, checked.num_rows)
    return Prepared(rows, checked.num_query, fused_changes(rows, pairs, checked.alpha))
