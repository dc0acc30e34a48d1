"""What a search returns."""

from collections.abc import Mapping
from dataclasses import dataclass

from murank.engine.stopwatch import Stage


@dataclass(frozen=True)
class SearchMatch:
    """One candidate match; a person decides whether it is one."""

    corpus_id: int  # its place in the gallery
    distance: float  # what it was ranked by, small = same person
    mu: float | None  # p("different person"); None where the MLLM did not see it
    encoder_distance: float  # Euclidean, of unit features (aligned ones, if they are), in [0,2]


@dataclass(frozen=True)
class SearchResult:
    """The candidate matches of one query, best first, and how they came about."""

    matches: tuple[SearchMatch, ...]
    scored: int  # candidates that the MLLM saw: the nearest ones by the encoder
    candidates: int  # that it would have seen without deadline and early stop
    partial: bool  # the deadline left some out
    settled: bool  # an early stop did: the first ranks could no longer change
    seconds: Mapping[Stage, float]  # of a query; of a group the share of one query
