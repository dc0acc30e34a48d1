"""What operators watch. No label names a person, an image, a camera or a path."""

from collections.abc import Mapping
from threading import Lock

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from murank.engine.stopwatch import Stage
from murank.gallery.gallery import Gallery
from murank.worker.worker import Worker

_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Metrics:
    """One service's, in a registry of their own."""

    def __init__(self, version: str) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "murank_requests", "Requests answered.", ["route", "code"], registry=registry
        )
        self.request_seconds = Histogram(
            "murank_request_seconds", "From a request's head to its answer's end.", ["route"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.queue_seconds = Histogram(
            "murank_queue_seconds", "Until work was begun.", buckets=_SECONDS, registry=registry
        )
        self.stage_seconds = Counter(
            "murank_stage_seconds", "Where the time of searches went.", ["stage"],
            registry=registry,
        )  # fmt: skip
        self.partial = Counter(
            "murank_partial", "Answers that a deadline cut short.", registry=registry
        )
        self._pairs = Counter("murank_pairs", "Pairs that the MLLM was asked.", registry=registry)
        self._known_pairs, self._lock = 0, Lock()
        self._depth = Gauge("murank_queue_depth", "Work that waits.", registry=registry)
        self._rows = Gauge("murank_gallery_rows", "Shots in the gallery.", registry=registry)
        self._bytes = Gauge("murank_gallery_bytes", "Of its file.", registry=registry)
        self._pending = Gauge(
            "murank_erasures_pending", "1: a reader kept an erasure from being complete.",
            registry=registry,
        )  # fmt: skip
        info = Gauge("murank_build_info", "1.", ["version"], registry=registry)
        info.labels(version).set(1)

    def count_stages(self, seconds: Mapping[Stage, float]) -> None:
        """Add a search's."""
        for stage, spent in seconds.items():
            self.stage_seconds.labels(stage).inc(spent)

    def text(self, worker: Worker, gallery: Gallery | None) -> bytes:
        """Return them as Prometheus reads them."""
        stats = worker.stats()
        self._depth.set(stats.waiting)
        with self._lock:
            self._pairs.inc(max(0, stats.pairs - self._known_pairs))
            self._known_pairs = max(stats.pairs, self._known_pairs)
        if gallery is not None:
            sizes = gallery.stats()
            self._rows.set(sizes.rows)
            self._bytes.set(sizes.bytes_on_disk)
            self._pending.set(sizes.erasures_pending)
        return generate_latest(self.registry)
