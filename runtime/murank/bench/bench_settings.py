"""What a benchmark is asked to do, checked before anything is loaded."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from murank._exceptions import InputError, UsageError
from murank.rerank.alignment import Asked

Scenario = Literal["SingleStream", "MultiStream", "Server", "Offline"]
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)
# By which quantile of its latencies MLPerf judges each; Offline by its throughput.
TARGETS: Mapping[Scenario, float | None] = {
    "SingleStream": 0.9, "MultiStream": 0.99, "Server": 0.99, "Offline": None
}  # fmt: skip
Method = Literal["k-reciprocal", "simple", "none"]
METHODS: tuple[Method, ...] = get_args(Method)

STREAMS = 8
BOUND_MS = 1000.0
_SMALLEST_POOL = 64  # distinct gallery images
_POOL_A_CANDIDATE = 4
_MOST_ASKED = 32  # people that queries show
MOST_AT_ONCE = 20_000  # queries whose images are written before the first is asked


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """Scenario and load. Raises UsageError or InputError for what cannot be."""

    scenario: Scenario = "SingleStream"
    candidates: int = 20  # that the MLLM sees, a query
    gallery_size: int = 1000
    method: Method | None = "k-reciprocal"  # None: the engine has no encoder to rank by
    duration: float = 10.0  # seconds that are measured, both sections together
    uncached_share: float = 0.25  # of the duration, with all caches cleared before each query
    warmup: float = 2.0  # seconds before, not measured
    qps: float | None = None  # arrivals a second, Server
    latency_bound_ms: float | None = None  # of p99, Server
    streams: int | None = None  # queries in a group, MultiStream
    deadline_ms: float | None = None
    align_cameras: Asked = "auto"  # where the cameras of the images are known
    sweep: bool = False  # also measure other numbers of candidates
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_scenario()

    def _check_numbers(self) -> None:
        for name in ("duration", "qps", "latency_bound_ms", "deadline_ms"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InputError(f"{_flag(name)} must be a number above 0, got {value:g}")
        if not (math.isfinite(self.warmup) and self.warmup >= 0):
            raise InputError(f"--warmup must be a number of at least 0, got {self.warmup:g}")
        if not 0 <= self.uncached_share < 1:
            raise InputError(f"--uncached-share must be in 0..1, got {self.uncached_share:g}")
        for name in ("candidates", "gallery_size", "streams"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{_flag(name)} must be at least 1, got {value}")
        if self.seed < 0:
            raise InputError(f"--seed must be at least 0, got {self.seed}")
        if self.candidates > self.gallery_size:
            raise InputError(
                f"{self.candidates} candidates are more than the {self.gallery_size} images of the "
                "gallery: pass a smaller --candidates or a larger --gallery-size"
            )

    def _check_scenario(self) -> None:
        for name, scenario in (
            ("qps", "Server"), ("latency_bound_ms", "Server"), ("streams", "MultiStream")
        ):  # fmt: skip
            if getattr(self, name) is not None and self.scenario != scenario:
                raise UsageError(f"{_flag(name)} is used by --scenario {scenario} only")
        if self.scenario == "Server" and self.qps is None:
            raise UsageError("--scenario Server needs --qps, the arrivals a second")
        self._check_images()
        if self.deadline_ms is not None and self.scenario in ("MultiStream", "Offline"):
            raise UsageError(
                "--deadline-ms is for one query at a time: --scenario SingleStream or Server"
            )

    def _check_images(self) -> None:
        if self.qps is not None and self.qps * self.duration > MOST_AT_ONCE:
            raise UsageError(
                f"--qps {self.qps:g} for {self.duration:g} s are {self.qps * self.duration:.0f} "
                f"queries, and at most {MOST_AT_ONCE} images are made beforehand: pass a smaller "
                "--qps or --duration"
            )
        if self.group > MOST_AT_ONCE:
            raise UsageError(
                f"--streams {self.group}: at most {MOST_AT_ONCE} images are made beforehand"
            )

    @property
    def group(self) -> int:
        """Queries in a group."""
        return self.streams or STREAMS

    @property
    def bound_ms(self) -> float:
        """What p99 must be within, in Server."""
        return self.latency_bound_ms or BOUND_MS

    def seconds_for(self, arrivals: int) -> int:
        """Return a --duration in which so many queries arrive, all but surely."""
        if self.qps is None:
            return 0
        # Poisson: twice the standard deviation more than asked for is enough 98 times in 100.
        expected = arrivals + 2 * math.sqrt(arrivals) + 4
        return math.ceil(expected / self.qps / (1 - self.uncached_share))

    @property
    def pool(self) -> int:
        """Distinct gallery images, several times as many as candidates."""
        return min(self.gallery_size, max(_SMALLEST_POOL, _POOL_A_CANDIDATE * self.candidates))

    @property
    def asked(self) -> int:
        """Images that queries are made from: each in the middle of a whole cluster.

        The last cluster of a gallery may have fewer images than a query has candidates.
        """
        return min(self.gallery_size // self.pool, _MOST_ASKED)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
