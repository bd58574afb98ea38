"""Where a resolution target has its three-bar elements: found by templates of every width along two directions.

The target's edges tell how it is turned, up to a quarter turn. Templates of three bars and what surrounds them are
correlated with the image at every width (normalised cross-correlation, which brightness and contrast do not change);
each maximum is then refined in place, width and angle, and counts only where it looks like three bars indeed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fpmtools.metrics.targets import Bars

FINEST = 1.8  # pixels of a bar's width
RATIO = 2 ** (1 / 8)  # from one width to the next
MATCHED = 4.0  # pixels of a bar's width to which coarser ones are brought
GUARD = 0.6  # bars' widths around an element that must be free
LIKELY, SURE = 0.62, 0.8  # correlation of what is refined, and of what counts then
SAMPLES = 41  # along each axis of a refined element
MOST = 400  # maxima that are refined, the best
TILTED = math.radians(4)  # against all others: no element of a target is
FEWEST = 3  # elements of what is a target
STRAIGHT = math.radians(0.5)  # a turn that correlation does not mind
USAF_OFF, UNSURE_OFF = 0.02, 0.03  # of the frequency, by which most elements of a USAF target are off, and single ones

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Element:
    """In pixels: its middle and a bar's ``width``; ``angle`` in rad; ``soft``, width of its edges over the bars'.

    ``likeness``: correlation with three bars, negative where bars are dark.
    """

    x: float
    y: float
    width: float
    angle: float
    likeness: float
    soft: float = 0.2


def find_bars(image: ArrayLike, pixel_um: tuple[float, float]) -> list[Bars]:
    """Three-bar elements of a real ``image`` [y, x] of pixels (y, x): an amplitude, an intensity or a phase.

    Elements are in order of frequency, all with bars brighter than their surroundings or all darker. They bear their
    USAF 1951 names where their frequencies are those of that target, else numbers. None are returned where fewer than
    three are found: what looks like bars once or twice is no target.
    """
    from scipy.ndimage import spline_filter, zoom

    values, pitch = np.asarray(image, dtype=np.float64), min(pixel_um)
    if not np.isfinite(values).all() or not np.ptp(values):
        return []
    if pixel_um[0] != pixel_um[1]:
        values = zoom(values, [size / pitch for size in pixel_um], order=3, mode="nearest", grid_mode=True)
    turn = _turn(values)
    candidates = sorted(_candidates(values, turn), key=lambda one: -abs(one.likeness))[:MOST]
    spline = spline_filter(values, order=3, mode="nearest")
    refined = (_refined(spline, one) for one in candidates)
    sure = sorted((one for one in refined if abs(one.likeness) >= SURE), key=lambda one: -abs(one.likeness))
    bright = sum(one.likeness > 0 for one in sure) * 2 >= len(sure)
    kept: list[_Element] = []
    for one in sure:
        if (one.likeness > 0) == bright and not any(_overlap(one, other) for other in kept):
            kept.append(one)
    if len(kept) < FEWEST:
        return []
    return _named(sorted((_bars(one, pitch) for one in kept), key=lambda bars: bars.per_mm))


def _turn(image: Floats) -> float:
    """The angle in rad, within π/4 of 0, of the edges' slopes, up to quarter turns."""
    from scipy.ndimage import gaussian_filter

    slope = gaussian_filter(image, 1.0, order=(0, 1)) + 1j * gaussian_filter(image, 1.0, order=(1, 0))
    size = np.maximum(np.abs(slope), 1e-12 * np.abs(image).max())
    return float(np.angle((size**2 * (slope / size) ** 4).sum()) / 4)


def _candidates(image: Floats, turn: float) -> Iterator[_Element]:
    """Maxima of the correlation with templates of every width; ``turn`` in rad."""
    from scipy.ndimage import rotate
    from skimage.feature import match_template, peak_local_max
    from skimage.transform import rescale

    upright = rotate(image, math.degrees(turn), order=3, mode="nearest") if abs(turn) > STRAIGHT else image
    c, s = (math.cos(turn), math.sin(turn)) if upright is not image else (1.0, 0.0)
    (middle_y, middle_x), (centre_y, centre_x) = (((n - 1) / 2 for n in one.shape) for one in (image, upright))
    width = FINEST
    while (5 + 2 * GUARD) * width <= min(image.shape):
        factor = min(1.0, MATCHED / width)
        small = upright if factor == 1 else rescale(upright, factor, order=1, anti_aliasing=True)
        scale = small.shape[1] / upright.shape[1]
        template = _template(width * scale)
        for angle, one in ((0.0, template), (math.pi / 2, template.T)):
            likeness = match_template(small, one, pad_input=True)  # type: ignore[no-untyped-call]
            peaks = peak_local_max(np.abs(likeness), min_distance=2, threshold_abs=LIKELY)  # type: ignore[no-untyped-call]
            for row, column in peaks:
                dy, dx = (row + 0.5) / scale - 0.5 - centre_y, (column + 0.5) / scale - 0.5 - centre_x
                x, y = middle_x + c * dx - s * dy, middle_y + s * dx + c * dy
                yield _Element(x, y, width, angle + math.atan2(s, c), float(likeness[row, column]))
        width *= RATIO


