"""A picture of a calibration: the DET curve, and how reliable mu is before and after."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from murank.calibration.det import probit
from murank.calibration.measure import Calibrated
from murank.calibration.rates import Rate
from murank.sheet.canvas import write_plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TICKS = (0.0001, 0.001, 0.01, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 0.99)  # of rates
_INCHES = (10.0, 4.8)
_LARGEST_DOT = 120.0  # area in points, of a bin that holds every pair


def write_calibration_plot(path: Path, measured: Calibrated) -> None:
    """Write the picture; see `write_plots`."""
    draw = [partial(one, measured=measured) for one in (_draw_det, _draw_reliability)]
    write_plots(path, _INCHES, draw)


def _draw_det(axes: "Axes", measured: Calibrated) -> None:
    det, point = measured.det, measured.point
    axes.plot(probit(det.fmr, det.different), probit(det.fnmr, det.same), color="black")
    axes.plot(
        _place(point.fmr), _place(point.fnmr), "o", color="tab:red",
        label=f"mu <= {point.threshold:.4g} ({measured.target})",
    )  # fmt: skip
    widest, highest = (
        float(probit(np.array([1.0]), pairs)[0]) for pairs in (det.different, det.same)
    )
    ends = [-max(widest, highest), max(widest, highest)]
    axes.plot(ends, ends, ":", color="grey", label=f"EER {100 * measured.eer:.2f} %")
    ticks = probit(np.array(_TICKS), 1 << 40)
    names = [f"{100 * rate:g}" for rate in _TICKS]
    axes.set_xticks(ticks, names)
    axes.set_yticks(ticks, names)
    axes.set_xlim(-widest, widest)
    axes.set_ylim(-highest, highest)
    axes.set_xlabel(f"FMR in % ({det.different} different-person pairs)")
    axes.set_ylabel(f"FNMR in % ({det.same} same-person pairs)")
    axes.set_title("DET")
    axes.grid(alpha=0.3)
    axes.legend()


def _place(rate: Rate) -> float:
    return float(probit(np.array([rate.value]), rate.pairs)[0])


def _draw_reliability(axes: "Axes", measured: Calibrated) -> None:
    axes.plot([0, 1], [0, 1], ":", color="grey")
    named = (
        ("temperature 1", measured.before, "tab:grey"),
        (f"temperature {measured.temperature:.4g}", measured.after, "tab:red"),
    )
    for (name, quality, color), bins in zip(named, measured.reliability, strict=True):
        axes.plot(bins.mu, bins.different, color=color, label=f"{name}: ECE {quality.ece:.3f}")
        axes.scatter(bins.mu, bins.different, s=_LARGEST_DOT * bins.weight, color=color)
    axes.set_xlabel("mu")
    axes.set_ylabel("share of different-person pairs")
    axes.set_title("Reliability (area of a dot: share of pairs)")
    axes.grid(alpha=0.3)
    axes.legend()
