"""What a search returns."""

from collections.abc import Mapping
from dataclasses import dataclass

from murank.engine.results import Match
from murank.engine.stopwatch import Stage


@dataclass(frozen=True)
class SearchResult:
    """The candidate matches of one query, best first, and how they came about."""

    matches: tuple[Match, ...]
    scored: int  # candidates that the MLLM saw: the nearest ones by the encoder
    candidates: int  # that it would have seen without deadline and early stop
    partial: bool  # the deadline left some out
    settled: bool  # an early stop did: the first ranks could no longer change
    seconds: Mapping[Stage, float]  # of a query; of a group the share of one query
