"""Figures of fields, losses and comparisons, drawn with matplotlib's objects and never through pyplot's global state.

Every function returns a :class:`matplotlib.figure.Figure`; :func:`save` writes it. Axes are placed in inches, so that
no image shape, name or number of solvers can break the layout. Fields are complex [y, x] over a field of view of
``extent_um`` (y, x).
"""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fpmtools import metrics, storage
from fpmtools.optics import resample
from fpmtools.reconstruction import without_piston
from fpmtools.report import charts
from fpmtools.report.charts import Axis, Chart, Series
from fpmtools.report.contrast import CLIPPED_PERCENT, Scale, gray_scale, phase_scale
from fpmtools.report.layout import DPI, LINE, Sheet, colour_bar, show_image

Extent = tuple[float, float]
Field = NDArray[np.complexfloating[Any, Any]]

_LETTER = 0.085  # inches, a wide character of 9 pt text
_SMALL_LINE = 0.12  # inches per line of 6.5 pt text
_MARGIN, _GAP, _NEAR, _BAR, _BAR_LABELS = 0.15, 0.18, 0.08, 0.11, 0.62  # inches
_CONTRAST = f"Scales clip the lowest and highest {CLIPPED_PERCENT:g} % of the pixels."
_PISTON = "Phase is relative to its mean."
_ALIGNED = (
    "Fields are aligned to the truth by one complex gain. "
    f"Scales clip the lowest and highest {CLIPPED_PERCENT:g} % of the truth's pixels."
)


@dataclass(frozen=True)
class Picture:
    """One solver in :func:`side_by_side`: its name, a line such as ``31.2 dB · 14 s``, and its field.

    ``field`` is None where the solver failed; ``note`` then says why.
    """

    name: str
    field: Field | None
    note: str = ""


def amplitude(field: Field, extent_um: Extent, *, title: str = "") -> Figure:
    """Amplitude of ``field`` in grey, with colour bar and scale bar."""
    return _panels([_amplitude_panel(field)], extent_um, title, _CONTRAST)


def phase(field: Field, extent_um: Extent, *, title: str = "") -> Figure:
    """Phase of ``field`` in rad relative to its mean, with colour bar and scale bar; cyclic colours where it wraps."""
    return _panels([_phase_panel(field)], extent_um, title, f"{_PISTON} {_CONTRAST}")


def amplitude_phase(field: Field, extent_um: Extent, *, title: str = "") -> Figure:
    """Amplitude and phase of ``field`` beside each other (above each other where the field is wide)."""
    return _panels([_amplitude_panel(field), _phase_panel(field)], extent_um, title, f"{_PISTON} {_CONTRAST}")


def evaluation(
    observed: NDArray[np.floating[Any]],
    predicted: NDArray[np.floating[Any]],
    quality: Mapping[str, str],
    *,
    extent_um: Extent | None = None,
) -> Figure:
    """Observed and predicted image on one grey scale, and the absolute difference, with the metrics above.

    ``observed`` and ``predicted`` are real [y, x]; ``quality`` holds each metric's label and value, as they are
    written. Without ``extent_um`` there is no scale bar.
    """
    difference = np.abs(observed - predicted)
    shared = gray_scale([observed, predicted])
    panels = [
        _Panel("observed", observed, shared),
        _Panel("predicted", predicted, shared),
        _Panel("|observed − predicted|", difference, _from_zero(difference)),
    ]
    title = "   ".join(f"{label} {value}" for label, value in quality.items())
    return _panels(panels, extent_um or observed.shape, title, _CONTRAST, scale_bar=extent_um is not None)


def loss_curve(history: Sequence[tuple[int, float, float]], *, title: str = "") -> Figure:
    """Loss against step from (step, seconds, loss) rows; logarithmic where it falls by more than a factor of 3."""
    rows = [row for row in history if math.isfinite(row[2])]
    losses = [loss for _, _, loss in rows]
    log = bool(rows) and min(losses) > 0 and max(losses) > 3 * min(losses)
    name = f"{losses[-1]:.3g} after {rows[-1][1]:.3g} s" if rows else "no loss was reported"
    series = Series(name, [(step, loss) for step, _, loss in rows], 0, markers=len(rows) < 40)
    chart = Chart("loss", title, [series], Axis("step"), Axis("loss", log))
    figure = charts.figure(chart, (6.4, 4.0), legend=False)
    figure.suptitle(_cut_text(f"{title}: {name}" if title else name, 6.0), fontsize=9, parse_math=False)
    return figure


