"""The figure of an inspection: the LED map, images by NA, spectra with the circles that are expected, and the field."""

from __future__ import annotations

import numpy as np
import scipy.fft
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray

from fpmtools.calibrate.inspection import Inspection
from fpmtools.report.contrast import gray_scale
from fpmtools.report.layout import Sheet, colour_bar, show_image

COLUMNS = 8  # of the contact sheet
THUMBNAIL, GAP, MARGIN = 0.88, 0.05, 0.3  # inches
SPECTRA = 4
GIVEN, FOUND = "#e8590c", "#1c7ed6"  # circles as the numbers given say, and as they were found

Floats = NDArray[np.float64]


def inspection(found: Inspection) -> Figure:
    """LED map with brightness, the field with a grid, spectra with circles, and a contact sheet by ascending NA."""
    sheet = Sheet(8.4, 10.0)
    sheet.text(MARGIN, 0.18, found.dataset.name[:80], weight="bold")
    sheet.text(MARGIN, 0.5, "LEDs: brightness, with the edge of the pupil")
    _led_map(sheet.axes(MARGIN + 0.4, 0.75, 3.0, 3.0), found)
    sheet.text(4.5, 0.5, "field: the brightest image, pixels for a region")
    _field(sheet, 4.9, 0.75, 3.0, found)
    sheet.text(MARGIN, 4.15, "spectra of bright-field images; circles: as given (dashed), as found (line)")
    sheet.text(MARGIN, 4.34, f"agreement: {_turn(found)}", size=7, color="0.4")
    side = (sheet.width - 2 * MARGIN - (SPECTRA - 1) * GAP) / SPECTRA
    for k, image in enumerate(_off_axis(found)):
        _spectrum(sheet.axes(MARGIN + k * (side + GAP), 4.52, side, side), found, int(image))
    top = 4.52 + side + 0.25
    sheet.text(MARGIN, top, "images by ascending |NA|, each with its own contrast: number, |NA|, mean")
    _contact_sheet(sheet, top + 0.25, found)
    return sheet.figure


def _led_map(axes: Axes, found: Inspection) -> None:
    data, geometry = found.dataset, found.geometry
    na, means = data.calibration.image_na, np.maximum(data.images.means, 0)
    level = max(geometry.board.level, 1e-300)
    shown = np.clip(means / level, 1e-4, 1.2)
    span = max(float(np.ptp(na, axis=0).max()), 1e-6)
    size = float(np.clip(9e3 / len(na), 8, 90))
    dots = axes.scatter(
        na[:, 0], na[:, 1], c=shown, s=size, cmap="magma", norm=LogNorm(1e-4, 1.2), edgecolors="0.6", lw=0.3
    )
    axes.figure.colorbar(dots, ax=axes, fraction=0.045, pad=0.02).ax.tick_params(labelsize=7)
    axes.add_patch(Circle((0, 0), data.optics.na, fill=False, ls="--", color=GIVEN, lw=1.2))
    if geometry.moved(data.optics.na) or geometry.cause:
        x, y = geometry.shift_na
        scale = {"na": geometry.factor, "radius": geometry.factor, "height": geometry.factor}.get(geometry.cause, 1.0)
        axes.add_patch(Circle((-x, -y), data.optics.na * scale, fill=False, color=FOUND, lw=1.2))
    wrong = geometry.board.bright != (np.linalg.norm(na, axis=1) <= data.optics.na)
    axes.scatter(na[wrong, 0], na[wrong, 1], s=size * 2.5, facecolors="none", edgecolors=FOUND, lw=0.8)
    middle = (na.max(axis=0) + na.min(axis=0)) / 2
    half = max(span / 2 * 1.1, data.optics.na * 1.1)
    axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] + half, middle[1] - half), aspect="equal")
    axes.tick_params(labelsize=7)
    axes.set_xlabel("NA x", fontsize=8)
    axes.set_ylabel("NA y", fontsize=8)