def _template(width: float) -> Floats:
    """Bars of 1 that follow each other along x, on pixels of which a bar is ``width`` wide."""
    half = math.floor((2.5 + GUARD) * width)
    at = np.arange(-half, half + 1) / width
    return _model(at[None, :], at[:, None], 0.4 / width)


def _model(u: Floats, v: Floats, soft: float) -> Floats:
    """Three bars, each 1 wide along ``u`` and 5 long along ``v``, with edges of width ``soft``."""

    def box(at: Floats, length: float) -> Floats:
        return np.asarray(np.clip((length / 2 - np.abs(at)) / soft + 0.5, 0, 1))

    return np.asarray((box(u + 2, 1) + box(u, 1) + box(u - 2, 1)) * box(v, 5))


def _refined(spline: Floats, start: _Element) -> _Element:
    """The element in the place, of the width, at the angle and as soft as it is most like three bars.

    ``spline``: the image's coefficients.
    """
    from scipy.ndimage import map_coordinates
    from scipy.optimize import minimize

    side = (2.5 + GUARD) * np.linspace(-1, 1, SAMPLES)
    u, v = np.meshgrid(side, side)

    def at(numbers: Floats) -> _Element:
        dx, dy, log, turned, soft = numbers
        return replace(
            start, x=start.x + dx * start.width, y=start.y + dy * start.width, width=start.width * math.exp(log),
            angle=start.angle + turned, soft=float(np.clip(start.soft * math.exp(soft), 0.05, 1.5)),
        )  # fmt: skip

    def likeness(one: _Element) -> float:
        c, s = math.cos(one.angle), math.sin(one.angle)
        rows = one.y + one.width * (u * s + v * c)
        columns = one.x + one.width * (u * c - v * s)
        inside = (rows.min() >= -0.5, columns.min() >= -0.5, rows.max() < len(spline), columns.max() < len(spline.T))
        if not all(inside):
            return 0.0
        patch = map_coordinates(spline, [rows, columns], order=3, mode="nearest", prefilter=False)
        model = _model(u, v, one.soft)
        patch, model = patch - patch.mean(), model - model.mean()
        size = float(np.linalg.norm(patch) * np.linalg.norm(model))
        return float((patch * model).sum()) / size if size > 0 else 0.0

    def unlikeness(numbers: Floats) -> float:
        return -abs(likeness(at(numbers)))

    options: Any = {
        "initial_simplex": np.vstack([np.zeros(5), np.diag([0.3, 0.3, 0.04, 0.03, 0.5])]),
        "maxfev": 160, "xatol": 2e-3, "fatol": 1e-4,
    }  # fmt: skip
    best = at(minimize(unlikeness, np.zeros(5), method="Nelder-Mead", options=options).x)
    return replace(best, likeness=likeness(best) if abs(best.angle - start.angle) < TILTED else 0.0)


def _overlap(one: _Element, other: _Element) -> bool:
    """Whether the middle of one lies within the other."""
    return max(abs(one.x - other.x), abs(one.y - other.y)) < 2.5 * max(one.width, other.width)


def _bars(one: _Element, pitch: float) -> Bars:
    angle = math.degrees(one.angle) % 180
    per_mm = 500 / (one.width * pitch)
    return Bars((one.x + 0.5) * pitch, (one.y + 0.5) * pitch, per_mm, angle - 180 if angle > 135 else angle)


def _named(found: Sequence[Bars]) -> list[Bars]:
    """With the names of USAF elements, group.element, if most are such (~ where one is not quite), else numbers."""
    steps = [6 * math.log2(bars.per_mm) for bars in found]
    off = [abs(step - round(step)) * math.log(2) / 6 for step in steps]
    if float(np.median(off)) > USAF_OFF:
        return [replace(bars, label=str(number)) for number, bars in enumerate(found, 1)]
    names = [f"{round(step) // 6}.{round(step) % 6 + 1}" for step in steps]
    sure = ["" if error <= UNSURE_OFF else "~" for error in off]
    return [replace(bars, label=mark + name) for bars, mark, name in zip(found, sure, names, strict=True)]
