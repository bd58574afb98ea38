"""Line and scatter charts, drawn once: as figures for papers, and as SVG in the colours of the page it stands in."""

from __future__ import annotations

import io
import math
import re
import statistics
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from matplotlib.transforms import Affine2D

Points = Sequence[tuple[float, float]]

PAPER = (3.5, 2.7)  # inches: a journal's column
PAGE = (4.2, 2.7)
# On paper; the style sheet has each under its name, and its counterpart on dark.
COLOURS = {
    "s0": "#0068b0", "s1": "#c44a00", "s2": "#007a57", "s3": "#a8326f", "s4": "#8a6500", "s5": "#6240b5",
    "s6": "#00727d", "s7": "#6b4a2f", "sn": "#69727d", "ink": "#1b1f24", "soft": "#59626d", "edge": "#d5dae0",
    "card": "#ffffff",
}  # fmt: skip
STYLES = 8  # colours of solvers; with the ninth they begin again, dashed
_MARKERS = "os^Dv*Ph"
_LONGEST = 34  # characters of a name in a legend on paper
_KEPT = {"d", "style", "x", "y", "transform", "viewBox"}  # attributes of matplotlib's SVG
_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"


@dataclass(frozen=True)
class Axis:
    """What an axis shows, with its unit, and whether it is logarithmic; it spans ``least`` at least."""

    label: str
    log: bool = False
    least: float = 0.0


@dataclass(frozen=True)
class Series:
    """Points (x, y) of one solver; ``style`` is its place among the solvers, -1 for what belongs to none.

    ``line`` joins the points, ``markers`` shows them; ``stairs`` joins them with steps that stay at a level until the
    next point.
    """

    name: str
    points: Points
    style: int
    line: bool = True
    markers: bool = False
    stairs: bool = False

    @property
    def colour(self) -> str:
        """Its key in :data:`COLOURS`."""
        return "sn" if self.style < 0 else f"s{self.style % STYLES}"

    @property
    def dashed(self) -> bool:
        """Whether its line is."""
        return self.style < 0 or self.style >= STYLES

    @property
    def marker(self) -> str:
        """Matplotlib's name of its marker."""
        return _MARKERS[max(self.style, 0) % len(_MARKERS)]

    @property
    def swatch(self) -> str:
        """The outline of its marker as SVG path data, in the middle of 28 × 14."""
        style = MarkerStyle(self.marker)
        path = style.get_path().transformed(style.get_transform() + Affine2D().scale(8, -8).translate(14, 7))
        letters = {1: "M", 2: "L", 3: "Q", 4: "C", 79: "Z"}
        steps = ((letters[int(code)], vertices) for vertices, code in path.iter_segments(simplify=False))
        return "".join(name + ("" if name == "Z" else ",".join(f"{v:.1f}" for v in at)) for name, at in steps)


@dataclass(frozen=True)
class Chart:
    """A chart: the stem of its file, its title, what is in it, its axes, and a note to stand below."""

    name: str
    title: str
    series: Sequence[Series]
    x: Axis
    y: Axis
    note: str = ""

    def __post_init__(self) -> None:
        kept = [replace(one, points=[p for p in one.points if self._can_show(p)]) for one in self.series]
        object.__setattr__(self, "series", tuple(one for one in kept if one.points))

    def _can_show(self, point: tuple[float, float]) -> bool:
        axes = zip(point, (self.x, self.y), strict=True)
        return all(math.isfinite(value) and (value > 0 or not axis.log) for value, axis in axes)

    def svg(self) -> str:
        """An ``<svg>`` for HTML: colours are the page's, and what lies under the pointer says its name and values."""
        buffer = io.BytesIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": repr(self)}):
            figure(self, PAGE, legend=False).savefig(buffer, format="svg", transparent=True, metadata=nothing)
        root = ET.fromstring(buffer.getvalue())
        for k, one in enumerate(self.series):
            self._tell(next(part for part in root.iter() if part.get("id") == f"series{k}"), one)
        _for_html(root)
        root.attrib |= {"role": "img", "aria-label": _plain(self.title)}
        return ET.tostring(root, encoding="unicode")

    def _tell(self, drawn: ET.Element, one: Series) -> None:
        drawn.set("class", f"series {one.colour}")
        for dot, (x, y) in zip(drawn.iter(f"{_SVG}use"), one.points, strict=False):
            ET.SubElement(dot, "title").text = _plain(f"{one.name}: {self.x.label} {x:.4g}, {self.y.label} {y:.4g}")
        ET.SubElement(drawn, "title").text = _plain(one.name)


