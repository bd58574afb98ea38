"""Draws ``focus.svg`` and ``crop.svg`` beside it: what +z means, and which part of the spectrum an image is made of.

Run: python docs/figures/geometry.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle, Polygon, Rectangle

BLUE, RED, GREY = "#1f5fa8", "#c8402a", "0.45"
ARROW = {"arrowstyle": "->", "lw": 1.3}


def focus() -> plt.Figure:
    """A microscope from the side: LEDs, sample, focal plane, objective, camera; light goes up, +z goes down."""
    figure, ax = plt.subplots(figsize=(5.6, 4.6))
    for x in np.linspace(-3, 3, 7):
        ax.add_patch(Circle((x, 0), 0.14, color=RED if x == 2 else "0.75"))
    ax.text(3.5, 0, "LED board", va="center")
    for offset in (-0.9, 0, 0.9):
        ax.annotate("", (offset * 0.8, 4.0), (2 + offset * 0.2, 0.25), arrowprops=ARROW | {"color": RED, "lw": 0.9})
    ax.add_patch(Rectangle((-2.6, 4.05), 5.2, 0.22, color=BLUE, alpha=0.5, linewidth=0))
    ax.text(3.5, 4.16, "sample, at z > 0", va="center", color=BLUE)
    ax.plot([-3.1, 3.1], [5.2, 5.2], color=GREY, linestyle="--", linewidth=1)
    ax.text(3.5, 5.2, "focal plane, z = 0", va="center", color=GREY)
    ax.annotate("", (-2.9, 4.2), (-2.9, 5.2), arrowprops=ARROW)
    ax.text(-3.15, 4.7, "+z", ha="right", va="center", fontsize=11)
    ax.add_patch(Polygon([(-0.9, 6.0), (0.9, 6.0), (1.6, 6.9), (1.6, 7.6), (-1.6, 7.6), (-1.6, 6.9)], color="0.85"))
    ax.text(3.5, 6.8, "objective, NA", va="center")
    ax.add_patch(Rectangle((-1.4, 8.4), 2.8, 0.3, color="0.3"))
    ax.text(3.5, 8.55, "camera", va="center")
    ax.text(-3.1, -0.9, "Light goes upwards; a greater z is farther from the objective.", va="top", fontsize=9)
    ax.set(xlim=(-4.2, 7.2), ylim=(-1.5, 8.9), aspect="equal")
    ax.axis("off")
    return figure


def grid(ax: Axes, side: int, colour: str) -> None:
    """Fourier samples around the middle."""
    x, y = np.meshgrid(*[np.arange(-side, side + 1)] * 2)
    ax.plot(x.ravel(), y.ravel(), ".", color=colour, markersize=2)


def crop() -> plt.Figure:
    """The object's spectrum, and the box around +na/λ in it that becomes the spectrum of an image."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 4.3), gridspec_kw={"width_ratios": [1.4, 1]})
    na, radius, box = (4.3, 3.7), 3.6, 4
    whole = np.rint(na)
    grid(left, 9, "0.75")
    left.add_patch(Rectangle((-9.5, -9.5), 19, 19, fill=False, color="black"))
    left.add_patch(Rectangle(whole - box - 0.5, 2 * box + 1, 2 * box + 1, fill=False, color=BLUE, linewidth=1.5))
    left.add_patch(Circle(na, radius, color=RED, alpha=0.3))
    left.annotate("", na, (0, 0), arrowprops=ARROW | {"color": RED})
    left.text(2.6, 1.0, "+na/λ", color=RED, ha="left", va="bottom")
    left.plot(0, 0, "k+", markersize=9)
    left.text(-0.9, -0.4, "DC, at\n[H // 2, W // 2]", ha="right", va="bottom", fontsize=8)
    left.set(xlim=(-11, 10), ylim=(11.2, -10), title="spectrum of the object, H × W")
    grid(right, 6, "0.75")
    right.add_patch(Rectangle((-6.5, -6.5), 13, 13, fill=False, color="black"))
    right.add_patch(
        Rectangle((-box - 0.5, -box - 0.5), 2 * box + 1, 2 * box + 1, fill=False, color=BLUE, linewidth=1.5)
    )
    right.add_patch(Circle(np.array(na) - whole, radius, color=RED, alpha=0.3))
    right.text(
        0, 8.6, "times pupil · exp(+i k$_z$ z),\nboth at the rest of the shift", color=RED, ha="center", va="top"
    )
    right.set(xlim=(-8, 7), ylim=(11.2, -10), title="spectrum of the image, h × w")
    for ax in (left, right):
        ax.set(aspect="equal", xticks=[], yticks=[])
        ax.axis("off")
    for ax, side in ((left, 9.5), (right, 6.5)):
        ax.text(side - 0.2, side + 0.25, "f$_x$ →", ha="right", va="top")
        ax.text(-side - 0.25, side - 0.2, "f$_y$ ↓", ha="right", va="bottom", rotation=0)
    figure.subplots_adjust(left=0.03, right=0.98, top=0.9, bottom=0.06, wspace=0.1)
    return figure


def main() -> None:
    mpl.rcParams |= {"font.size": 9.5, "axes.titlesize": 10, "svg.hashsalt": "fpmtools"}
    for draw in (focus, crop):
        path = Path(__file__).with_name(f"{draw.__name__}.svg")
        draw().savefig(path, facecolor="white", metadata={"Date": None}, bbox_inches="tight", pad_inches=0.1)


if __name__ == "__main__":
    main()
