"""Draws ``conventions.png`` beside it: how LEDs, images and the object's spectrum lie.

Run: python docs/figures/conventions.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle, Rectangle

from fpmtools.leds import direction_sines, raster

PITCH_MM, HEIGHT_MM, NA = 4.0, 20.0, 0.22
BOARD = raster(3, 4, PITCH_MM) + np.array([PITCH_MM / 2, 0])  # LED 5 of 0 … 11 is on the axis
SHOWN = 11  # the LED that is followed: its x and y are positive, and not alike
BLUE, RED, GREY = "#1f5fa8", "#c8402a", "0.45"


def directions(ax: Axes, x: str, y: str) -> None:
    """Arrows along x (to the right) and y (down) in the upper left corner."""
    corner, arrow = (0.04, 0.95), {"arrowstyle": "->", "lw": 1.2}
    for (dx, dy), label, beside in (((0.22, 0), x, (0.015, 0)), ((0, -0.28), y, (-0.015, -0.04))):
        end = (corner[0] + dx, corner[1] + dy)
        ax.annotate("", end, corner, xycoords="axes fraction", arrowprops=arrow)
        ax.text(end[0] + beside[0], end[1] + beside[1], label, transform=ax.transAxes, va="center")
    ax.set(xticks=[], yticks=[], aspect="equal")
    ax.invert_yaxis()


def board(ax: Axes) -> None:
    for number, (x, y) in enumerate(BOARD):
        shown = number == SHOWN
        ax.add_patch(Circle((x, y), 1.1, color=RED if shown else "0.85"))
        ax.text(x, y, str(number), ha="center", va="center", color="white" if shown else GREY)
    ax.plot(0, 0, "+", color="black", markersize=26, markeredgewidth=0.8)
    ax.annotate("optical axis", (0, 0), (-9, 7.4), color=GREY, arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.6})
    x, y = BOARD[SHOWN]
    ax.text(x - 1.5, y + 2.2, f"x_mm {x:g}, y_mm {y:g}", color=RED, ha="center")
    ax.set(
        xlim=(-10, 11.5),
        ylim=(-9, 8.5),
        title="LED board, its axes those of the image\n(a raster: LED 0, 1, 2, … along x)",
    )
    directions(ax, "x", "y")


def image(ax: Axes) -> None:
    rng = np.random.default_rng(3)
    for x, y, size in zip(rng.uniform(1, 11, 9), rng.uniform(2.6, 7, 9), rng.uniform(0.5, 1.0, 9), strict=True):
        ax.add_patch(Circle((x, y), size, color=BLUE, alpha=0.35))
    ax.add_patch(Rectangle((0, 0), 12, 8, fill=False, color="black"))
    ax.add_patch(Rectangle((0, 0), 1, 1, color="black"))
    ax.text(1.3, 0.65, "pixel [0, 0]", va="center")
    ax.set(
        xlim=(-3.4, 13.4), ylim=(-3.4, 9.6), title=f"Image {SHOWN}, lit by LED {SHOWN} alone:\nimages[{SHOWN}, y, x]"
    )
    directions(ax, "x, columns", "y, rows")


def spectrum(ax: Axes) -> None:
    sines = direction_sines(BOARD, HEIGHT_MM)
    for number, (x, y) in enumerate(sines):
        shown = number == SHOWN
        ax.add_patch(Circle((x, y), NA, fill=shown, color=RED if shown else "0.8", alpha=0.35 if shown else 1.0))
    ax.plot(0, 0, "k+", markersize=9)
    x, y = sines[SHOWN]
    ax.annotate("", (x, y), (0, 0), arrowprops={"arrowstyle": "->", "color": RED, "lw": 1.6})
    ax.text(x - 0.02, y + 0.04, "+na/λ", color=RED, va="top", ha="center")
    ax.annotate("", (x + NA, y), (x, y), arrowprops={"arrowstyle": "-", "color": RED, "lw": 0.8, "linestyle": ":"})
    ax.text(x + NA + 0.02, y, "NA/λ", color=RED, va="center")
    ax.set(
        xlim=(-0.72, 0.9), ylim=(-0.72, 0.58), title=f"The object's spectrum: image {SHOWN}\nis made of the red disc"
    )
    directions(ax, "f$_x$", "f$_y$")


def main() -> None:
    mpl.rcParams |= {"font.size": 9, "axes.titlesize": 9.5}
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10, 3.9))
    board(left)
    image(middle)
    spectrum(right)
    figure.text(
        0.5, 0.03, "na = (x_mm, y_mm) / √(x_mm² + y_mm² + height_mm²), the direction sines of the LED's light",
        ha="center",
    )  # fmt: skip
    figure.subplots_adjust(left=0.05, right=0.98, top=0.86, bottom=0.1, wspace=0.18)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=120)


if __name__ == "__main__":
    main()