def side_by_side(
    pictures: Sequence[Picture], extent_um: Extent, *, truth: Field | None = None, title: str = ""
) -> Figure:
    """One column per solver (and one for the truth), rows amplitude, phase and, with a truth, the absolute error.

    Each row has one scale: the truth's where there is one, so that no bad result decides it. Fields may differ in
    shape: they cover the same field of view. With ``truth`` each field is first brought to it by the one complex gain
    that fits best, and resampled to its shape; without, phases are relative to their own means.
    """
    truth = None if truth is None else without_piston(truth)
    shown = [None if picture.field is None else _aligned(picture.field, truth) for picture in pictures]
    heads = [(picture.name, picture.note) for picture in pictures]
    note = f"{_PISTON} {_CONTRAST}"
    if truth is not None:
        note = _ALIGNED
        errors = [None if field is None else np.abs(truth - field) for field in shown]
        shown.append(truth)
        heads.append(("truth", ""))
    leading = [field for field in shown if field is not None] if truth is None else [truth]
    amplitudes = [None if field is None else np.abs(field) for field in shown]
    phases = [None if field is None else np.angle(field) for field in shown]
    rows = [
        _Row("amplitude", gray_scale(np.abs(field) for field in leading), amplitudes),
        _Row("phase (rad)", phase_scale(leading), phases),
    ]
    if truth is not None:
        rows.append(_Row("|error|", _from_zero(*[error for error in errors if error is not None]), errors))
    return _table(heads, rows, extent_um, title, note)


