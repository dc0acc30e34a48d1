"""What a benchmark has measured so far: whole at the end, or as far as it came."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from murank.bench.bench_settings import BenchSettings, Scenario
from murank.bench.cold_start import cold_figures
from murank.bench.figures import section_of, server_figures
from murank.bench.samples import Sample
from murank.bench.schema import BenchReport, Environment, MemoryFigures, Section, SettingsRecord
from murank.rerank.alignment import Done


@dataclass
class Measured:
    """What has been measured so far."""

    settings: BenchSettings
    environment: Environment
    pool: int
    images_given: bool
    alignment: Done  # of the gallery's features
    notes: Sequence[str] = ()  # on how these were found
    cached: list[Sample] = field(default_factory=list)
    uncached: list[Sample] = field(default_factory=list)
    sweep: dict[int, list[Sample]] = field(default_factory=dict)  # by candidates
    cold: list[Mapping[str, float]] = field(default_factory=list)
    due: Sequence[float] = ()  # arrivals of Server, seconds after it began
    served: bool = False  # the section `cached` came to its end
    memory: MemoryFigures | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to report."""
        return not (self.cold or self.cached or self.uncached)

    def report(self, *, interrupted: bool) -> BenchReport:
        """Return the figures."""
        return BenchReport(
            status="interrupted" if interrupted else "complete",
            settings=_settings_record(self),
            environment=self.environment,
            cached=self._cached_section(),
            uncached=self._section(self.uncached),
            cold=cold_figures(self.cold) if self.cold else None,
            sweep={
                str(count): section_of(samples, self.settings)
                for count, samples in self.sweep.items()
                if samples
            },
            memory=self.memory,
            notes=list(self.notes),
        )

    def _cached_section(self) -> Section | None:
        section = self._section(self.cached, self.settings.scenario)
        if section is None or self.settings.scenario != "Server":
            return section
        # What had not arrived when somebody pressed Ctrl-C was not left unanswered.
        until = math.inf if self.served else self.cached[-1].ended
        arrived = sum(one <= until for one in self.due)
        figures = server_figures(self.cached, arrived, self.settings, interrupted=not self.served)
        return replace(section, server=figures)

    def _section(
        self, samples: list[Sample], scenario: Scenario = "SingleStream"
    ) -> Section | None:
        return section_of(samples, self.settings, scenario) if samples else None


def _settings_record(measured: Measured) -> SettingsRecord:
    settings = measured.settings
    return SettingsRecord(
        scenario=settings.scenario,
        candidates=settings.candidates,
        gallery_size=settings.gallery_size,
        gallery_pool=measured.pool,
        method=settings.method,
        alignment=measured.alignment,
        images="given" if measured.images_given else "drawn",
        duration_s=settings.duration,
        uncached_share=settings.uncached_share,
        warmup_s=settings.warmup,
        qps=settings.qps,
        streams=settings.group if settings.scenario == "MultiStream" else None,
        deadline_ms=settings.deadline_ms,
        seed=settings.seed,
    )
