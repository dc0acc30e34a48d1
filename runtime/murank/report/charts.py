"""Charts as inline SVG: told apart by strokes and marks, not by colour alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from murank.report.markup import Markup, element, joined

RANKS = 50  # of CMC that are drawn, at most
BINS = 20
_WIDTH, _HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 30, 44
_MARKED = (1, 5, 10, 20, 50)  # ranks


@dataclass(frozen=True)
class _Stroke:
    colour: str
    dashes: str
    mark: str  # square, diamond, circle


_STROKES = (
    _Stroke("#57606a", "2 4", "square"),
    _Stroke("#9a6700", "9 4", "diamond"),
    _Stroke("#0550ae", "none", "circle"),
)


def cmc_chart(curves: Mapping[str, NDArray[np.floating]]) -> Markup:
    """Draw CMC curves, of which there are at most three: the share of queries by rank."""
    last = min(RANKS, *(len(curve) for curve in curves.values()))
    lowest = min(float(curve[0]) for curve in curves.values())
    step = 0.2 if lowest < 0.5 else 0.1
    steps = min(int(1 / step), int((1 - lowest) / step) + 1)
    frame = _Frame((1, max(last, 2)), (1 - steps * step, 1.0))
    parts = [frame.grid(_ticks(last), "rank", lines=steps + 1)]
    parts.append(_text(_LEFT, _TOP - 14, "queries with a right match so far", "start"))
    strokes = _STROKES if len(curves) == len(_STROKES) else (_STROKES[0], _STROKES[-1])
    for place, (name, stroke) in enumerate(zip(curves, strokes, strict=False)):
        points = [frame.at(rank, float(curves[name][rank - 1])) for rank in range(1, last + 1)]
        parts.append(_line(points, stroke))
        parts += [_mark(*points[rank - 1], stroke) for rank in _MARKED if rank <= last]
        parts.append(_legend(name, place - len(curves), stroke))
    said = "; ".join(
        f"{name}: {100 * curve[0]:.1f} percent at rank 1" for name, curve in curves.items()
    )
    return _picture(_HEIGHT, "CMC before and after", f"Up to rank {last}. {said}.", parts)


def histograms(values: Mapping[str, NDArray[np.floating]]) -> Markup:
    """Draw mu of several kinds of pairs below each other: their share in each bin."""
    height = 170
    shares = {name: _shares(one) for name, one in values.items()}
    top = max((float(share.max()) for share in shares.values()), default=0.0) or 1.0
    parts: list[Markup] = []
    for place, (name, share) in enumerate(shares.items()):
        is_last = place == len(shares) - 1
        frame = _Frame((0.0, 1.0), (0.0, top), top=place * height + 28, height=height - 58)
        title = f"{name} ({len(values[name]):,} pairs)"
        parts.append(_text(_LEFT, place * height + 18, title, "start", weight="600"))
        ticks = [0.0, 0.25, 0.5, 0.75, 1.0]
        parts.append(frame.grid(ticks, "mu" if is_last else "", lines=2))
        for number, height_of in enumerate(share.tolist()):
            left, low = frame.at(number / BINS, 0.0)
            right, high = frame.at((number + 1) / BINS, height_of)
            parts.append(
                element(
                    "rect", x=_n(left + 1), y=_n(high), width=_n(right - left - 2),
                    height=_n(low - high), fill="#0550ae" if place == 0 else "#57606a",
                )
            )  # fmt: skip
    said = ". ".join(f"{name}: {_spread(one)}" for name, one in values.items())
    return _picture(height * len(values) + 8, "Histograms of mu", f"{said}.", parts)


def _shares(values: NDArray[np.floating]) -> NDArray[np.float64]:
    counts, _ = np.histogram(values, BINS, (0.0, 1.0))
    return counts / max(len(values), 1)


def _spread(values: NDArray[np.floating]) -> str:
    if not len(values):
        return "none"
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return f"half of them between {low:.2f} and {high:.2f}, the median is {middle:.2f}"


class _Frame:
    """Where values are in a chart."""

    def __init__(
        self, x: tuple[float, float], y: tuple[float, float], *, top: float = _TOP,
        height: float = _HEIGHT - _TOP - _BOTTOM,
    ) -> None:  # fmt: skip
        self._x, self._y, self._top, self._height = x, y, top, height

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self._x[0]) / (self._x[1] - self._x[0])
        up = (y - self._y[0]) / (self._y[1] - self._y[0])
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), self._top + (1 - up) * self._height

    def grid(self, ticks: Sequence[float], x: str, *, lines: int) -> Markup:
        """Draw lines with percents on the left, ticks and what they are below."""
        parts = []
        for value in np.linspace(*self._y, lines):
            left, height = self.at(self._x[0], value)
            right, _ = self.at(self._x[1], value)
            ends = {"x1": _n(left), "x2": _n(right), "y1": _n(height), "y2": _n(height)}
            parts.append(element("line", stroke="#d0d7de", **ends))
            parts.append(_text(left - 6, height + 4, f"{100 * value:.0f} %", "end"))
        for tick in ticks:
            place, low = self.at(tick, self._y[0])
            parts.append(_text(place, low + 16, f"{tick:g}", "middle"))
        _, low = self.at(self._x[1], self._y[0])
        parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, low + 34, x, "middle"))
        return joined(parts)


def _ticks(last: int) -> list[float]:
    return [float(rank) for rank in _MARKED if rank <= last]


def _line(points: Sequence[tuple[float, float]], stroke: _Stroke) -> Markup:
    path = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
    return element(
        "polyline", points=path, fill="none", stroke=stroke.colour, stroke_width=2,
        stroke_dasharray=stroke.dashes,
    )  # fmt: skip


def _mark(x: float, y: float, stroke: _Stroke) -> Markup:
    if stroke.mark == "circle":
        return element("circle", cx=_n(x), cy=_n(y), r=4, fill=stroke.colour)
    turned = {"transform": f"rotate(45 {_n(x)} {_n(y)})"} if stroke.mark == "diamond" else {}
    return element(
        "rect", x=_n(x - 3.5), y=_n(y - 3.5), width=7, height=7, fill="#fff", stroke=stroke.colour,
        stroke_width=2, **turned,
    )  # fmt: skip


def _legend(name: str, place: int, stroke: _Stroke) -> Markup:
    """Draw a line's stroke and name into the corner that CMC leaves free."""
    right, height = _WIDTH - _RIGHT - 14, _HEIGHT - _BOTTOM + place * 20 + 4
    return joined(
        [
            _line([(right - 46, height), (right, height)], stroke),
            _mark(right - 23, height, stroke),
            _text(right - 54, height + 4, name, "end"),
        ]
    )


def _text(x: float, y: float, text: str, anchor: str, *, weight: str = "400") -> Markup:
    place = {"x": _n(x), "y": _n(y), "text_anchor": anchor, "font_weight": weight}
    return element("text", text, **place) if text else Markup("")


def _picture(height: int, title: str, said: str, parts: Sequence[Markup]) -> Markup:
    return element(
        "svg", element("title", title), element("desc", said), *parts,
        viewBox=f"0 0 {_WIDTH} {height}", role="img", aria_label=f"{title}. {said}",
    )  # fmt: skip


def _n(value: float) -> str:
    return f"{value:.1f}"
