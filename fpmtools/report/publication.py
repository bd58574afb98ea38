"""Figures for papers from a comparison's folder: each as PNG (300 dpi) and SVG, one column wide where it is a chart."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from fpmtools import storage
from fpmtools.comparison.spec import slug
from fpmtools.report import figures, html_folder, html_table
from fpmtools.report.contrast import z_label
from fpmtools.report.html_charts import pareto_edge
from fpmtools.report.html_folder import Curve, Entry, Evidence, read
from fpmtools.report.rendering import Rendered

FIGURES_FOLDER = "figures"
PNG_DPI = 300
_WIDTH, _HEIGHT = 3.5, 2.7  # inches: a journal's column
_COLOURS = ("#0068b0", "#c44a00", "#007a57", "#a8326f", "#8a6500", "#6240b5", "#00727d", "#6b4a2f")
_MARKERS = "os^Dv*Ph"


def write(folder: str | Path) -> list[Path]:
    """Draw what the folder of a comparison has data for, into its ``figures``, and return the files.

    Side by side (amplitude, phase and error), PSNR and SSIM over time, storage against quality, ring correlation, and
    loss; the names of several data sets are part of the files' names. Raises :class:`DataError` where the folder holds
    no comparison, and :class:`OutputError` where it cannot be written.
    """
    evidence = read(folder)
    written: list[Path] = []
    for data in evidence.datasets:
        suffix = f"-{slug(data)}" if len(evidence.datasets) > 1 else ""
        for name, figure in _drawn(evidence, data):
            written += _save(figure, evidence.folder / FIGURES_FOLDER / f"{name}{suffix}")
    return written


def _drawn(evidence: Evidence, data: str) -> Iterator[tuple[str, Figure]]:
    entries = evidence.of(data)
    if (figure := side_by_side(evidence, data)) is not None:
        yield "side_by_side", figure
    for column in (html_table.column(key, {}) for key in ("psnr", "ssim")):
        curves = _kept({entry: entry.over_time(column.key) for entry in entries})
        if curves:
            yield f"{column.key}_over_time", _lines(evidence, curves, "time (s)", column.label, log_x=True)
    if (found := html_table.storage_against_quality(entries)) is not None:
        yield "storage_quality", _storage(evidence, *found)
    for of in html_folder.RING_KINDS:
        rings, limit = evidence.ring_correlations(data, of)
        if not rings:
            continue
        figure = _lines(evidence, rings, "spatial frequency (cycles/µm)", "Fourier ring correlation", markers=False)
        figure.axes[0].plot(*zip(*limit, strict=True), color="0.4", ls="--", lw=0.9)
        yield f"ring_correlation_{of}", figure
    losses = _kept({entry: entry.over_time("loss") for entry in entries})
    if losses:
        yield "loss_over_time", _lines(evidence, losses, "time (s)", "loss", log_x=True, log_y=True, markers=False)


def side_by_side(evidence: Evidence, data: str) -> Figure | None:
    """One column per solver: every pixel at its true depth where that is known, else the middle plane.

    Of several seeds the first. None where no solver has pictures.
    """
    entries = [entry for entry in evidence.of(data) if entry.row.get("seed") == evidence.of(data)[0].row.get("seed")]
    rendered = [entry.rendered for entry in entries if isinstance(entry.rendered, Rendered)]
    if not rendered:
        return None
    truth, columns = evidence.truths.get(data), []
    for entry in entries:
        result, shown = entry.rendered, evidence.in_focus(entry)
        if isinstance(result, str):
            columns.append(figures.Column(entry.name, None, result))
            continue
        psnr, seconds = entry.number("psnr"), entry.number("seconds")
        notes = ["" if psnr is None else f"{psnr:.1f} dB", "" if seconds is None else f"{seconds:.3g} s"]
        field = result.middle if shown is None else shown.field
        columns.append(figures.Column(entry.name, field, " · ".join(filter(None, notes))))
    where = "each pixel at its true depth; the truth is limited to the synthetic aperture"
    title = f"{data}, {where if truth else z_label(rendered[0].middle_um)}"
    return figures.side_by_side(columns, rendered[0].grid.extent_um, truth=truth.field if truth else None, title=title)


def _storage(evidence: Evidence, quality: html_table.Column, points: Mapping[Entry, tuple[float, float]]) -> Figure:
    higher = quality.better == "higher"
    dots = {entry: [point] for entry, point in points.items()}
    figure = _lines(evidence, dots, "stored (MB)", quality.label, log_x=True, log_y=not higher)
    edge = pareto_edge(list(points.values()), higher)
    figure.axes[0].step(*zip(*edge, strict=True), where="post", color="0.5", ls="--", lw=0.9, zorder=1)
    return figure


def _lines(
    evidence: Evidence,
    curves: Mapping[Entry, Curve],
    x: str,
    y: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
    markers: bool = True,
) -> Figure:
    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    for entry, curve in curves.items():
        place = evidence.solvers.index(entry.name)
        style: dict[str, Any] = {"color": _COLOURS[place % len(_COLOURS)], "lw": 1.2, "ms": 4}
        if markers:
            style["marker"] = _MARKERS[place % len(_MARKERS)]
        axes.plot(*zip(*curve, strict=True), label=entry.name, **style)
    _dress(axes, x, y, log_x, log_y)
    return figure


def _dress(axes: Axes, x: str, y: str, log_x: bool, log_y: bool) -> None:
    for name, log in (("x", log_x), ("y", log_y)):
        if log:
            axes.set(**{f"{name}scale": "log"})
            axis = axes.xaxis if name == "x" else axes.yaxis
            low, high = axis.get_data_interval()
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.set_minor_formatter(StrMethodFormatter("{x:g}") if high < 30 * low else NullFormatter())
            if high < 30 * low:
                axis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.tick_params(labelsize=7, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, lw=0.5)
    for text in axes.legend(fontsize=7, frameon=False).get_texts():
        text.set_parse_math(False)


def _kept(curves: Mapping[Entry, Curve]) -> dict[Entry, Curve]:
    """Those that have positive times and finite values."""
    kept = {entry: [(x, y) for x, y in curve if x > 0 and math.isfinite(y)] for entry, curve in curves.items()}
    return {entry: curve for entry, curve in kept.items() if curve}


def _save(figure: Figure, stem: Path) -> list[Path]:
    written = []
    for kind, how in (("png", {"dpi": PNG_DPI}), ("svg", {"metadata": {"Date": None}})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, **how)
        written.append(storage.write_bytes(stem.with_name(f"{stem.name}.{kind}"), buffer.getvalue()))
    return written