def png(figure: Figure) -> bytes:
    """The figure as the content of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def save(figure: Figure, path: str | Path) -> Path:
    """Write the figure as a PNG, atomically."""
    return storage.write_bytes(path, png(figure))


@dataclass(frozen=True)
class _Panel:
    label: str
    values: NDArray[np.floating[Any]]
    scale: Scale


@dataclass(frozen=True)
class _Row:
    label: str
    scale: Scale
    images: Sequence[NDArray[np.floating[Any]] | None]  # None where a column has nothing to show


def _amplitude_panel(field: Field) -> _Panel:
    values = np.abs(field)
    return _Panel("amplitude", values, gray_scale([values]))


def _phase_panel(field: Field) -> _Panel:
    flat = without_piston(field)
    return _Panel("phase (rad)", np.angle(flat), phase_scale([flat]))


def _panels(
    panels: Sequence[_Panel], extent_um: Sequence[float], title: str, note: str, *, scale_bar: bool = True
) -> Figure:
    """Panels of one shape, each with its colour bar, in a row, or in a column where they are wide."""
    aspect = extent_um[0] / extent_um[1]
    stacked = aspect < 0.5
    longest = {1: 6.0, 2: 4.6}.get(len(panels), 4.0)
    width, height = (longest, longest * aspect) if aspect <= 1 else (longest / aspect, longest)
    width, height = max(width, 0.2), max(height, 0.2)
    slot = max(width, 1.0)
    cell = slot + _NEAR + _BAR + _BAR_LABELS
    step = LINE + 0.06 + height + _GAP
    columns, rows = (1, len(panels)) if stacked else (len(panels), 1)
    page = max(_MARGIN * 2 + columns * cell, 3.4)
    lines = textwrap.wrap(title, int((page - 0.3) / _LETTER), max_lines=3, placeholder=" …")
    top = _MARGIN + (LINE * len(lines) + 0.06 if lines else 0)
    small = _small(note, page)
    sheet = Sheet(page, top + rows * step + _SMALL_LINE * len(small) + _NEAR)
    for k, line in enumerate(lines):
        sheet.text(page / 2, _MARGIN + k * LINE, line, ha="center", weight="bold")
    start = (page - columns * cell) / 2 + (0 if columns > 1 else 0.1)
    for k, panel in enumerate(panels):
        x, y = (start, top + k * step) if stacked else (start + k * cell, top)
        sheet.text(x + slot / 2, y, panel.label, ha="center")
        x, y = x + (slot - width) / 2, y + LINE + 0.06
        show_image(sheet.axes(x, y, width, height), panel.values, extent_um, panel.scale, scale_bar=scale_bar)
        colour_bar(sheet.axes(x + width + _NEAR, y, _BAR, height), panel.scale)
    _foot(sheet, _MARGIN, top + rows * step, small)
    return sheet.figure


def _table(heads: Sequence[tuple[str, str]], rows: Sequence[_Row], extent_um: Extent, title: str, note: str) -> Figure:
    """Rows of images under (name, note) heads, one colour bar per row; columns shrink to keep the page under 17 in."""
    aspect = extent_um[0] / extent_um[1]
    width = min(2.9, 15.0 / len(heads), 3.4 / aspect)
    slot, height = max(width, 1.3), width * aspect
    letters = int(slot / _LETTER)
    names = [_name_lines(name, letters) for name, _ in heads]
    below = [textwrap.wrap(text, letters, max_lines=3, placeholder=" …") for _, text in heads]
    left, top = _MARGIN + 0.3, _MARGIN + (LINE + 0.1 if title else 0)
    first = top + LINE * max(len(a) + len(b) for a, b in zip(names, below, strict=True)) + _NEAR
    band = max(height, 0.85)  # a row label must fit
    step = band + _NEAR
    page = left + len(heads) * (slot + _NEAR) + _BAR + _BAR_LABELS
    small = _small(note, page)
    sheet = Sheet(page, first + len(rows) * step + _SMALL_LINE * len(small) + _NEAR)
    if title:
        sheet.text(sheet.width / 2, _MARGIN, _cut_text(title, sheet.width), ha="center", weight="bold")
    for k in range(len(heads)):
        middle = left + k * (slot + _NEAR) + slot / 2
        for n, line in enumerate([*names[k], *below[k]]):
            sheet.text(middle, top + n * LINE, line, ha="center", weight="bold" if n < len(names[k]) else "normal")
        if rows[0].images[k] is None:
            sheet.text(middle, first + band / 2, "no picture", ha="center", va="center", color="0.5")
        for n, row in enumerate(rows):
            image = row.images[k] if k < len(row.images) else None
            if image is not None:
                axes = sheet.axes(middle - width / 2, first + n * step + (band - height) / 2, width, height)
                show_image(axes, image, extent_um, row.scale, scale_bar=n == 0)
    for n, row in enumerate(rows):
        y, tall = first + n * step + band / 2, min(height, 2.4)
        sheet.text(left - 0.2, y, row.label, rotation=90, ha="center", va="center")
        x = left + len(heads) * (slot + _NEAR)
        colour_bar(sheet.axes(x, y - tall / 2, _BAR, tall), row.scale)
    _foot(sheet, left, first + len(rows) * step, small)
    return sheet.figure


def _name_lines(name: str, characters: int, most: int = 3) -> list[str]:
    """A solver's name in at most ``most`` lines; one too long loses its middle, for names differ at their ends."""
    # May break after these, and where there is a space already.
    breakable = re.sub(r"([:=,_+])(?! )", "\\1\0 ", name)
    lines = [line.replace("\0 ", "").rstrip("\0") for line in textwrap.wrap(breakable, characters)]
    if len(lines) > most:
        half = (characters * most - 1) // 2
        name = f"{name[:half]}…{name[-half:]}" if len(name) > characters * most else name
        lines = [name[k : k + characters] for k in range(0, len(name), characters)]
    return lines


def _small(note: str, page: float) -> list[str]:
    return textwrap.wrap(note, int((page - 0.5) / 0.05))


def _foot(sheet: Sheet, x: float, y: float, lines: Sequence[str]) -> None:
    for k, line in enumerate(lines):
        sheet.text(x, y + k * _SMALL_LINE, line, size=6.5, color="0.4")


def _cut_text(text: str, width: float) -> str:
    """One line of at most ``width`` inches."""
    most = int(width / _LETTER)
    return text if len(text) <= most else text[: most - 1] + "…"


def _aligned(field: Field, truth: Field | None) -> Field:
    if truth is None:
        return without_piston(field)
    field = resample(field, truth.shape)
    return np.asarray(field * metrics.align(truth, field))


def _from_zero(*images: NDArray[np.floating[Any]]) -> Scale:
    return Scale("magma", 0.0, gray_scale(images).high)
