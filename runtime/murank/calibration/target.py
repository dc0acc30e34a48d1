"""What an operating threshold is chosen by."""

import math
from dataclasses import dataclass
from typing import Literal

from murank._exceptions import InputError

TargetKind = Literal["fmr", "fnmr", "eer"]
_RULE = 3  # rule of three: without an error in 3/p pairs, the rate is below p with 95 % confidence


@dataclass(frozen=True)
class ThresholdTarget:
    """An error rate not to exceed, or equal rates."""

    kind: TargetKind = "fmr"
    value: float | None = 0.01  # the rate; None for "eer"

    def __post_init__(self) -> None:
        if self.kind not in ("fmr", "fnmr", "eer"):
            raise InputError(f"the target must be fmr, fnmr or eer, got {self.kind!r}")
        if self.kind == "eer" and self.value is not None:
            raise InputError("the target eer takes no value")
        if self.kind != "eer" and (self.value is None or not 0 < self.value < 1):
            raise InputError(f"the target {self.kind} must be between 0 and 1, got {self.value}")

    def __str__(self) -> str:
        if self.value is None:
            return "FMR = FNMR"
        return f"{self.kind.upper()} at most {100 * self.value:g} %"

    def check(self, *, same: int, different: int) -> None:
        """Raise InputError unless that many pairs of each kind can tell whether it is met."""
        for count, kind in ((same, "of the same person (Yes)"), (different, "of two people (No)")):
            if count == 0:
                raise InputError(f"no pair {kind} is there; both kinds are needed")
        if self.value is None:
            return
        count, kind = (different, "No") if self.kind == "fmr" else (same, "Yes")
        needed = math.ceil(_RULE / self.value - 1e-9)
        if count < needed:
            raise InputError(
                f"{count} pairs labelled {kind} cannot tell whether {self} holds: {needed} are "
                f"needed (rule of three); add pairs, or pass a larger --{self.kind}"
            )