def _field(sheet: Sheet, x: float, y: float, side: float, found: Inspection) -> None:
    image = np.asarray(found.dataset.images[int(found.dataset.images.means.argmax())], dtype=np.float64)
    h, w = image.shape
    width, height = side * min(1, w / h), side * min(1, h / w)
    scale = gray_scale([image])
    axes = sheet.axes(x, y, width, height)
    axes.imshow(image, cmap=scale.cmap, vmin=scale.low, vmax=scale.high, extent=(0, w, h, 0), aspect="auto")
    axes.grid(color="white", alpha=0.35, lw=0.5)
    axes.tick_params(labelsize=7)
    colour_bar(sheet.axes(x + width + 0.08, y, 0.1, height), scale)


def _off_axis(found: Inspection) -> NDArray[np.intp]:
    """Bright-field images that are lit from far off the axis, from all sides."""
    bright = np.flatnonzero(found.geometry.board.bright)
    na = found.dataset.calibration.image_na[bright]
    far = np.argsort(-np.linalg.norm(na, axis=1), kind="stable")[: max(SPECTRA, len(bright) // 2)]
    around = far[np.argsort(np.arctan2(na[far, 1], na[far, 0]), kind="stable")]
    chosen: NDArray[np.intp] = bright[
        around[np.unique(np.linspace(0, len(around) - 1, min(SPECTRA, len(around))).astype(int))]
    ]
    return chosen


def _spectrum(axes: Axes, found: Inspection, image: int) -> None:
    data = found.dataset
    values = np.asarray(data.images[image], dtype=np.float64)
    h, w = values.shape
    window = np.hanning(h + 2)[1:-1, None] * np.hanning(w + 2)[1:-1]
    spectrum = np.fft.fftshift(scipy.fft.fft2((values / values.mean() - 1) * window, axes=(-2, -1)), axes=(-2, -1))
    power = np.log(np.square(np.abs(spectrum)) + 1e-9)
    low, high = np.percentile(power, (5, 99.8))
    axes.imshow(power, cmap="gray", vmin=low, vmax=high, extent=(-0.5, 0.5, 0.5, -0.5), aspect="equal")
    led = int(np.flatnonzero(found.geometry.image_of_led == image)[0])
    right = found.geometry.corrected(data)
    given = (data.calibration.image_na[image], data.optics.na, GIVEN, "--")
    better = (right.calibration.na[led] if data.calibration.patterns is None else given[0], right.optics.na, FOUND, "-")
    for na, pupil, colour, style in (given, better):
        unit = data.optics.pixel_um / data.optics.wavelength_um
        for sign in (1, -1):
            axes.add_patch(Circle(tuple(sign * na * unit), pupil * unit, fill=False, color=colour, ls=style, lw=0.9))
    axes.set(xlim=(-0.5, 0.5), ylim=(0.5, -0.5))
    axes.set_axis_off()
    _label(axes, f"image {image}")


def _contact_sheet(sheet: Sheet, top: float, found: Inspection) -> None:
    data = found.dataset
    order = data.calibration.order
    rows = int((sheet.height - top - 0.1) / (THUMBNAIL + GAP))
    # Denser where there is light: a square-root scale of the rank.
    places = np.linspace(0, 1, min(COLUMNS * rows, len(order))) ** 2 * (len(order) - 1)
    chosen = order[np.unique(np.maximum(places.round().astype(int), np.arange(len(places))))]
    for k, image in enumerate(chosen):
        x, y = MARGIN + (k % COLUMNS) * (THUMBNAIL + GAP + 0.04), top + (k // COLUMNS) * (THUMBNAIL + GAP)
        values = np.asarray(data.images[image], dtype=np.float64)
        axes = sheet.axes(x, y, THUMBNAIL, THUMBNAIL)
        show_image(axes, values, values.shape, gray_scale([values]), scale_bar=False)
        distance = float(np.linalg.norm(data.calibration.image_na[image]))
        _label(axes, f"{image}  {distance:.3f}\n{values.mean():.3g}")


def _label(axes: Axes, text: str) -> None:
    halo = [patheffects.withStroke(linewidth=1.8, foreground="black")]
    axes.annotate(
        text, (0.03, 0.97), xycoords="axes fraction", va="top", fontsize=6.5, color="white", path_effects=halo
    )


def _turn(found: Inspection) -> str:
    discs = found.geometry.discs
    if discs is None:
        return "too few to compare"
    return ", ".join(f"{name} {score:.2f}" for name, score in discs.scores.items())
