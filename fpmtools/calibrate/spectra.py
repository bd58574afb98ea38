"""What the spectra of bright-field images say: which way the board is turned, how far the LEDs and the pupil reach.

|FFT(I / mean − 1)|² of an image lit from k has two discs of the pupil's radius, around +k and −k (Eckert, Phillips,
Waller, Appl. Opt. 57, 5434, 2018). What the sample itself contributes is the same for all LEDs, so it goes with the
mean over the images; what is left says for each image in which places it has more light than the others, and a geometry
is as good as the discs that it predicts agree with that. An image and its conjugate have the same discs: a board that
is turned by 180° cannot be told from one that is not, nor a mirrored x from a mirrored y.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from fpmtools.dataset import Dataset

CELLS = 16  # of the spectrum from its centre to the camera's Nyquist frequency
MOST = 30  # images: more cost time and say little more
LEAST = 4  # images: with fewer there is nothing to compare
INNER = 1.5  # cells around the centre that slow changes of the illumination fill
FACTORS = np.geomspace(0.5, 2.0, 11)
# What happened to the positions: how they are put right. Each stands for its twin too, turned by 180°.
ORIENTATIONS = {
    "as given": np.eye(2),
    "mirrored": np.diag([-1.0, 1.0]),
    "x and y exchanged": np.array([[0.0, 1.0], [1.0, 0.0]]),
    "turned by 90°": np.array([[0.0, -1.0], [1.0, 0.0]]),
}

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Discs:
    """The geometry that the spectra agree with best.

    Parameters
    ----------
    orientation
        A key of :data:`ORIENTATIONS`.
    scores
        Its agreement and the others', correlations from −1 to 1, each with its own best radius and scale.
    margin
        By how many of its own standard deviations over the images the best orientation is better than the one given;
        0 where that is the best.
    strength
        The same of the best agreement against none at all: below about 3 the spectra say nothing.
    radius, radius_spread
        The pupil's radius NA · pixel / λ as a multiple of the given one, and its relative standard deviation.
    scale, scale_spread
        The same of the LEDs' distances from the axis, sin θ · pixel / λ.
    shift_na, shift_spread_na
        The LEDs light from na + ``shift_na``, (x, y), on the given axes.
    images
        How many bright-field images say so.
    """

    orientation: str
    scores: dict[str, float]
    margin: float
    strength: float
    radius: float
    radius_spread: float
    scale: float
    scale_spread: float
    shift_na: tuple[float, float]
    shift_spread_na: tuple[float, float]
    images: int


@dataclass(frozen=True, eq=False)
class Spectra:
    """Log power of the spectra of ``images`` [image] (indices) in cells, less its mean over the images, [image, cell].

    ``fx``, ``fy`` [cell] are frequencies in cycles per pixel, of one half plane; ``width`` is that of a cell.
    """

    images: NDArray[np.intp]
    power: NDArray[np.float32]
    fx: NDArray[np.float32]
    fy: NDArray[np.float32]
    width: float

    @classmethod
    def of(cls, dataset: Dataset, bright: NDArray[np.bool_], most: int = MOST) -> Spectra:
        """Of bright-field images, at most ``most`` of them."""
        chosen = np.flatnonzero(bright)
        chosen = chosen[np.unique(np.linspace(0, len(chosen) - 1, min(most, len(chosen))).round().astype(int))]
        h, w = dataset.image_shape
        width = 0.5 / min(CELLS, min(h, w) // 2)
        y, x = (np.arange(h) - h // 2) / h, (np.arange(w) - w // 2) / w
        row, column = (np.floor(f / width + 0.5).astype(int) for f in (y, x))
        columns = int(np.ptp(column)) + 1
        cell = ((row - row.min())[:, None] * columns + (column - column.min())).ravel()
        count = np.maximum(np.bincount(cell), 1)
        fy = np.bincount(cell, np.repeat(y, w)) / count
        fx = np.bincount(cell, np.tile(x, h)) / count
        half = (fy > width / 2) | ((fy > -width / 2) & (fx > 0))
        kept = half & (np.hypot(fy, fx) > INNER * width) & (np.maximum(np.abs(fy), np.abs(fx)) < 0.5 - width / 2)
        power = np.zeros((max(len(chosen), 1), int(kept.sum())))  # a mean of none would be a warning
        window = np.hanning(h + 2)[1:-1, None] * np.hanning(w + 2)[1:-1]
        for k, index in enumerate(chosen):
            power[k] = (np.bincount(cell, _log_power(dataset.images[index], window)) / count)[kept]
        single = np.float32  # enough for a correlation, and twice as fast
        return cls(
            chosen,
            (power - power.mean(axis=0))[: len(chosen)].astype(single),
            fx[kept].astype(single),
            fy[kept].astype(single),
            width,
        )

    def discs(self, k: Floats, radius: float) -> NDArray[np.float32]:
        """What discs around ±``k`` [image, (x, y)], all in cycles per pixel, predict, less the mean, [image, cell]."""
        x, y = (k[:, i : i + 1].astype(np.float32) for i in (0, 1))
        # The nearer of the two centres decides; their squared distances differ by 4 k · f.
        middle = np.square(self.fx) + np.square(self.fy) + (np.square(x) + np.square(y))
        distance = np.sqrt(np.maximum(middle - 2 * np.abs(x * self.fx + y * self.fy), 0))
        covered = np.clip((radius - distance) / self.width + 0.5, 0, 1)
        return np.asarray(covered - covered.mean(axis=0), dtype=np.float32)

    def products(self, k: Floats, radius: float) -> tuple[Floats, Floats]:
        """Of each image: power · discs and discs · discs, [image]."""
        discs = self.discs(k, radius)
        both = np.einsum("ic,ic->i", self.power, discs), np.einsum("ic,ic->i", discs, discs)
        return both[0].astype(np.float64), both[1].astype(np.float64)

    def agreement(self, k: Floats, radius: float) -> float:
        """Correlation of power and discs."""
        with_power, own = self.products(k, radius)
        return float(with_power.sum() / math.sqrt(max(own.sum() * self.total, 1e-300)))

    @property
    def total(self) -> float:
        """Σ power²."""
        return float(np.square(self.power).sum())


def find_discs(
    dataset: Dataset, spectra: Spectra, shift_na: tuple[float, float] = (0.0, 0.0), *, refine: bool = True
) -> Discs | None:
    """The geometry that the spectra agree with, beginning with the board's shift; None where there are too few images.

    Without ``refine`` radius, scale and shift are those of a coarse grid, and other orientations have radius and scale
    in proportion.
    """
    if len(spectra.images) < LEAST:
        return None
    fit = _Fit(spectra, dataset, np.array(shift_na))
    starts = {
        name: fit.search(turn, 0.6 if refine or name == "as given" else 0.01) for name, turn in ORIENTATIONS.items()
    }
    scores = {name: score for name, (score, _) in starts.items()}
    best = max(scores, key=lambda name: scores[name])
    found, spread = starts[best][1], np.full(4, math.inf)
    if refine:
        found = fit.refined(ORIENTATIONS[best], found)
        scores[best] = max(scores[best], fit.score(ORIENTATIONS[best], found))
        spread = fit.spread(ORIENTATIONS[best], found)
    given = fit.gains(ORIENTATIONS["as given"], starts["as given"][1])
    mine = fit.gains(ORIENTATIONS[best], found)
    na = dataset.optics.na
    return Discs(
        best,
        scores,
        0.0 if best == "as given" else z_score(mine - given),
        z_score(mine),
        math.exp(found[0]),
        float(spread[0]),
        math.exp(found[1]),
        float(spread[1]),
        (float(found[2]) * na, float(found[3]) * na),
        (float(spread[2]) * na, float(spread[3]) * na),
        len(spectra.images),
    )


def z_score(values: Floats) -> float:
    """The mean in units of its standard deviation."""
    deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return float(values.mean()) / max(deviation / math.sqrt(len(values)), 1e-12 + 1e-9 * abs(float(values.mean())))


class _Fit:
    """Geometries are (log radius, log scale, shift x, shift y), the shift in units of the objective's NA."""

    def __init__(self, spectra: Spectra, dataset: Dataset, shift_na: Floats) -> None:
        optics = dataset.optics
        self.spectra = spectra
        self.radius = optics.cutoff * optics.pixel_um
        self.positions = dataset.calibration.image_na[spectra.images] / optics.na
        self.start = shift_na / optics.na

    def place(self, turn: Floats, geometry: Floats) -> tuple[Floats, float]:
        """Centres [image, (x, y)] and radius of the discs in cycles per pixel."""
        moved = (self.positions + geometry[2:]) @ turn.T
        return moved * (self.radius * math.exp(geometry[1])), self.radius * math.exp(geometry[0])

    def score(self, turn: Floats, geometry: Floats) -> float:
        return self.spectra.agreement(*self.place(turn, geometry))

    def gains(self, turn: Floats, geometry: Floats) -> Floats:
        """By how much discs of the best height explain each image better than none, [image]."""
        with_power, own = self.spectra.products(*self.place(turn, geometry))
        height = with_power.sum() / max(own.sum(), 1e-300)
        return np.asarray(height * (with_power - height * own / 2))

    def search(self, turn: Floats, apart: float) -> tuple[float, Floats]:
        """The best of a grid of log radii and log scales at most this far ``apart``, with the shift and without."""
        logs = np.log(FACTORS)
        shifts = [self.start, np.zeros(2)] if self.start.any() else [self.start]
        best, where = -1.0, np.zeros(4)
        for shift in shifts:
            for radius in logs:
                for scale in logs[np.abs(logs - radius) < apart]:
                    geometry = np.array([radius, scale, *shift])
                    if (score := self.score(turn, geometry)) > best:
                        best, where = score, geometry
        return best, where

    def refined(self, turn: Floats, start: Floats) -> Floats:
        """The nearest best geometry."""
        from scipy.optimize import minimize

        simplex = np.vstack([start, start + np.diag([0.07, 0.07, 0.1, 0.1])])
        options = {"initial_simplex": simplex, "maxfev": 120, "xatol": 2e-3, "fatol": 1e-5}
        found = minimize(lambda g: -self.score(turn, g), start, method="Nelder-Mead", options=options)  # type: ignore[call-overload]
        return cast(Floats, found.x)

    def spread(self, turn: Floats, geometry: Floats) -> Floats:
        """Standard deviation of each, from how much the images disagree (the sandwich H⁻¹ Σ g gᵀ H⁻¹)."""
        steps = np.array([0.06, 0.06, 0.08, 0.08])
        moves = np.diag(steps)
        centre = self.gains(turn, geometry)
        forth = np.stack([self.gains(turn, geometry + move) for move in moves])
        back = np.stack([self.gains(turn, geometry - move) for move in moves])
        slopes = (forth - back) / (2 * steps[:, None])
        curvature = np.diag((forth + back - 2 * centre).sum(axis=1) / steps**2)
        for a in range(4):
            for b in range(a):
                both = self.gains(turn, geometry + moves[a] + moves[b]) - forth[a] - forth[b] + centre
                other = self.gains(turn, geometry - moves[a] - moves[b]) - back[a] - back[b] + centre
                curvature[a, b] = curvature[b, a] = (both + other).sum() / (2 * steps[a] * steps[b])
        values, vectors = np.linalg.eigh(-curvature)
        if values.min() <= 1e-6 * values.max():
            return np.full(4, math.inf)
        inverse = (vectors / values) @ vectors.T
        apart = slopes - slopes.mean(axis=1, keepdims=True)
        return np.asarray(np.sqrt(np.diag(inverse @ (apart @ apart.T) @ inverse)))


def _log_power(image: NDArray[np.floating], window: Floats) -> Floats:
    """log |FFT(I / mean − 1)|² under a window, centred and flat, [y · x]."""
    values = np.asarray(image, dtype=np.float64)
    mean = float(values.mean())
    spectrum = np.fft.fftshift(scipy.fft.fft2((values / mean - 1) * window, axes=(-2, -1)), axes=(-2, -1))
    power = np.square(np.abs(spectrum)).ravel()
    return np.log(power + 1e-12 * max(float(power.max()), 1e-300))
