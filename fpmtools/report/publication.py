"""Figures for papers from a comparison's folder: each as PNG (300 dpi) and SVG, one column wide where it is a chart."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

from fpmtools import storage
from fpmtools.comparison.spec import slug
from fpmtools.report import charts, curves, figures
from fpmtools.report.contrast import z_label
from fpmtools.report.html_folder import Folder
from fpmtools.report.html_run import read
from fpmtools.report.rendering import Rendered

FIGURES_FOLDER = "figures"
PNG_DPI = 300


def write(folder: str | Path) -> list[Path]:
    """Draw what the folder of a comparison, or a run, has data for, into its ``figures``, and return the files.

    Side by side (amplitude, phase and error), and every chart of the page; the names of several data sets are part of
    the files' names. Raises :class:`DataError` where the folder holds neither, and :class:`OutputError` where it
    cannot be written.
    """
    found = read(folder)
    written: list[Path] = []
    for data in found.datasets:
        suffix = f"-{slug(data)}" if len(found.datasets) > 1 else ""
        for name, figure in _drawn(found, data):
            written += _save(figure, found.path / FIGURES_FOLDER / f"{name}{suffix}")
    return written


def _drawn(folder: Folder, data: str) -> Iterator[tuple[str, Figure]]:
    if (figure := side_by_side(folder, data)) is not None:
        yield "side_by_side", figure
    for chart in curves.all_of(folder, data):
        yield chart.name, charts.figure(chart)


def side_by_side(folder: Folder, data: str) -> Figure | None:
    """One column per solver: every pixel at its true depth where that is known, else the middle plane.

    Of several seeds the first. None where no solver has pictures.
    """
    rows = [row for row in folder.of(data) if row.values.get("seed") == folder.of(data)[0].values.get("seed")]
    rendered = [row.rendered for row in rows if isinstance(row.rendered, Rendered)]
    if not rendered:
        return None
    truth, pictures = folder.truths.get(data), []
    for row in rows:
        result, shown = row.rendered, folder.in_focus(row)
        if isinstance(result, str):
            pictures.append(figures.Picture(row.name, None, result))
            continue
        psnr, seconds = row.number("psnr"), row.number("seconds")
        notes = ["" if psnr is None else f"{psnr:.1f} dB", "" if seconds is None else f"{seconds:.3g} s"]
        field = result.middle if shown is None else shown.field
        pictures.append(figures.Picture(row.name, field, " · ".join(filter(None, notes))))
    where = "each pixel at its true depth; the truth is limited to the synthetic aperture"
    depths = {z_label(one.middle_um) for one in rendered}
    title = f"{data}, {where if truth else depths.pop() if len(depths) == 1 else 'each at its own depth'}"
    return figures.side_by_side(pictures, rendered[0].grid.extent_um, truth=truth.field if truth else None, title=title)


def _save(figure: Figure, stem: Path) -> list[Path]:
    written = []
    for kind, how in (("png", {"dpi": PNG_DPI}), ("svg", {"metadata": {"Date": None}})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, **how)
        written.append(storage.write_bytes(stem.with_name(f"{stem.name}.{kind}"), buffer.getvalue()))
    return written
