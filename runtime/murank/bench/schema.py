"""What a report of `murank bench` holds; docs/bench-schema.md tells of every key."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from murank.bench.bench_settings import Method, Scenario
from murank.engine.stopwatch import Stage
from murank.files.records import Must, Record
from murank.folder.precision import Precision
from murank.rerank.alignment import Done

SCHEMA_VERSION = 4


def _is_list_of(kind: type, values: Any) -> bool:
    # bool is an int to Python.
    return isinstance(values, list) and all(type(value) is kind for value in values)


def _are_latencies(values: Any) -> bool:
    return (
        _is_list_of(int, values) and len(values) > 0 and 0 <= min(values) <= max(values) < 1 << 53
    )


SchemaVersion = Annotated[int, Must(lambda version: version == SCHEMA_VERSION, str(SCHEMA_VERSION))]
Count = Annotated[int, Must(lambda value: value >= 0, "at least 0")]
Size = Annotated[int, Must(lambda value: value >= 1, "at least 1")]
Amount = Annotated[float, Must(lambda value: value >= 0, "at least 0")]
Above0 = Annotated[float, Must(lambda value: value > 0, "above 0")]
Share = Annotated[float, Must(lambda value: 0 <= value <= 1, "in 0..1")]
Latencies = Annotated[
    Any, Must(_are_latencies, "a list of whole microseconds of at least 0, with one at least")
]
# Valid: all answered, and p99 within the bound as surely as LoadGen asks for.
Verdict = Literal["valid", "invalid", "undecided", "interrupted"]
Texts = Annotated[Any, Must(lambda values: _is_list_of(str, values), "a list of texts")]
Sha256 = Annotated[
    str, Must(lambda text: len(text) == 64 and set(text) <= set("0123456789abcdef"), "a sha256")
]


@dataclass(frozen=True)
class StageFigures(Record):
    """Seconds of one stage, over all samples (0 where it did not run)."""

    mean_ms: Amount
    p50_ms: Amount
    p99_ms: Amount
    share: Amount  # of the time spent answering; waiting for one's turn is not part of it


@dataclass(frozen=True)
class LatencyFigures(Record):
    """Of queries or, in MultiStream, of groups. Quantiles by nearest rank."""

    count: Size
    mean_ms: Amount
    p50_ms: Amount
    p90_ms: Amount
    p95_ms: Amount
    p99_ms: Amount
    max_ms: Amount
    # LoadGen's estimates; null: too few samples (or Offline, or a report before version 4)
    p90_early_ms: Amount | None
    p99_early_ms: Amount | None


@dataclass(frozen=True)
class Target(Record):
    """What MLPerf judges the scenario by."""

    quantile: Share
    least_samples: Size  # for an estimate


@dataclass(frozen=True)
class DeadlineFigures(Record):
    """How answers in time went."""

    deadline_ms: Above0
    partial: Count  # answers whose candidates the MLLM did not all see
    late: Count  # answers after the deadline
    largest_overshoot_ms: Amount


@dataclass(frozen=True)
class ServerFigures(Record):
    """How a Server section fared."""

    scheduled: Size  # queries that arrived; if interrupted, until the last answer
    unanswered: Count  # of them, when the run was ended
    latency_bound_ms: Above0
    late: Count | None  # answers beyond the bound; since version 4
    least_queries: Size | None  # that show p99 within the bound with so many late; since version 4
    verdict: Verdict


@dataclass(frozen=True)
class Section(Record):
    """One series of measurements."""

    queries: Size
    seconds: Amount
    throughput_qps: Amount
    cpu_ms_per_query: Amount  # all threads
    scored_per_query: Amount  # candidates that the MLLM saw
    latency: LatencyFigures
    target: Target | None  # null in Offline; since version 4
    stages: Mapping[Stage, StageFigures]  # of samples: groups in MultiStream and Offline
    deadline: DeadlineFigures | None
    server: ServerFigures | None
    latencies_us: Latencies
    # Of the same samples: when each arrived after the section began, how long it waited, and how
    # long it was worked on; since version 4
    arrivals_us: Latencies | None
    waits_us: Latencies | None
    services_us: Latencies | None


@dataclass(frozen=True)
class ColdFigures(Record):
    """Fresh processes, from their start on: medians of `runs`."""

    runs: Size
    import_ms: Amount  # the interpreter, murank, onnxruntime
    load_ms: Amount  # the engine, its hashes checked
    gallery_ms: Amount  # the searcher's lists
    first_ms: Amount  # the first query; nothing is cached
    second_ms: Amount  # another query
    answered_ms: Amount  # from the start of the process to the first answer


@dataclass(frozen=True)
class MemoryFigures(Record):
    """Bytes; null where this machine does not tell."""

    loaded_bytes: Count | None  # resident, with engine and gallery in memory
    peak_bytes: Count | None  # largest resident size of the process, ever
    device_bytes: Count | None  # of the GPU, at the end


@dataclass(frozen=True, kw_only=True)
class SettingsRecord(Record):
    """What was asked for."""

    scenario: Scenario
    candidates: Size
    gallery_size: Size
    gallery_pool: Size  # distinct images
    method: Method | None  # null: no encoder, nothing is ranked
    images: Literal["drawn", "given"]
    alignment: Done  # of features to cameras; since version 3
    duration_s: Above0
    uncached_share: Share
    warmup_s: Amount
    qps: Above0 | None
    streams: Size | None
    deadline_ms: Above0 | None
    seed: Count


@dataclass(frozen=True, kw_only=True)
class Environment(Record):
    """Where it was measured. No names of hosts, users or folders."""

    started: str  # UTC, ISO 8601
    murank: str
    python: str
    numpy: str
    numba: str
    onnxruntime: str
    system: str  # kernel and architecture
    board: str | None  # of a device tree, as Jetsons have one
    cpu: str | None
    cores: Size  # physical, that this process may use
    load_average: Amount | None  # of the last minute, at the start
    power_mode: str | None
    gpu: str | None
    gpu_driver: str | None
    threads: Size  # of one operator
    thread_variables: Mapping[str, str]  # of the environment, those that are set
    providers: Mapping[str, Texts]  # that run each graph, first choice first; {} if never loaded
    engine_sha256: Sha256
    precision: Precision
    layout: str | None


@dataclass(frozen=True, kw_only=True)
class BenchReport(Record):
    """All that a run of `murank bench` measured."""

    schema_version: SchemaVersion = SCHEMA_VERSION
    status: Literal["complete", "interrupted"]
    settings: SettingsRecord
    environment: Environment
    cached: Section | None
    uncached: Section | None
    cold: ColdFigures | None
    sweep: Mapping[str, Section]  # number of candidates -> cached, one query at a time
    memory: MemoryFigures | None
    notes: Texts  # what the reader must know; since version 2
