"""Where the LED board stands by how bright the images are: direct light is in or out, and the edge between is soft.

An LED's image is bright where its direction, moved by the board's shift, lies inside the objective's NA. Over the whole
board that tells the shift, the radius of the bright region (the objective's NA; or, the other way round, the height of
the board) and whether the images are in the order of the LEDs. A board that is turned by 180° looks the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fpmtools.dataset import Dataset

REACH = 0.8  # of the objective's NA: how far the board is looked for, along each axis
RADII = np.geomspace(0.5, 2.0, 21)  # of the objective's NA
STEPS = 25  # shifts along each axis
REFINED = 2  # times the grid is drawn again around the likely region
SOFT = 0.25  # samples of the image's spectrum: a quarter of the width over which light goes from 1 to 0
LEAST_SOFT = 0.02  # of the objective's NA, and at least: LEDs have a size, and stand a little beside their places
BRIGHT = 0.4  # of a bright-field image: what is brighter lets direct light in
TOLERANCE = 0.02  # variance of √brightness that says nothing: samples and exposures differ
FAR = 3.0  # of the objective's NA: dark images of LEDs farther out agree with any board
WEAK = (0.5, 0.5)  # standard deviation of shift (in NA) and log radius before anything is measured

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BoardFit:
    """What brightness says of the board.

    Parameters
    ----------
    shift_na
        The LEDs light from na + ``shift_na``, (x, y), with the radius that fits best.
    shift_spread_na
        Standard deviation of each: where several shifts explain the same, how far they differ.
    shift_alone_na
        The same where the radius is taken to be right.
    radius, radius_spread
        Where bright turns to dark, as a multiple of the objective's NA; above 1: the NA is larger than given, or the
        LEDs stand farther inside (the board is higher).
    bright
        [image] bool, True where direct light enters.
    level
        Intensity of a bright-field image, the dark level taken off.
    misfit, misfit_alone, misfit_nominal
        Σ (√brightness − model)²: with the best radius and shift, with the best shift, and with the positions as given.
        A LED on its wrong side counts about 1.
    informative
        Whether there are bright and dark images, without which there is no edge to see.
    """

    shift_na: tuple[float, float]
    shift_spread_na: tuple[float, float]
    shift_alone_na: tuple[float, float]
    radius: float
    radius_spread: float
    bright: Bools
    level: float
    misfit: float
    misfit_alone: float
    misfit_nominal: float
    informative: bool


@dataclass(frozen=True)
class BoardShift:
    """A shift (x, y) of the board, and Σ (√brightness − model)² with it."""

    shift_na: tuple[float, float]
    misfit: float


def fit_board(dataset: Dataset, *, dark_level: float = 0.0) -> BoardFit:
    """The board of a data set whose images are each lit by one LED; ``dark_level`` in the images' units."""
    optics, calibration = dataset.optics, dataset.calibration
    means = dataset.images.means - dark_level
    if calibration.patterns is not None:
        bright = calibration.bright_field(optics)
        return _unknown(bright, float(np.median(means[bright])) if bright.any() else 0.0)
    step = optics.wavelength_um / max(dataset.extent_um)
    return fit_positions(calibration.na, means, optics.na, SOFT * step)


def fit_positions(na: Floats, means: Floats, objective_na: float, softness_na: float) -> BoardFit:
    """The board from nominal direction sines ``na`` [led, (x, y)] and mean intensities [led] without dark level."""
    bright, level = bright_images(means)
    if bright.all() or not bright.any():
        return _unknown(bright, level)
    fit = _Fit(na / objective_na, _brightness(means, bright, level), max(softness_na / objective_na, LEAST_SOFT))
    shift, spread, radius, radius_spread, misfit = fit.best(RADII)
    alone, _, _, _, misfit_alone = fit.best(np.ones(1))
    return BoardFit(
        _pair(shift * objective_na),
        _pair(spread * objective_na),
        _pair(alone * objective_na),
        radius,
        radius_spread,
        bright,
        level,
        misfit,
        misfit_alone,
        fit.misfit(np.zeros(2), 1.0),
        True,
    )


def misfit_with(dataset: Dataset, images: NDArray[np.intp], radius: float, dark_level: float = 0.0) -> BoardShift:
    """The best shift with this ``radius``, where LED i has image ``images[i]``, and what it leaves unexplained."""
    optics = dataset.optics
    means = dataset.images.means[images] - dark_level
    bright, level = bright_images(means)
    softness = max(SOFT * optics.wavelength_um / max(dataset.extent_um) / optics.na, LEAST_SOFT)
    fit = _Fit(dataset.calibration.image_na / optics.na, _brightness(means, bright, level), softness)
    shift, _, _, _, misfit = fit.best(np.array([radius]), refined=1)
    return BoardShift(_pair(shift * optics.na), misfit)


