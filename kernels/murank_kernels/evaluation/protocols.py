"""Names of the protocols; apart, since command lines name them before anything is compiled."""

from typing import Literal

Protocol = Literal["market1501", "cuhk03", "trapezoid", "sysu"]
PROTOCOLS: tuple[Protocol, ...] = ("market1501", "cuhk03", "trapezoid", "sysu")
