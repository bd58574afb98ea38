"""Resolution by three-bar targets, such as USAF 1951: contrast of bars at known places against their frequency.

An element is three bars, each half a period wide and five times as long, with two gaps between them. Its contrast is
(B − G) / (B + G) of the mean intensities of bars and gaps, taken where the profile across them should be flat; of a
phase target it is the difference of the mean phases. Its place is known to about half a bar's width, so the element is
moved across the bars to where they stand out most of gaps and surroundings.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fpmtools.errors import DataError, printable

LONG = 0.6  # share of the bars' length over which the profile is a mean
FLAT = 0.5  # share of a bar's, or a gap's, width that counts
SAMPLES = 16  # of the profile in a bar's width
REACH = 3.5  # bars' widths from the middle of the element, whose own end is at 2.5, to where its surroundings count
PLACE = 0.5  # bars' widths by which the place is moved, at most
STEPS = 17
FILE_BYTES = 1 << 20

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bars:
    """One element of three bars.

    Parameters
    ----------
    x_um, y_um
        Its middle, from the corner of the field of view at the first pixel.
    per_mm
        Line pairs (periods) per mm.
    angle_deg
        Direction in which the bars follow each other: 0 along x, 90 along y, the angle turning from x to y.
    label
        What it is called.
    """

    x_um: float
    y_um: float
    per_mm: float
    angle_deg: float = 0.0
    label: str = ""

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.x_um, self.y_um, self.per_mm, self.angle_deg))) or self.per_mm <= 0:
            raise DataError(f"bars {self.label or ''}: place, angle and line pairs per mm must be finite, the last > 0")

    @property
    def width_um(self) -> float:
        """Of one bar: half a period."""
        return 500.0 / self.per_mm


@dataclass(frozen=True, eq=False)
class BarContrast:
    """What :func:`bar_contrast` found.

    ``contrast``: see the module; ``moved_um``: how far along ``bars.angle_deg`` the element lies from where it was
    said to be. ``across_um`` and ``profile`` [sample]: the mean along the bars, against the distance from the middle.
    """

    bars: Bars
    contrast: float
    moved_um: float
    across_um: Floats
    profile: Floats


def usaf_per_mm(group: int, element: int) -> float:
    """Line pairs per mm of an element, 1 to 6, of a group of the USAF 1951 target: 2^(group + (element − 1) / 6)."""
    if not 1 <= element <= 6 or not -4 <= group <= 14:
        raise DataError(f"USAF group {group}, element {element}: elements are 1 to 6, groups −4 to 14")
    return float(2 ** (group + (element - 1) / 6))


def bar_contrast(image: ArrayLike, pixel_um: tuple[float, float], bars: Bars, *, phase: bool = False) -> BarContrast:
    """Contrast of ``bars`` in a real ``image`` [y, x] of pixels (y, x): an intensity, or with ``phase`` a phase in rad.

    Michelson's for an intensity, the difference in rad for a phase; never negative. Raises :class:`DataError` when the
    element does not lie in the image.
    """
    from scipy.ndimage import map_coordinates

    values, width = np.asarray(image, dtype=np.float64), bars.width_um
    c, s = math.cos(math.radians(bars.angle_deg)), math.sin(math.radians(bars.angle_deg))
    reach = (REACH + PLACE) * width
    u = np.linspace(-reach, reach, round(2 * reach / width * SAMPLES) + 1)
    length = LONG * 5 * width
    v = np.linspace(-length / 2, length / 2, max(5, 2 * math.ceil(length / min(pixel_um)) + 1))[:, None]
    # The middle of the first pixel is half a pixel from the corner.
    rows = (bars.y_um + u * s + v * c) / pixel_um[0] - 0.5
    columns = (bars.x_um + u * c - v * s) / pixel_um[1] - 0.5
    (h, w), inner = values.shape, np.abs(u) <= 2.5 * width
    inside = (rows >= -0.5) & (rows <= h - 0.5) & (columns >= -0.5) & (columns <= w - 0.5)
    if not inside[:, inner].all():
        raise DataError(f"bars {bars.label or f'of {bars.per_mm:.4g} per mm'}: they reach out of the image")
    profile = map_coordinates(values, [rows, columns], order=3, mode="nearest").mean(axis=0)
    moves = np.linspace(-PLACE, PLACE, STEPS) * width
    # By all of their width: edges that are too sharp or too soft then pull to neither side.
    move = float(max(moves, key=lambda move: abs(np.subtract(*_means(u - move, profile, width, 3, 1.0)))))
    bar, gap = _means(u - move, profile, width, 1, FLAT)
    contrast = abs(bar - gap) / (1.0 if phase else max(bar + gap, 1e-300))
    shown = np.abs(u - move) <= REACH * width + 1e-9
    return BarContrast(bars, float(contrast), move, (u - move)[shown], profile[shown])


def field_contrast(
    field: NDArray[np.complexfloating[Any, Any]], pixel_um: tuple[float, float], bars: Bars, *, phase: bool = False
) -> BarContrast:
    """:func:`bar_contrast` of a complex ``field`` [y, x]: of |field|², or of its phase relative to the mean around."""
    if not phase:
        return bar_contrast(np.square(np.abs(field)), pixel_um, bars)
    half = 4 * bars.width_um
    (top, bottom), (left, right) = (
        (max(round((at - half) / pixel), 0), max(round((at + half) / pixel), 1))
        for at, pixel in zip((bars.y_um, bars.x_um), pixel_um, strict=True)
    )
    around = field[top:bottom, left:right]
    piston = np.angle(around.mean()) if around.size else 0.0
    return bar_contrast(np.angle(field * np.exp(-1j * piston)), pixel_um, bars, phase=True)


def _means(u: Floats, profile: Floats, width: float, last: int, share: float) -> tuple[float, float]:
    """Means of a profile over the middle ``share`` of the three bars, and of the gaps up to the ``last``."""
    nearest = np.rint(u / width)  # even: a bar; odd: a gap
    flat, odd = np.abs(u / width - nearest) <= share / 2, nearest % 2 == 1
    bars, gaps = flat & ~odd & (np.abs(nearest) <= 2), flat & odd & (np.abs(nearest) <= last)
    return float(profile[bars].mean()), float(profile[gaps].mean())


def from_file(path: str | Path) -> list[Bars]:
    """Elements from a CSV with a line of column names, or a JSON list of objects with the same names.

    ``x_um, y_um`` and either ``group, element`` (USAF 1951) or ``per_mm`` (line pairs) or ``pitch_um``, and where known
    ``angle_deg`` and ``label``. Raises :class:`DataError`.
    """
    path = Path(path)
    try:
        if path.stat().st_size > FILE_BYTES:
            raise DataError(f"{path}: too large for a list of bars")
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            rows: Any = json.loads(text)
        else:
            rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as a list of bars ({printable(str(error))})") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, Mapping) for row in rows):
        raise DataError(
            f"{path}: holds no list of bars: columns x_um, y_um and group, element (or per_mm, or pitch_um)"
        )
    return [_bars(row, f"{path}: bars {number}") for number, row in enumerate(rows, 1)]


def _bars(row: Mapping[str, Any], what: str) -> Bars:
    given = {str(name).strip(): value for name, value in row.items() if value not in (None, "") and name}

    def number(name: str) -> float:
        try:
            return float(given[name])
        except (TypeError, ValueError):
            raise DataError(f"{what}: {name} {printable(given[name], 40)!r} is no number") from None

    missing = [name for name in ("x_um", "y_um") if name not in given]
    if missing:
        raise DataError(f"{what}: {' and '.join(missing)} missing")
    label = str(given.get("label", ""))
    if "group" in given and "element" in given:
        group, element = number("group"), number("element")
        if group % 1 or element % 1:
            raise DataError(f"{what}: group and element are whole numbers")
        per_mm, label = usaf_per_mm(int(group), int(element)), label or f"{group:.0f}.{element:.0f}"
    elif "per_mm" in given or "pitch_um" in given:
        per_mm = number("per_mm") if "per_mm" in given else 1000 / (number("pitch_um") or math.inf)
    else:
        raise DataError(f"{what}: says no group and element, nor per_mm, nor pitch_um")
    angle = number("angle_deg") if "angle_deg" in given else 0.0
    return Bars(number("x_um"), number("y_um"), per_mm, angle, printable(label, 40))