def bright_images(means: Floats) -> tuple[Bools, float]:
    """Which images [image] have direct light, and how bright such an image is; from mean intensities alone."""
    ordered = np.sort(means)[::-1]
    level = float(ordered[min(2, len(ordered) // 20)])  # one image that is far brighter than all others is a fault
    if level <= 0:
        return np.zeros(len(means), bool), 0.0
    for _ in range(5):
        level = float(np.median(means[means > BRIGHT * level]))
    return np.asarray(means > BRIGHT * level), level


def rank_correlation(na: Floats, means: Floats) -> float:
    """Of brightness with |NA|: about −0.9 when images and LEDs belong together; 0 where either is all the same."""
    ranks = np.stack([_ranks(means), _ranks(np.linalg.norm(na, axis=1).round(9))])
    return float(np.asarray(np.corrcoef(ranks))[0, 1]) if np.ptp(ranks, axis=1).all() else 0.0


def orders(na: Floats) -> Iterator[tuple[str, NDArray[np.intp]]]:
    """Ways in which files get into another order than their LEDs': what happened, and which image each LED has, [led].

    ``images[index]`` are in the LEDs' order again.
    """
    count = len(na)
    forward = np.arange(count)
    yield "the files are in reverse order", forward[::-1]
    for places in (1, 2, 3):
        words = "one place" if places == 1 else f"{places} places"
        yield f"every file is {words} too late (the last ones come first)", np.roll(forward, -places)
        yield f"every file is {words} too early (the first ones come last)", np.roll(forward, places)
    for first in (0, 1):
        as_text = [int(name) - first for name in sorted(str(i + first) for i in range(count))]
        yield "the files are sorted as text (1, 10, 2)", np.argsort(as_text)
        yield "the LEDs are sorted as text (1, 10, 2)", np.array(as_text)
    for rows in sorted({round(count**0.5), *_rows(na)}):
        if rows > 1 and count % rows == 0 and count > rows:
            columns = count // rows
            yield "the files go column by column, the LEDs row by row", forward.reshape(columns, rows).T.ravel()
            snake = forward.reshape(rows, columns).copy()
            snake[1::2] = snake[1::2, ::-1]
            yield "every second row is backwards (a meander)", snake.ravel()


def _rows(na: Floats) -> list[int]:
    """Numbers of rows of a board that is read row by row, where it is."""
    turns = np.flatnonzero(np.abs(np.diff(na[:, 1])) > 1e-9)
    return [len(turns) + 1] if len(turns) and len(set(np.diff(turns))) <= 1 else []


def _unknown(bright: Bools, level: float) -> BoardFit:
    nowhere = (math.inf, math.inf)
    return BoardFit((0.0, 0.0), nowhere, (0.0, 0.0), 1.0, math.inf, bright, level, 0.0, 0.0, 0.0, False)


def _brightness(means: Floats, bright: Bools, level: float) -> Floats:
    """√ of the images' brightness between what a typical dark-field image (0) and a bright-field image (1) has."""
    root = np.sqrt(np.clip(means / level, 0, 1))
    floor = float(np.median(root[~bright]))
    return np.asarray(np.clip((root - floor) / (1 - floor), 0, 1))


class _Fit:
    """Brightness [led] against directions [led, (x, y)] in units of the objective's NA."""

    def __init__(self, na: Floats, brightness: Floats, softness: float) -> None:
        near = (np.linalg.norm(na, axis=1) < FAR) | (brightness > BRIGHT)
        self.na, self.brightness, self.softness = na[near], brightness[near], softness
        self.free = max(int((np.linalg.norm(self.na, axis=1) < 2).sum()) - 3, 1)

    def misfit(self, shift: Floats, radius: float) -> float:
        """Σ (brightness − model)²."""
        return float(self._misfits(shift[None, :], np.array([radius]))[0, 0])

    def _misfits(self, shifts: Floats, radii: Floats) -> Floats:
        """[radius, shift]; ``shifts`` are [shift, (x, y)]."""
        measured = self.brightness.astype(np.float32)[:, None]
        moved = self.na[:, None, :] + shifts
        distance = np.hypot(moved[..., 0], moved[..., 1]).astype(np.float32)
        out = []
        for radius in radii:
            model = np.clip((radius - distance) / np.float32(4 * self.softness) + np.float32(0.5), 0, 1)
            out.append(np.square(measured - model).sum(axis=0, dtype=np.float64))
        return np.stack(out)

    def best(self, radii: Floats, refined: int = REFINED) -> tuple[Floats, Floats, float, float, float]:
        """Shift, its spread, radius, its spread, and the misfit: means over all that explains nearly as well."""
        low, high = np.array([-REACH, -REACH]), np.array([REACH, REACH])
        free_radius, count = len(radii) > 1, STEPS
        for _ in range(1 + refined):
            x, y = (np.linspace(a, b, count) for a, b in zip(low, high, strict=True))
            shifts = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
            misfits = self._misfits(shifts, radii)
            weight = self._likelihood(misfits, shifts, radii)
            shift = np.einsum("rs,sx->x", weight, shifts)
            spread = np.sqrt(np.einsum("rs,sx->x", weight, np.square(shifts - shift)))
            log = np.log(radii)
            radius = float(weight.sum(axis=1) @ log)
            radius_spread = float(np.sqrt(weight.sum(axis=1) @ np.square(log - radius)))
            likely = weight > 1e-3 * weight.max()
            steps = np.array([x[1] - x[0], y[1] - y[0]])
            some = shifts[likely.any(axis=0)]
            low, high = some.min(axis=0) - steps, some.max(axis=0) + steps
            if free_radius:
                of = log[likely.any(axis=1)]
                gap = log[1] - log[0]
                radii = np.exp(np.linspace(of.min() - gap, of.max() + gap, 11))
            count = 17
        return shift, spread, math.exp(radius), radius_spread, float(misfits.min())

    def _likelihood(self, misfits: Floats, shifts: Floats, radii: Floats) -> Floats:
        variance = max(misfits.min() / self.free, TOLERANCE)
        prior = np.square(shifts / WEAK[0]).sum(axis=1) + np.square(np.log(radii) / WEAK[1])[:, None]
        exponent = -(misfits - misfits.min()) / (2 * variance) - prior / 2
        weight = np.exp(exponent - exponent.max())
        return np.asarray(weight / weight.sum())


def _pair(values: Floats) -> tuple[float, float]:
    return float(values[0]), float(values[1])


def _ranks(values: Floats) -> Floats:
    """Ranks, of equal values their mean."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[place])
