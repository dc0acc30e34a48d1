"""What each method is set to; `checked` raises InvalidInputError, and makes plain numbers."""

from dataclasses import dataclass
from typing import Any, Literal

from murank_kernels._exceptions import InvalidInputError
from murank_kernels.checks import validate

EcnMethod = Literal["rankdist", "origdist"]


@dataclass(frozen=True)
class KReciprocalSettings:
    """See `k_reciprocal`."""

    k1: int
    k2: int
    lambda_value: float
    squared: bool

    def checked(self) -> "KReciprocalSettings":
        """Return them as plain numbers."""
        counts = _counts(self, "k1", "k2")
        fraction = validate.as_fraction(self.lambda_value, "lambda_value")
        return KReciprocalSettings(**counts, lambda_value=fraction, squared=bool(self.squared))

    @property
    def length(self) -> int:
        """Entries of a neighbour list."""
        return max(self.k1 + 1, self.k2)


@dataclass(frozen=True)
class CaJaccardSettings:
    """See `ca_jaccard`."""

    k1: int
    k2: int
    k1_intra: int
    k1_inter: int
    k2_intra: int
    k2_inter: int
    ckrnns: bool
    clqe: bool
    lambda_value: float

    def checked(self) -> "CaJaccardSettings":
        """Return them as plain numbers."""
        counts = _counts(self, "k1", "k2", "k1_intra", "k1_inter", "k2_intra", "k2_inter")
        fraction = validate.as_fraction(self.lambda_value, "lambda_value")
        return CaJaccardSettings(
            **counts, ckrnns=bool(self.ckrnns), clqe=bool(self.clqe), lambda_value=fraction
        )

    @property
    def encoded(self) -> dict[str, int]:
        """The neighbours that a row is encoded by, by name."""
        if self.ckrnns:
            return {"k1_intra": self.k1_intra, "k1_inter": self.k1_inter}
        return {"k1": self.k1}

    @property
    def averaged(self) -> dict[str, int]:
        """The neighbours whose codes are averaged, by name."""
        if self.clqe:
            return {"k2_intra": self.k2_intra, "k2_inter": self.k2_inter}
        return {"k2": self.k2}

    @property
    def length(self) -> int:
        """Entries of a neighbour list."""
        return max(max(self.encoded.values()) + 1, *self.averaged.values())


@dataclass(frozen=True)
class EcnSettings:
    """See `ecn`."""

    k: int
    t: int
    q: int
    method: EcnMethod

    def checked(self) -> "EcnSettings":
        """Return them as plain numbers."""
        counts = _counts(self, "k", "t", "q")
        if self.method not in ("rankdist", "origdist"):
            raise InvalidInputError(f"method must be 'rankdist' or 'origdist', got {self.method!r}")
        return EcnSettings(**counts, method=self.method)


def _counts(settings: Any, *names: str) -> dict[str, int]:
    return {name: validate.as_count(getattr(settings, name), name) for name in names}
