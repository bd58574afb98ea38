"""The figure of a resolution target: where its bars were measured, and their contrast against their frequency."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from numpy.typing import NDArray

from fpmtools.metrics.targets import BarContrast, Bars
from fpmtools.report.contrast import gray_scale
from fpmtools.report.layout import Sheet, show_image

SIDE, MARGIN = 3.5, 0.3  # inches
ALONG = (("bars follow along x", "#1c7ed6", "o"), ("bars follow along y", "#e8590c", "s"))
ROUND = 0.25  # of the elements' extent: what is shown around them
PROFILES = 8
FARTHEST = 2.0  # times the finest element's frequency: a cut-off beyond that is not drawn
LEGIBLE = 0.07  # of what is shown: smaller elements bear no name


def bar_contrasts(
    image: NDArray[np.floating[Any]],
    extent_um: Sequence[float],
    found: Sequence[BarContrast],
    cutoffs: Mapping[str, float],
    *,
    phase: bool = False,
) -> Figure:
    """The part of ``image`` [y, x] with the elements, their contrast, and their profiles.

    ``cutoffs``: what the optics pass, line pairs per mm by what it is called. ``phase``: the contrast is one of phases,
    in rad.
    """
    sheet = Sheet(8.4, 5.6)
    sheet.text(MARGIN, 0.15, "phase (elements framed)" if phase else "intensity (elements framed)")
    _place(sheet.axes(MARGIN, 0.4, SIDE, SIDE), image, extent_um, [_where(one) for one in found])
    _curve(sheet.axes(MARGIN + SIDE + 0.75, 0.55, 3.6, SIDE - 0.4), found, cutoffs, phase)
    sheet.text(MARGIN, SIDE + 0.65, "profiles across the bars, mean along them; shaded: the bars")
    finest = sorted(found, key=lambda one: one.bars.per_mm)[-PROFILES:]
    width = (sheet.width - 2 * MARGIN) / PROFILES
    for k, one in enumerate(finest):
        _profile(sheet.axes(MARGIN + k * width, SIDE + 0.95, width - 0.1, 0.85), one)
    return sheet.figure


def _place(axes: Axes, image: NDArray[np.floating[Any]], extent_um: Sequence[float], bars: Sequence[Bars]) -> None:
    corners = np.concatenate([_corners(one) for one in bars])
    low, high = corners.min(axis=0), corners.max(axis=0)
    half = max(float((high - low).max()) * (0.5 + ROUND), 1e-9)
    pixel = extent_um[0] / image.shape[0], extent_um[1] / image.shape[1]
    starts, stops = [], []
    for middle, size, count in zip((low + high)[::-1] / 2, pixel, image.shape, strict=True):
        starts.append(max(math.floor((middle - half) / size), 0))
        stops.append(min(math.ceil((middle + half) / size), count))
    part = image[starts[0] : stops[0], starts[1] : stops[1]]
    size = (part.shape[0] * pixel[0], part.shape[1] * pixel[1])
    show_image(axes, part, size, gray_scale([part]), scale_bar=True)
    axes.set_aspect("equal", anchor="NW")
    origin = np.array([starts[1] * pixel[1], starts[0] * pixel[0]])
    halo = [patheffects.withStroke(linewidth=1.8, foreground="black")]
    for one in bars:
        colour, frame = ALONG[_along(one)][1], _corners(one) - origin
        axes.add_patch(Polygon(frame, fill=False, color=colour, lw=1.0))
        if 5 * one.width_um >= LEGIBLE * size[1]:
            at = frame[:, 0].mean(), frame[:, 1].min()
            axes.annotate(one.label, at, ha="center", va="bottom", fontsize=6, color="white", path_effects=halo)


def _where(one: BarContrast) -> Bars:
    """The element where it was found."""
    a = math.radians(one.bars.angle_deg)
    dx, dy = one.moved_um * math.cos(a), one.moved_um * math.sin(a)
    return replace(one.bars, x_um=one.bars.x_um + dx, y_um=one.bars.y_um + dy)


def _corners(bars: Bars) -> NDArray[np.float64]:
    """[corner, (x, y)] of the square that an element fills."""
    a, half = math.radians(bars.angle_deg), 2.5 * bars.width_um
    across, along = np.array([math.cos(a), math.sin(a)]), np.array([-math.sin(a), math.cos(a)])
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    return np.array([bars.x_um, bars.y_um]) + half * np.array([s * across + t * along for s, t in signs])


def _along(bars: Bars) -> int:
    """0 where the bars follow each other along x rather than y, else 1."""
    a = math.radians(bars.angle_deg)
    return int(abs(math.sin(a)) > abs(math.cos(a)))


def _curve(axes: Axes, found: Sequence[BarContrast], cutoffs: Mapping[str, float], phase: bool) -> None:
    for k, (label, colour, marker) in enumerate(ALONG):
        own = sorted((one.bars.per_mm, one.contrast) for one in found if _along(one.bars) == k)
        if own:
            axes.plot(*zip(*own, strict=True), marker=marker, ms=4, lw=1.2, color=colour, label=label)
    highest = max(one.contrast for one in found)
    axes.set_ylim(0, 1.12 * highest if phase else max(1.0, highest))
    finest = max(one.bars.per_mm for one in found)
    shown = {label: per_mm for label, per_mm in cutoffs.items() if per_mm <= FARTHEST * finest}
    for label, per_mm in shown.items():
        axes.axvline(per_mm, color="0.35", ls="--", lw=1)
        axes.annotate(
            f"{label}\n{per_mm:.0f}", (per_mm, 1.01), xycoords=("data", "axes fraction"), ha="center", va="bottom",
            fontsize=7, color="0.25",
        )  # fmt: skip
    axes.set_xlim(0, 1.06 * max(finest, *shown.values()) if shown else 1.06 * finest)
    axes.tick_params(labelsize=8)
    axes.set_xlabel("line pairs per mm", fontsize=9)
    axes.set_ylabel("phase difference (rad)" if phase else "contrast of the intensity", fontsize=9)
    axes.grid(alpha=0.25, lw=0.6)
    axes.legend(fontsize=7, loc="lower left", frameon=False)


def _profile(axes: Axes, one: BarContrast) -> None:
    width = one.bars.width_um
    axes.plot(one.across_um / width, one.profile, color=ALONG[_along(one.bars)][1], lw=1)
    for bar in (-2, 0, 2):
        axes.axvspan(bar - 0.5, bar + 0.5, color="0.9", lw=0)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.margins(x=0)
    axes.set_xlabel(f"{one.bars.label}  {one.bars.per_mm:.0f}/mm\n{one.contrast:.2f}", fontsize=6.5, labelpad=3)
