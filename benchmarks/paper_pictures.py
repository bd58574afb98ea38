"""The figures that ``paper.py`` draws: minutes against patch size, all-in-focus images with depth maps, examples."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, StrMethodFormatter
from numpy.typing import NDArray

from fpmtools import storage
from fpmtools.dataset import Dataset
from fpmtools.metrics import AllInFocus, band_limit, composite
from fpmtools.reconstruction import Reconstruction
from fpmtools.report import figures
from fpmtools.report.contrast import Scale, gray_scale
from fpmtools.report.layout import DPI, LINE, Sheet, colour_bar, show_image

Line = Sequence[tuple[float, float]]  # (side of the patch in pixels, minutes)
IMAGE, GAP, LEFT, BAR = 2.4, 0.1, 0.5, 0.11  # inches


def minutes(published: Mapping[str, Line], measured: Mapping[str, Line], hardware: str, path: Path) -> Path:
    """Minutes against patch size, both logarithmic: published ones dashed, measured ones solid."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    for lines, style in ((published, "s--"), (measured, "o-")):
        for k, (label, line) in enumerate(lines.items()):
            axes.loglog(*zip(*line, strict=True), style, color=f"C{k}", label=label, ms=4, lw=1.3)
    sides = sorted({x for line in (*published.values(), *measured.values()) for x, _ in line})
    axes.set_xticks(sides, [f"{side:g}²" for side in sides])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_xlabel("patch, camera pixels")
    axes.set_ylabel("minutes")
    axes.set_title(f"68 LEDs, 161 planes over 40 µm; solid lines: {hardware}", fontsize=9)
    axes.grid(alpha=0.3, which="both", lw=0.5)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _save(figure, path)


def example(results: Mapping[str, Reconstruction], notes: Mapping[str, str], data: Dataset, path: Path) -> Path:
    """Amplitude and phase of each solver; with a truth, at its depths, beside it and with the error."""
    grid = next(iter(results.values())).grid
    truth, title = None, f"{data.name}, z = {sum(grid.z_range) / 2:g} µm"
    if data.truth is not None:
        truth = band_limit(data.truth.field, data.optics, data.na, grid.pixel_um[0])
        title = f"{data.name}" + (", every pixel at its true depth" if grid.z_range[0] < grid.z_range[1] else "")
    columns = [figures.Picture(label, _shown(result, data), notes[label]) for label, result in results.items()]
    return _save(figures.side_by_side(columns, grid.extent_um, truth=truth, title=title), path)


def _save(figure: Figure, path: Path) -> Path:
    """A PNG at half the usual resolution: it is kept with the results."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI / 2, pil_kwargs={"optimize": True})
    return storage.write_bytes(path, drawn.getvalue())


def _shown(result: Reconstruction, data: Dataset) -> NDArray[np.complex64]:
    if data.truth is None:
        return result.field(sum(result.grid.z_range) / 2)
    return composite(result, data.truth.depth_um)


def in_focus(
    found: Mapping[str, Mapping[str, AllInFocus]],
    extent_um: tuple[float, float],
    z_range: tuple[float, float],
    path: Path,
) -> Path:
    """All-in-focus amplitudes above their depth maps, by method and, a column each, by solver.

    The grey scale is that of the very first amplitude, the colours of depth are all of ``z_range``.
    """
    names = list(next(iter(found.values())))
    gray = gray_scale([found[method][names[0]].amplitude for method in list(found)[:1]])
    rows = [
        row
        for method, images in found.items()
        for row in (
            (f"{method}\namplitude", gray, [images[name].amplitude for name in names]),
            (f"{method}\ndepth (µm)", Scale("viridis", *z_range), [images[name].depth_um for name in names]),
        )
    ]
    height = IMAGE * extent_um[0] / extent_um[1]
    top, step, right = GAP + 1.5 * LINE, height + GAP, LEFT + len(names) * (IMAGE + GAP)
    sheet = Sheet(right + BAR + 0.6, top + len(rows) * step)
    for k, name in enumerate(names):
        sheet.text(LEFT + k * (IMAGE + GAP) + IMAGE / 2, GAP, name, ha="center", weight="bold")
    for n, (label, scale, images) in enumerate(rows):
        y = top + n * step
        sheet.text(LEFT / 2, y + height / 2, label, rotation=90, ha="center", va="center")
        for k, values in enumerate(images):
            axes = sheet.axes(LEFT + k * (IMAGE + GAP), y, IMAGE, height)
            show_image(axes, values, extent_um, scale, scale_bar=n == 0)
        colour_bar(sheet.axes(right, y, BAR, height), scale)
    return _save(sheet.figure, path)
