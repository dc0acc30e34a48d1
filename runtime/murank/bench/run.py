"""A benchmark from beginning to end, and what there is of it if somebody presses Ctrl-C."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from murank._exceptions import MachineError, UsageError
from murank.backends.protocol import Products
from murank.backends.providers import Providers
from murank.bench.bench_settings import MOST_AT_ONCE, BenchSettings
from murank.bench.clock import Clock
from murank.bench.cold_start import cold_job, cold_runs
from murank.bench.environment import environment
from murank.bench.gallery_room import check_room
from murank.bench.measured import Measured
from murank.bench.samples import Sample
from murank.bench.scenarios import (
    BLOCK,
    Queries,
    arrivals,
    multi_stream,
    offline,
    server,
    single_stream,
)
from murank.bench.schema import BenchReport, MemoryFigures
from murank.bench.subject import subject_of
from murank.bench.workload import NewQueries, Workload, given_workload, made_workload
from murank.engine.engine import Engine, Part
from murank.files.aside import temporary_folder
from murank.folder.manifest import Manifest
from murank.images import DEFAULT_LIMITS, DecodeLimits
from murank.machine import hardware as _machine
from murank.machine.device_kind import on_cpu
from murank.machine.memory import available_bytes
from murank.rerank.alignment import Alignment, Done, level_of

Progress = Callable[[str, int, int], None]
_LEAST_CACHE_MB = 256
_POOLS = 4  # of vision tokens that fit into the cache: those of the queries come and go
_LEAST = 3  # queries in a warm-up, and at each point of a sweep
_SWEEP_SHARE = 0.1  # of the duration, at each point


@dataclass(frozen=True)
class EngineOptions:
    """Which engine, and how it runs."""

    folder: Path
    manifest: Manifest
    sha256: str
    providers: Providers = "auto"
    products: Products = "float32"
    plans: Path | None = None
    threads: int | None = None
    bits: int | None = None  # of 16-bit images
    decode_limits: DecodeLimits = DEFAULT_LIMITS

    @property
    def parts(self) -> list[Part]:
        """Those it has."""
        has: list[tuple[Part, Any]] = [
            ("encoder", self.manifest.encoder), ("scorer", self.manifest.scorer)
        ]  # fmt: skip
        return [name for name, part in has if part is not None]

    @property
    def reading(self) -> dict[str, Any]:
        """How image files are read, as keyword arguments of `load_image`."""
        return {"bits": self.bits, "limits": self.decode_limits}


def run_bench(
    engine: EngineOptions,
    settings: BenchSettings,
    *,
    images: Path | None = None,
    cold: int = 0,
    progress: Progress | None = None,
    clock: Clock | None = None,
) -> BenchReport:
    """Measure an engine.

    Parameters
    ----------
    engine, settings
        What to measure, and how.
    images
        Folder or .csv of images; None: crops are made, with nobody on them.
    cold
        Fresh processes whose start is timed.
    progress
        Called as (what, done, total).
    clock
        Time; None: the real one.

    Raises
    ------
    KeyboardInterrupt
        Before anything was measured. Later, the report says "interrupted".
    InputError, MachineError
        The engine, an image, or this machine will not do.
    UsageError
        Offline would have to make too many images.
    """
    check_room(engine.manifest, settings, available_bytes())
    told = environment(engine.manifest, engine.sha256, threads=engine.threads)
    say = progress or _silent
    with _folder_of_images() as folder:
        workload = (
            made_workload(folder, settings, say)
            if images is None
            else given_workload(images, settings, engine.reading)
        )
        measured = Measured(
            settings,
            told,
            len(workload.pool),
            images is not None,
            _alignment(engine, workload, settings),
            notes=workload.notes,
        )
        try:
            _cold_starts(measured, engine, workload, folder, cold, say)
            _Run(measured, engine, workload, folder, say, clock or Clock()).all()
        except KeyboardInterrupt:
            if measured.is_empty:
                raise
            return measured.report(interrupted=True)
    return measured.report(interrupted=False)


def _alignment(engine: EngineOptions, workload: Workload, settings: BenchSettings) -> Done:
    """Return what will be done to features; InputError if that cannot be what is asked for."""
    if engine.manifest.encoder is None:
        return "off"
    return level_of(workload.camids(settings.gallery_size), Alignment(settings.align_cameras))


@contextlib.contextmanager
def _folder_of_images() -> Iterator[Path]:
    """Make a folder that is gone at the end; MachineError if there is no place for it."""
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(temporary_folder("bench"))
        except OSError as error:
            raise MachineError(
                "a benchmark needs a temporary folder for its images, and none can be written to "
                f"({error.strerror or error}): set TMPDIR to one"
            ) from error
        yield folder


def _cold_starts(
    measured: Measured,
    engine: EngineOptions,
    workload: Workload,
    folder: Path,
    runs: int,
    say: Progress,
) -> None:
    if not runs:
        return
    job = cold_job(
        folder, engine.folder.resolve(), engine.manifest, engine.sha256, workload,
        measured.settings, parts=engine.parts, providers=engine.providers, products=engine.products,
        plans=engine.plans, threads=engine.threads,
        bits=engine.bits, decode_limits=engine.decode_limits,
    )  # fmt: skip
    for number, run in enumerate(cold_runs(job, runs)):
        measured.cold.append(run)
        say("cold starts", number + 1, runs)


class _Run:
    """The part of a benchmark that has the engine in memory."""

    def __init__(
        self,
        measured: Measured,
        engine: EngineOptions,
        workload: Workload,
        folder: Path,
        say: Progress,
        clock: Clock,
    ) -> None:
        self._measured, self._settings = measured, measured.settings
        self._workload, self._clock, self._say = workload, clock, say
        self._engine = load_engine(engine, len(workload.pool))
        measured.environment = replace(measured.environment, providers=dict(self._engine.providers))
        self._queries: Queries = NewQueries(
            folder, workload.asked, measured.settings.seed, progress=say
        )
        self._subject = subject_of(self._engine, workload, measured.settings)
        self._remember()

    def all(self) -> None:
        """Measure everything, in turn."""
        settings, asks_mllm = self._settings, self._asks_mllm
        apart = settings.uncached_share * settings.duration if asks_mllm else 0.0
        rate = self._warm_up()
        try:
            duration = settings.duration - apart
            self._collect(self._measured.cached, "cached", self._cached(duration, rate), duration)
            self._measured.served = True
            if apart:
                self._collect(self._measured.uncached, "uncached", self._uncached(apart), apart)
            if settings.sweep and asks_mllm:
                self._sweep()
        finally:
            self._remember()

    @property
    def _asks_mllm(self) -> bool:
        return self._engine.scorer is not None and self._settings.method != "none"

    def _warm_up(self) -> float:
        """Let all be compiled, allocated and cached; return queries a second."""
        self._say("warm-up", 0, 1)
        self._subject.warm()
        samples = list(self._warming(self._settings.warmup))
        self._say("warm-up", 1, 1)
        last = samples[-1]
        return last.queries / last.service if last.service > 0 else 1.0

    def _warming(self, duration: float) -> Iterator[Sample]:
        group = {"MultiStream": self._settings.group, "Offline": BLOCK}.get(self._settings.scenario)
        if group is None:
            return single_stream(
                self._subject, self._queries, self._clock, duration=duration, least=_LEAST
            )
        return multi_stream(
            self._subject, self._queries, self._clock, duration=duration, group=group, least=_LEAST
        )

    def _cached(self, duration: float, rate: float) -> Iterator[Sample]:
        settings = self._settings
        asked = (self._subject, self._queries, self._clock)
        if settings.scenario == "MultiStream":
            return multi_stream(*asked, duration=duration, group=settings.group)
        if settings.scenario == "Offline":
            return offline(*asked, count=offline_count(rate, duration), duration=duration)
        if settings.scenario == "Server" and settings.qps is not None:
            due = arrivals(settings.qps, duration, settings.seed)
            self._measured.due = due
            return server(*asked, due=due, duration=duration, deadline_ms=settings.deadline_ms)
        return single_stream(*asked, duration=duration, deadline_ms=settings.deadline_ms)

    def _uncached(self, duration: float) -> Iterator[Sample]:
        """One query at a time in every scenario: what is not cached is a matter of one query."""
        return single_stream(
            self._subject, self._queries, self._clock, duration=duration,
            deadline_ms=self._settings.deadline_ms, before=self._subject.forget,
        )  # fmt: skip

    def _sweep(self) -> None:
        settings, asked = self._settings, (self._queries, self._clock)
        for count in sweep_counts(settings, self._measured.pool):
            subject = subject_of(self._engine, self._workload, replace(settings, candidates=count))
            subject.warm()
            # The first runs of a new shape are slower.
            list(single_stream(subject, *asked, duration=0, least=_LEAST))
            duration = _SWEEP_SHARE * settings.duration
            samples = single_stream(subject, *asked, duration=duration, least=_LEAST)
            kept = self._measured.sweep.setdefault(count, [])
            self._collect(kept, f"{count} candidates", samples, duration)

    def _collect(
        self, kept: list[Sample], name: str, samples: Iterator[Sample], duration: float
    ) -> None:
        """Append one by one: what is there stays if somebody interrupts."""
        for sample in samples:
            kept.append(sample)
            self._say(f"{name}, seconds", round(sample.ended), round(duration))

    def _remember(self) -> None:
        """Note how much memory is used."""
        before = self._measured.memory
        loaded = _machine.resident_bytes() if before is None else before.loaded_bytes
        on_gpu = not all(on_cpu(used[0]) for used in self._engine.providers.values())
        self._measured.memory = MemoryFigures(
            loaded, _machine.peak_bytes(), _machine.device_bytes() if on_gpu else None
        )


def load_engine(engine: EngineOptions, pool: int) -> Engine:
    """Load an engine with a cache that holds the vision tokens of the pool, several times over."""
    scorer = engine.manifest.scorer
    needed = 0
    if scorer is not None:
        token_bytes = engine.manifest.arithmetic.token_bytes
        needed = _POOLS * pool * scorer.shapes.vision_values * token_bytes
    return Engine.from_pretrained(
        engine.folder, providers=engine.providers, products=engine.products, plans=engine.plans,
        threads=engine.threads, sha256=engine.sha256,
        vision_cache_mb=max(_LEAST_CACHE_MB, needed >> 20), bits=engine.bits,
        decode_limits=engine.decode_limits,
    )  # fmt: skip


def offline_count(rate: float, duration: float) -> int:
    """Queries of Offline: those that a pace, in queries a second, puts into the duration.

    Raises
    ------
    UsageError
        Their images, which are all written before the first is asked, are too many.
    """
    count = max(1, round(rate * duration))
    if count > MOST_AT_ONCE:
        raise UsageError(
            f"at {rate:.0f} queries a second, the pace of the warm-up, Offline would ask {count} "
            f"queries, and at most {MOST_AT_ONCE} images are made beforehand: pass a --duration "
            f"below {MOST_AT_ONCE / count:.2g} of what it is"
        )
    return count


def sweep_counts(settings: BenchSettings, pool: int) -> Sequence[int]:
    """Numbers of candidates to try: around what was asked for, as far as there are images."""
    count, most = settings.candidates, min(settings.gallery_size, pool)
    return sorted({min(max(1, k), most) for k in (1, count // 4, count // 2, count, 2 * count)})


def _silent(_what: str, _done: int, _total: int) -> None:
    return
