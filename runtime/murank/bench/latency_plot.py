"""A picture of a report: latencies, where the time goes, and what more candidates cost."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from murank.bench.schema import BenchReport, Section
from murank.engine.stopwatch import STAGES, Stage
from murank.sheet.canvas import write_plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INCHES = (13.0, 4.4)
_COLORS = {"cached": "tab:blue", "uncached": "tab:orange"}


def write_latency_plot(path: Path, report: BenchReport) -> None:
    """Write the picture; see `write_plots`."""
    sections = {"cached": report.cached, "uncached": report.uncached}
    measured = {name: section for name, section in sections.items() if section is not None}
    draw = [partial(one, sections=measured) for one in (_draw_latencies, _draw_stages)]
    write_plots(path, _INCHES, [*draw, partial(_draw_sweep, report=report)])


def _draw_latencies(axes: "Axes", sections: dict[str, Section]) -> None:
    for name, section in sections.items():
        latencies = np.sort(section.latencies_us) / 1e3
        share = 100 * np.arange(1, len(latencies) + 1) / len(latencies)
        label = f"{name}: p50 {section.latency.p50_ms:.3g}, p99 {section.latency.p99_ms:.3g} ms"
        axes.step(latencies, share, where="post", color=_COLORS[name], label=label)
    axes.set_xlabel("latency in ms")
    axes.set_ylabel("answered within, in %")
    axes.set_ylim(0, 100)
    axes.set_title("Latency")
    _finish(axes)


def _draw_stages(axes: "Axes", sections: dict[str, Section]) -> None:
    left = np.zeros(len(sections))
    for number, stage in enumerate(STAGES):
        means = np.array([_mean(section, stage) for section in sections.values()])
        if means.any():
            axes.barh(list(sections), means, left=left, color=f"C{number}", label=stage)
            left += means
    axes.set_xlabel("mean ms (of a group in MultiStream and Offline)")
    axes.invert_yaxis()  # cached on top
    axes.set_title("Stages")
    _finish(axes)


def _mean(section: Section, stage: Stage) -> float:
    return section.stages[stage].mean_ms if stage in section.stages else 0.0


def _draw_sweep(axes: "Axes", report: BenchReport) -> None:
    points = sorted((int(count), section) for count, section in report.sweep.items())
    counts = [count for count, _ in points]
    axes.plot(counts, [one.latency.p50_ms for _, one in points], "o-", label="p50")
    axes.plot(counts, [one.latency.max_ms for _, one in points], "v:", label="largest")
    axes.set_xlabel("candidates")
    axes.set_ylabel("latency in ms, cached, one at a time")
    axes.set_ylim(bottom=0)
    axes.set_title("Candidates" if points else "Candidates: not measured")
    _finish(axes)


def _finish(axes: "Axes") -> None:
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
