"""How pairs are mined."""

from dataclasses import dataclass

from murank import InputError


@dataclass(frozen=True)
class MiningSettings:
    """How pairs are mined. Raises InputError if a value is out of its range."""

    k: int = 4  # candidates of each kind a query; ours: the paper names none
    val_ratio: float = 0.1  # share of the people who validate, above 0 and below 1
    seed: int = 0  # of the split and of random pairs
    cross_camera: bool = False  # positives of other cameras than the query's only
    random: bool = False  # random pairs, too: k others of the query's side, whoever they are

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InputError(f"--k (k) must be at least 1, got {self.k}")
        if not 0 < self.val_ratio < 1:
            raise InputError(
                f"--val-ratio (val_ratio) must be above 0 and below 1, got {self.val_ratio:g}"
            )
        if self.seed < 0:
            raise InputError(f"--seed (seed) must be at least 0, got {self.seed}")
