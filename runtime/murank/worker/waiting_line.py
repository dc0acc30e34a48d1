"""Work that waits: so much and no more, the earliest deadline first."""

import heapq
from collections import deque
from collections.abc import Iterator
from typing import Any

from murank.worker.work import Work


class WaitingLine:
    """Queries by their ends, ingest as it came. Not safe from several threads."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._queries: list[tuple[tuple[float, int], Work[Any]]] = []
        self._ingest: deque[Work[Any]] = deque()

    def __len__(self) -> int:
        return len(self._queries) + len(self._ingest)

    @property
    def first_end(self) -> float | None:
        """When the query that goes next is to end; None: none waits."""
        return self._queries[0][1].end if self._queries else None

    @property
    def has_ingest(self) -> bool:
        """Whether ingest waits."""
        return bool(self._ingest)

    def ahead_of(self, end: float) -> int:
        """Queries that go before one with this end."""
        return sum(order[0] <= end for order, _ in self._queries)

    def add_query(self, work: Work[Any]) -> None:
        """Let a query wait."""
        heapq.heappush(self._queries, (work.order, work))

    def add_ingest(self, work: Work[Any]) -> None:
        """Let ingest wait."""
        self._ingest.append(work)

    def drop_unwanted(self) -> None:
        """Take out what was cancelled: it has its answer already."""
        self._queries = [one for one in self._queries if not one[1].answer.is_unwanted]
        heapq.heapify(self._queries)
        self._ingest = deque(one for one in self._ingest if not one.answer.is_unwanted)

    def next_query(self) -> Work[Any]:
        """Take out the query that ends first."""
        return heapq.heappop(self._queries)[1]

    def next_ingest(self) -> Work[Any]:
        """Take out the ingest that came first."""
        return self._ingest.popleft()

    def empty(self) -> Iterator[Work[Any]]:
        """Take out all."""
        while self._queries:
            yield self.next_query()
        while self._ingest:
            yield self.next_ingest()
