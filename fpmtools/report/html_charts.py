"""Line and scatter charts as inline SVG: axes with units, legend, colours that the page's style sheet decides.

Text and colours come from CSS classes, so that one picture reads on a bright and on a dark page. Every string is
escaped here.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 520, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 14, 14, 48
STYLES = 8  # colours in report.css; markers and dashes repeat with them
_MARKERS = (
    "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0",
    "M-3.6,-3.6h7.2v7.2h-7.2z",
    "M0,-4.8L4.6,3.6H-4.6z",
    "M0,-5L5,0L0,5L-5,0z",
    "M0,4.8L4.6,-3.6H-4.6z",
    "M-1.6,-4.6h3.2v3h3v3.2h-3v3h-3.2v-3h-3v-3.2h3z",
    "M0,-5L4.8,-1.5L2.9,4H-2.9L-4.8,-1.5z",
    "M-4.8,-2.4h9.6v4.8h-9.6z",
)


@dataclass(frozen=True)
class Axis:
    """What an axis shows, with its unit, and whether it is logarithmic."""

    label: str
    log: bool = False


@dataclass(frozen=True)
class Series:
    """Points (x, y) of one solver; ``style`` is its place among the solvers, -1 for what belongs to none.

    ``line`` joins the points, ``markers`` shows them; ``stairs`` joins them with steps that stay at a level until the
    next point.
    """

    name: str
    points: Sequence[tuple[float, float]]
    style: int
    line: bool = True
    markers: bool = False
    stairs: bool = False


def chart(title: str, series: Sequence[Series], x: Axis, y: Axis) -> str:
    """A ``<figure>`` with title, legend and SVG; points that an axis cannot show are left out."""
    kept = [(one, [point for point in one.points if _drawable(point, x, y)]) for one in series]
    kept = [(one, points) for one, points in kept if points]
    if not kept:
        return f'<figure class="chart"><figcaption>{escape(title)}</figcaption><p class="none">no data</p></figure>'
    across = _Scale.of([point[0] for _, points in kept for point in points], x.log, _LEFT, WIDTH - _RIGHT)
    up = _Scale.of([point[1] for _, points in kept for point in points], y.log, HEIGHT - _BOTTOM, _TOP)
    parts = [_grid(across, up, x, y)]
    parts += [_curve(one, points, across, up, x, y) for one, points in kept]
    legend = "".join(f'<li class="s{_style(one)}">{swatch(one)}<bdi>{escape(one.name)}</bdi></li>' for one, _ in kept)
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption><ul class="legend">{legend}</ul>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg></figure>'
    )


def swatch(series: Series) -> str:
    """The sample of a series in a legend."""
    line = f'<path class="{_classes(series)}" d="M1,7H27"/>' if series.line else ""
    return f'<svg class="swatch" viewBox="0 0 28 14" aria-hidden="true">{line}{_marker(series, 14, 7)}</svg>'


def thinned(points: Sequence[tuple[float, float]], most: int = 36) -> list[tuple[float, float]]:
    """At most ``most`` points at even steps of log x, each the median of its step; few points stay as they are."""
    points = [point for point in points if point[0] > 0]
    if len(points) <= most:
        return points
    low, high = math.log(points[0][0]), math.log(points[-1][0])
    steps: dict[int, list[tuple[float, float]]] = {}
    for point in points:
        share = (math.log(point[0]) - low) / max(high - low, 1e-12)
        steps.setdefault(min(int(share * most), most - 1), []).append(point)
    columns = (zip(*step, strict=True) for _, step in sorted(steps.items()))
    return [(statistics.median(x), statistics.median(y)) for x, y in columns]


def pareto(points: Sequence[tuple[float, float]], higher: bool) -> list[tuple[float, float]]:
    """Those (cost, quality) points that no other beats in both, by ascending cost; ``higher`` quality is better."""
    front: list[tuple[float, float]] = []
    for cost, quality in sorted(points, key=lambda point: (point[0], -point[1] if higher else point[1])):
        if not front or (quality > front[-1][1] if higher else quality < front[-1][1]):
            front.append((cost, quality))
    return front


def pareto_edge(points: Sequence[tuple[float, float]], higher: bool) -> list[tuple[float, float]]:
    """The edge of all that some point beats, as stairs: the front, from the worst quality to the highest cost."""
    front = pareto(points, higher)
    worst = (min if higher else max)(quality for _, quality in points)
    return [(front[0][0], worst), *front, (max(cost for cost, _ in points), front[-1][1])]


@dataclass(frozen=True)
class _Scale:
    """From values to SVG units, with its ticks as (position, text)."""

    low: float
    high: float
    log: bool
    start: float
    end: float

    @classmethod
    def of(cls, values: Sequence[float], log: bool, start: float, end: float) -> _Scale:
        low, high = min(values), max(values)
        if log:
            low, high = math.log10(low), math.log10(high)
        least = 0.3 if log else max(abs(low), abs(high), 1e-9) * 1e-3
        middle, half = (low + high) / 2, max(high - low, least) / 2 * 1.08
        return cls(middle - half, middle + half, log, start, end)

    def __call__(self, value: float) -> float:
        share = ((math.log10(value) if self.log else value) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        values = self._decades() if self.log else _round_steps(self.low, self.high)
        return [(self(value), _number(value)) for value in values]

    def _decades(self) -> list[float]:
        """Powers of ten, or as many steps between them as it takes to have three ticks."""
        decades = range(math.floor(self.low), math.ceil(self.high) + 1)
        every = max(1, math.ceil((self.high - self.low) / 7))
        for steps in ((1,), (1, 2, 5), range(1, 10)):
            values = [step * 10.0**decade for decade in decades if decade % every == 0 for step in steps]
            values = [value for value in values if self.low <= math.log10(value) <= self.high]
            if len(values) >= 3:
                return values
        return _round_steps(10**self.low, 10**self.high)


def _round_steps(low: float, high: float, most: int = 6) -> list[float]:
    rough = (high - low) / most
    decade = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * decade for factor in (1, 2, 5, 10) if factor * decade >= rough * (1 - 1e-9))
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _number(value: float) -> str:
    if value and not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.0e}".split("e")
        digits = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"10{digits}" if mantissa == "1" else f"{mantissa}·10{digits}"
    return f"{round(value, 12):.6g}".replace("-", "−")


def _drawable(point: tuple[float, float], x: Axis, y: Axis) -> bool:
    return all(math.isfinite(value) and (value > 0 or not axis.log) for value, axis in zip(point, (x, y), strict=True))


def _grid(across: _Scale, up: _Scale, x: Axis, y: Axis) -> str:
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    parts = [f'<path class="frame" d="M{_LEFT},{_TOP}V{bottom}H{right}"/>']
    for place, text in across.ticks():
        parts.append(f'<path class="grid" d="M{place:.1f},{_TOP}V{bottom}"/>')
        parts.append(f'<text x="{place:.1f}" y="{bottom + 17}" text-anchor="middle">{text}</text>')
    for place, text in up.ticks():
        parts.append(f'<path class="grid" d="M{_LEFT},{place:.1f}H{right}"/>')
        parts.append(f'<text x="{_LEFT - 7}" y="{place + 4:.1f}" text-anchor="end">{text}</text>')
    middle = (_TOP + bottom) / 2
    parts.append(
        f'<text class="axis" x="{(_LEFT + right) / 2}" y="{HEIGHT - 9}" text-anchor="middle">{escape(x.label)}</text>'
        f'<text class="axis" transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">'
        f"{escape(y.label)}</text>"
    )
    return "".join(parts)


def _curve(one: Series, points: Sequence[tuple[float, float]], across: _Scale, up: _Scale, x: Axis, y: Axis) -> str:
    places = [(across(px), up(py)) for px, py in points]
    parts = []
    if one.line and len(places) > 1:
        join = "H{0:.1f}V{1:.1f}" if one.stairs else "L{0:.1f},{1:.1f}"
        path = "M{:.1f},{:.1f}".format(*places[0]) + "".join(join.format(*place) for place in places[1:])
        parts.append(f'<path class="{_classes(one)}" d="{path}"><title>{escape(one.name)}</title></path>')
    if one.markers or len(places) == 1:
        for place, (px, py) in zip(places, points, strict=True):
            note = f"{one.name}: {x.label} {px:.4g}, {y.label} {py:.4g}"
            parts.append(_marker(one, *place, note))
    return "".join(parts)


def _marker(one: Series, x: float, y: float, note: str = "") -> str:
    if not one.markers and not note:
        return ""
    title = f"<title>{escape(note)}</title>" if note else ""
    shape = _MARKERS[max(one.style, 0) % len(_MARKERS)]
    return f'<path class="dot s{_style(one)}" transform="translate({x:.1f} {y:.1f})" d="{shape}">{title}</path>'


def _classes(one: Series) -> str:
    return f"line s{_style(one)}" + (" second" if one.style >= STYLES else "")


def _style(one: Series) -> str:
    return "n" if one.style < 0 else str(one.style % STYLES)
