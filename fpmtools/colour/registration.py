"""Where one colour lies on another: lenses image each at a place and a size of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools.optics import Box, Shape
from fpmtools.sampling import continued

Floats = NDArray[np.float64]
Read = Callable[[Box], NDArray[Any]]  # a part of a field, [y, x]

ROUNDS = 3  # each finds what the one before has left
FINE = 100  # parts of a pixel
WINDOWS = 3  # that are compared, along each axis
LARGEST, SMALLEST = 512, 128  # pixels of a window
SMOOTH = 8  # parts of a window: what is wider says nothing of a place
DARKEST = 0.05  # amplitude: what is darker is as good as black
PAYS = 0.7  # of the error at windows left out, that a scale may leave at most
FEWEST = 5  # windows that a scale needs
TRUSTED = 0.3  # correlation, below which two colours show nothing in common
PAD = 16  # pixels around a part that its shift reads too


@dataclass(frozen=True)
class Placement:
    """What is at pixel r of the common grid is at m + (1 + scale) (r − m) + shift of the colour, m the field's middle.

    ``shift`` in pixels (y, x); ``correlation`` of the two colours there, from 0 to 1.
    """

    shift: tuple[float, float] = (0.0, 0.0)
    scale: float = 0.0
    correlation: float = 1.0

    def at(self, positions: Floats, axis: int, frame: Shape) -> Floats:
        """Where rows (axis 0) or columns (1) of the common grid are in the colour."""
        middle = (frame[axis] - 1) / 2
        return np.asarray(middle + (1 + self.scale) * (positions - middle) + self.shift[axis])

    @property
    def moves(self) -> bool:
        """Whether it changes anything."""
        return any(self.shift) or self.scale != 0


def register(reference: Read, moving: Read, frame: Shape) -> Placement:
    """Where ``moving`` lies on ``reference``; both give the parts of complex fields of ``frame`` pixels.

    Windows are compared by correlation, without what is smooth, to a hundredth of a pixel (Guizar-Sicairos et al., Opt.
    Lett. 33, 156, 2008), again after each has been moved, so that a window's own edge does not hold it back. Of the
    logarithm of the amplitude and the phase that is compared which both colours show more alike: a stain is another in
    each colour, and where it lies unevenly draws the amplitude aside; the optical path is the same in all. All windows
    have one shift, and one scale where this says better where windows lie that were left out. A correlation below
    :data:`TRUSTED` is none: nothing is moved then.
    """
    windows = _windows(frame)
    fixed = [reference(box) for box in windows]
    found = [_registered(of, fixed, moving, windows, frame) for of in (_darkness, _phase)]
    return max(found, key=lambda place: place.correlation)


def _registered(
    of: Callable[[NDArray[Any]], Floats], fixed: list[NDArray[Any]], moving: Read, windows: list[Box], frame: Shape
) -> Placement:
    """By what is seen ``of`` the fields."""
    seen, place = [_detail(of(field)) for field in fixed], Placement()
    middles = np.array([(y + (h - 1) / 2, x + (w - 1) / 2) for y, x, h, w in windows])
    middles -= (np.array(frame) - 1) / 2
    for _ in range(ROUNDS):
        offsets = [
            _offset(one, _detail(of(moved(moving, box, place, frame)))) for one, box in zip(seen, windows, strict=True)
        ]
        step, weight = np.array([offset for offset, _ in offsets]), np.array([like for _, like in offsets])
        best = float(np.average(weight, weights=weight)) if weight.any() else 0.0
        if best < TRUSTED:
            return Placement(correlation=best)
        shift, scale = _fit(middles, step, np.where(weight < TRUSTED, 0, weight**2))
        moved_by = (place.shift[0] + shift[0], place.shift[1] + shift[1])
        place = Placement(moved_by, place.scale + scale, best)
    return place


def moved(read: Read, box: Box, place: Placement, frame: Shape) -> NDArray[Any]:
    """The part of a field that lies in ``box`` of the common grid, [y, x] by trigonometric interpolation.

    Beyond the end of the ``frame`` the field is taken as mirrored there.
    """
    if not place.moves:
        return read(box)
    starts, sizes, wanted = [], [], []
    for axis in (0, 1):
        at = place.at(np.arange(box[axis], box[axis] + box[axis + 2], dtype=np.float64), axis, frame)
        low = min(max(math.floor(at[0]) - PAD, 0), max(frame[axis] - 2 * PAD, 0))
        high = min(max(math.ceil(at[-1]) + PAD + 1, low + 2 * PAD), frame[axis])
        starts.append(low)
        sizes.append(high - low)
        wanted.append(np.clip(at, -PAD, frame[axis] - 1 + PAD) - low + PAD)
    part = continued(read((starts[0], starts[1], sizes[0], sizes[1])), PAD)
    spectrum = np.fft.fft2(part, axes=(0, 1)) / part.size
    turns = [
        np.exp(2j * np.pi * at[:, None] * np.fft.fftfreq(n)).astype(np.complex64)
        for at, n in zip(wanted, part.shape, strict=True)
    ]
    found = turns[0] @ spectrum.astype(np.complex64) @ turns[1].T
    return np.asarray(found if np.iscomplexobj(part) else found.real.astype(part.dtype))


def _windows(frame: Shape) -> list[Box]:
    """Windows spread over the field; all of it where it is small."""
    axes = []
    for n in frame:
        side = n if n < 2 * SMALLEST else min(LARGEST, n // 2)
        axes.append([(round(k), side) for k in sorted({*np.linspace(0, n - side, WINDOWS if side < n else 1)})])
    return [(y, x, h, w) for y, h in axes[0] for x, w in axes[1]]


def _darkness(field: NDArray[Any]) -> Floats:
    return np.asarray(np.log(np.maximum(np.abs(field), DARKEST)), dtype=np.float64)


def _phase(field: NDArray[Any]) -> Floats:
    """Relative to what is smooth, so that no whole turns are between them."""
    from scipy.ndimage import gaussian_filter

    width = min(field.shape) / SMOOTH
    smooth = gaussian_filter(field.real, width) + 1j * gaussian_filter(field.imag, width)
    return np.asarray(np.angle(field * np.conj(smooth)), dtype=np.float64)


def _detail(values: Floats) -> Floats:
    """Without noise, and without what is smooth; falling off to the border."""
    from scipy.ndimage import gaussian_filter

    detail = gaussian_filter(values, 1.0) - gaussian_filter(values, min(values.shape) / SMOOTH)
    rows, columns = (np.hanning(n + 2)[1:-1] for n in values.shape)
    return np.asarray(detail * rows[:, None] * columns)


def _offset(fixed: Floats, other: Floats) -> tuple[tuple[float, float], float]:
    """By how many pixels (y, x) what ``fixed`` shows is further on in ``other``, and how alike they are there."""
    from skimage.registration import phase_cross_correlation

    if not (fixed.any() and other.any()):
        return (0.0, 0.0), 0.0
    shift, error, _ = phase_cross_correlation(fixed, other, upsample_factor=FINE, normalization=None)  # type: ignore[no-untyped-call]
    return (-float(shift[0]), -float(shift[1])), math.sqrt(max(0.0, 1.0 - float(error) ** 2))


def _fit(middles: Floats, steps: Floats, weight: Floats) -> tuple[tuple[float, float], float]:
    """One shift (y, x) for all windows, and a scale where it pays."""
    count = int((weight > 0).sum())
    flat, scaled = (_solved(middles, steps, weight, scale) for scale in (False, True))
    spread = float(np.ptp(middles, axis=0).max())
    if count >= FEWEST and spread > 0:
        without, with_it = (_left_out(middles, steps, weight, scale) for scale in (False, True))
        if with_it < PAYS * without and abs(scaled[2]) * spread / 2 > 2 / FINE:
            return (scaled[0], scaled[1]), scaled[2]
    return (flat[0], flat[1]), 0.0


def _solved(middles: Floats, steps: Floats, weight: Floats, scale: bool) -> Sequence[float]:
    """Shift y, shift x, scale by weighted least squares."""
    ones, zeros = np.ones(len(middles)), np.zeros(len(middles))
    rows = [np.stack([ones, zeros, middles[:, 0]], 1), np.stack([zeros, ones, middles[:, 1]], 1)]
    matrix, root = np.concatenate(rows), np.sqrt(np.tile(weight, 2))
    used = matrix if scale else matrix[:, :2]
    found = np.linalg.lstsq(used * root[:, None], steps.T.ravel() * root, rcond=None)[0]
    return [*map(float, found), *([] if scale else [0.0])]


def _left_out(middles: Floats, steps: Floats, weight: Floats, scale: bool) -> float:
    """Mean squared error at each window of a fit to the others."""
    errors = []
    for k in np.flatnonzero(weight):
        others = weight.copy()
        others[k] = 0
        y, x, s = _solved(middles, steps, others, scale)
        errors.append(float(np.sum((np.array([y, x]) + s * middles[k] - steps[k]) ** 2)))
    return float(np.mean(errors))
