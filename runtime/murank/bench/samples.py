"""What one answer, or the answer to one group of queries, took."""

from collections.abc import Mapping
from dataclasses import dataclass

from murank.engine.stopwatch import Stage


@dataclass(frozen=True)
class TimedAnswer:
    """What the thing under test says of a query, or of a group."""

    stages: Mapping[Stage, float]  # seconds; of the whole group
    scored: int  # candidates that the MLLM saw
    candidates: int  # that it would have seen with time enough


@dataclass(frozen=True)
class Sample:
    """A query, or a group of queries, that was answered."""

    queries: int
    latency: float  # seconds from when it was due to its answer
    service: float  # seconds from when it was begun to its answer
    cpu: float  # seconds of all threads meanwhile
    answer: TimedAnswer
    overshoot: float = 0.0  # seconds after the deadline
    ended: float = 0.0  # seconds after the section began
