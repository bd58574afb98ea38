"""What figures are made of: a page measured in inches, images in µm with a scale bar, colour bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fpmtools.report.contrast import FULL_CIRCLE, Scale, length_label, scale_bar_um

DPI = 160
LINE = 0.17  # inches per line of 9 pt text


class Sheet:
    """A figure measured in inches from its top left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Axes whose top left corner is at (x, y)."""
        return self.figure.add_axes(
            (x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height)
        )

    def text(self, x: float, y: float, text: str, *, size: float = 9, va: str = "top", **style: Any) -> None:
        """Text anchored at (x, y)."""
        self.figure.text(x / self.width, 1 - y / self.height, text, fontsize=size, va=va, parse_math=False, **style)


def show_image(
    axes: Axes, values: NDArray[np.floating[Any]], extent_um: Sequence[float], scale: Scale, *, scale_bar: bool
) -> None:
    """An image in µm, its first row on top, with a scale bar that reads on black and on white."""
    height, width = extent_um
    axes.imshow(values, cmap=scale.cmap, vmin=scale.low, vmax=scale.high, extent=(0, width, height, 0), aspect="auto")
    axes.set_axis_off()
    if not scale_bar:
        return
    length = scale_bar_um(width)
    halo = [patheffects.withStroke(linewidth=2.2, foreground="black")]
    box = axes.get_window_extent()
    narrow = box.width / DPI < 1.5
    right, low = 0.96 * width, height * (1 - min(0.12, 0.1 * DPI / box.height))
    axes.plot(
        [right - length, right],
        [low, low],
        color="white",
        lw=2.5,
        solid_capstyle="butt",
        path_effects=[patheffects.withStroke(linewidth=4, foreground="black")],
    )
    axes.annotate(
        length_label(length),
        (right if narrow else right - length / 2, low),
        (0, 3),
        textcoords="offset points",
        color="white",
        fontsize=8,
        ha="right" if narrow else "center",
        va="bottom",
        path_effects=halo,
        annotation_clip=False,
    )


def colour_bar(axes: Axes, scale: Scale) -> None:
    """Fill ``axes`` with the colours of ``scale``; as many ticks as fit, in fractions of π where it is cyclic."""
    mappable = ScalarMappable(Normalize(scale.low, scale.high), scale.cmap)
    bar = Colorbar(axes, mappable)
    bar.outline.set_linewidth(0.5)
    axes.tick_params(labelsize=7.5, length=2.5, width=0.5)
    if scale == FULL_CIRCLE:
        bar.set_ticks([-math.pi, -math.pi / 2, 0, math.pi / 2, math.pi], labels=["−π", "−π/2", "0", "π/2", "π"])
    else:
        inches = axes.get_window_extent().height / DPI
        ticks = MaxNLocator(max(1, min(6, int(inches / 0.35)))).tick_values(scale.low, scale.high)
        bar.set_ticks([float(tick) for tick in ticks if scale.low <= tick <= scale.high])