def figure(chart: Chart, inches: tuple[float, float] = PAPER, *, legend: bool = True) -> Figure:
    """The chart, with its legend above it."""
    drawing = Figure(figsize=inches, layout="constrained", facecolor="white")
    axes = drawing.add_subplot(autoscale_on=False)
    for k, one in enumerate(chart.series):
        joined = one.line and len(one.points) > 1
        look: dict[str, Any] = {"ls": ("--" if one.dashed else "-") if joined else "none", "lw": 1.2, "ms": 4.5}
        if one.markers or not joined:
            look |= {"marker": one.marker, "mec": COLOURS["card"], "mew": 0.5}
        if one.stairs:
            look["drawstyle"] = "steps-post"
        line = axes.plot(*zip(*one.points, strict=True), color=COLOURS[one.colour], gid=f"series{k}", **look)[0]
        line.set(clip_on=False, label=_short(_plain(one.name)), zorder=2 + (one.style >= 0))
    _dress(axes, chart)
    if legend and chart.series:
        beside = max(len(one.name) for one in chart.series) <= _LONGEST // 2
        above = drawing.legend(loc="outside upper left", ncols=1 + beside, fontsize=7, frameon=False)
        for text in above.get_texts():
            text.set_parse_math(False)
    return drawing


def thinned(points: Points, most: int = 36) -> list[tuple[float, float]]:
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


def pareto(points: Points, higher: bool) -> list[tuple[float, float]]:
    """Those (cost, quality) points that no other beats in both, by ascending cost; ``higher`` quality is better."""
    front: list[tuple[float, float]] = []
    for cost, quality in sorted(points, key=lambda point: (point[0], -point[1] if higher else point[1])):
        if not front or (quality > front[-1][1] if higher else quality < front[-1][1]):
            front.append((cost, quality))
    return front


def pareto_edge(points: Points, higher: bool) -> list[tuple[float, float]]:
    """The edge of all that some point beats, as stairs: the front, from the worst quality to the highest cost."""
    front = pareto(points, higher)
    worst = (min if higher else max)(quality for _, quality in points)
    return [(front[0][0], worst), *front, (max(cost for cost, _ in points), front[-1][1])]


def _dress(axes: Axes, chart: Chart) -> None:
    for k, shown in enumerate((chart.x, chart.y)):
        axis, name = (axes.xaxis, axes.yaxis)[k], "xy"[k]
        low, high = _limits([point[k] for one in chart.series for point in one.points], shown.log, shown.least)
        axes.set(**{f"{name}scale": "log" if shown.log else "linear", f"{name}lim": (low, high)})
        axis.set_major_locator(FixedLocator(_log_ticks(low, high)) if shown.log else MaxNLocator(6))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: _number(value)))
        axis.set_label_text(_plain(shown.label), fontsize=8, color=COLOURS["ink"], parse_math=False)
    axes.tick_params(length=0, labelsize=7.5, labelcolor=COLOURS["soft"])
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color=COLOURS["soft"], linewidth=0.8)
    axes.grid(color=COLOURS["edge"], lw=0.5, clip_on=False)


def _limits(values: Sequence[float], log: bool, least: float = 0.0) -> tuple[float, float]:
    """The ends of an axis: all values with a margin, and never so near that rounding, or noise, shows."""
    low, high = min(values, default=1.0), max(values, default=1.0)
    if log:
        least = max(0.3, math.log10(1 + least / low))
        low, high = math.log10(low), math.log10(high)
    else:
        least = max(least, max(abs(low), abs(high), 1e-9) * 1e-3)
    middle, half = (low + high) / 2, max(high - low, least) / 2 * 1.08
    return (10 ** (middle - half), 10 ** (middle + half)) if log else (middle - half, middle + half)


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, or as many steps between them as it takes to have three ticks."""
    bottom, top = math.log10(low), math.log10(high)
    decades = range(math.floor(bottom), math.ceil(top) + 1)
    every = max(1, math.ceil((top - bottom) / 7))
    for steps in ((1,), (1, 2, 5), range(1, 10)):
        values = [step * 10.0**decade for decade in decades if decade % every == 0 for step in steps]
        values = [value for value in values if low <= value <= high]
        if len(values) >= 3:
            return values
    return [float(value) for value in MaxNLocator(6).tick_values(low, high) if low <= value <= high]


def _number(value: float) -> str:
    if value and not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.0e}".split("e")
        digits = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"10{digits}" if mantissa == "1" else f"{mantissa}·10{digits}"
    return f"{round(value, 12):.6g}".replace("-", "−")


def _for_html(root: ET.Element) -> None:
    """Without what only a file needs: names of XML, fonts, metadata; identifiers but for those that are referred to."""
    names = {f"var(--{name})": colour for name, colour in COLOURS.items()}
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style") or child.get("style") == "fill: none":
                parent.remove(child)
    for part in root.iter():
        kept = {name: value for name, value in part.attrib.items() if name in (*_KEPT, "class")}
        if part.tag == f"{_SVG}path" and "id" in part.attrib:
            kept["id"] = part.attrib["id"]
        if _LINK in part.attrib:
            kept["href"] = part.attrib[_LINK]
        if "style" in kept:
            style = re.sub(r"font-family:[^;]*;? ?", "", kept["style"])
            for name, colour in names.items():
                style = style.replace(colour, name)
            kept["style"] = style
        part.attrib.clear()
        part.attrib.update(kept)
        part.tag = part.tag.removeprefix(_SVG)


def _plain(text: str) -> str:
    """Without characters that no font and no XML has."""
    return re.sub("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "�", text)


def _short(name: str) -> str:
    """One too long loses its middle, for names differ at their ends."""
    half = (_LONGEST - 1) // 2
    return name if len(name) <= _LONGEST else f"{name[:half]}…{name[-half:]}"
