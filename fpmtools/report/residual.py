"""The first singular pictures of what a result does not explain, and in which LEDs' images they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from fpmtools.report.contrast import Scale
from fpmtools.report.layout import LINE, Sheet, colour_bar, show_image

COLOURS = "RdBu_r"
SIDE, GAP, MARGIN, BAR = 2.1, 0.75, 0.25, 0.11  # inches
CLIPPED = 99.5  # percent of the pixels that the scale holds
NOTE = (
    "Amplitudes, measured less predicted: red where the camera has seen more. Below: how much of it each LED's image "
    "has, at the LED's place; dashed: the objective's NA."
)


def singular_pictures(
    found: Mapping[str, Any], na: ArrayLike, objective_na: float, extent_um: Sequence[float], *, title: str = ""
) -> Figure:
    """Pictures, shares and loads (see :class:`fpmtools.metrics.patterns.SingularPictures`) side by side.

    ``na`` [led, (x, y)] and ``objective_na`` place the loads. Without a picture the figure says so.
    """
    pictures = [np.asarray(picture, dtype=np.float64) for picture in found["pictures"]]
    places, aspect = np.asarray(na, dtype=np.float64), extent_um[0] / extent_um[1]
    width, height = (SIDE, SIDE * aspect) if aspect <= 1 else (SIDE / aspect, SIDE)
    cell = SIDE + 0.08 + BAR + GAP
    sheet = Sheet(2 * MARGIN + max(len(pictures), 2) * cell, 2.1 * LINE + height + SIDE + 5 * MARGIN)
    sheet.text(MARGIN, 0.1, title or "what is not explained", weight="bold")
    if not pictures:
        sheet.text(MARGIN, 0.1 + 2 * LINE, "nothing is left")
        return sheet.figure
    for k, (picture, share, loads) in enumerate(zip(pictures, found["shares"], found["loads"], strict=True)):
        x, y = MARGIN + k * cell, 0.1 + 1.5 * LINE
        sheet.text(x, y, f"{k + 1}: {share:.1%} of the squared error")
        y += LINE + 0.06
        scale = symmetric(picture)
        show_image(sheet.axes(x, y, width, height), picture, extent_um, scale, scale_bar=k == 0)
        colour_bar(sheet.axes(x + width + 0.08, y, BAR, height), scale)
        y += height + MARGIN
        _loads(sheet, (x, y), np.asarray(loads, dtype=np.float64), places, objective_na)
    sheet.text(MARGIN, sheet.height - 1.2 * LINE, NOTE, size=6.5, color="0.4")
    return sheet.figure


def symmetric(picture: NDArray[np.float64]) -> Scale:
    """A scale whose middle is 0."""
    top = float(np.percentile(np.abs(picture), CLIPPED)) or 1.0
    return Scale(COLOURS, -top, top)


def _loads(
    sheet: Sheet, at: tuple[float, float], loads: NDArray[np.float64], na: NDArray[np.float64], objective_na: float
) -> None:
    axes, scale = sheet.axes(*at, SIDE, SIDE), symmetric(loads)
    spacing = 72 * SIDE / max(np.sqrt(len(na)), 3)  # points
    axes.scatter(
        na[:, 0], na[:, 1], c=loads, cmap=scale.cmap, vmin=scale.low, vmax=scale.high, s=(0.55 * spacing) ** 2,
        edgecolors="0.6", linewidths=0.3,
    )  # fmt: skip
    turn = np.linspace(0, 2 * np.pi, 200)
    axes.plot(objective_na * np.cos(turn), objective_na * np.sin(turn), color="0.4", lw=0.8, ls="--")
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.margins(0.08)
    axes.set_axis_off()
    colour_bar(sheet.axes(at[0] + SIDE + 0.08, at[1], BAR, SIDE), scale)
