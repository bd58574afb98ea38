"""How noisy the images are: photons per unit and read noise, from what no light through the objective can make.

An image has no detail near the corner of the camera's band, for that lies beyond the objective's 2 NA/λ unless the
camera is badly under-sampled; sixth differences along both axes keep that corner alone. Their variance against the
local mean is a straight line where counts are linear in light: its slope is one over the photons per unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fpmtools.dataset import Dataset

DIFFERENCE = 6  # order along each axis
PATCH = 128  # pixels along each axis, in the middle of the image, are enough
BINS = 8  # of local brightness in an image
MEDIAN_OF_SQUARE = 0.4549  # of a normal variable of variance 1
CAPPED = 2.5  # standard deviations: beyond them a square counts as much as there, so that edges hardly count
MEAN_OF_CAPPED = 0.9776  # mean of min(x², CAPPED²) of a normal variable of variance 1
ONE_LAW = math.log(2.0)  # of variances: images that differ more from one line have their own photons per unit
STEPS, REFINED = 20, 8  # at most
CLOSE = 1e-6  # relative change that ends a refinement

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Noise:
    """The variance of a pixel of image i is value / ``photons_per_unit[i]`` + ``read_noise[i]``², in the images' units.

    Parameters
    ----------
    photons_per_unit
        [image], 1 / the images' unit; infinite where the variance does not grow with brightness.
    read_noise
        Standard deviation, [image], in the images' units.
    one_law
        Whether all images have the same two numbers; not where exposures of different length were brought to one scale.
    scatter
        Median over the images of |log(measured / law)| of the variance: how sure it is (0.1 is good, 1 bad).
    exponent, exponent_spread
        variance ∝ meanᵖ in the bright images: 1 for intensities with photon noise, 0 where read noise is all there is
        or for amplitudes, 1.5 for squared intensities; NaN where it cannot be told. The spread is over images.
    """

    photons_per_unit: Floats
    read_noise: Floats
    one_law: bool
    scatter: float
    exponent: float
    exponent_spread: float

    def variance(self, image: int, intensity: NDArray[np.floating]) -> Floats:
        """Of pixels with these expected intensities in one image, any shape."""
        photons = np.maximum(intensity, 0) / self.photons_per_unit[image]
        return np.asarray(photons + self.read_noise[image] ** 2, dtype=np.float64)


def measure(dataset: Dataset) -> Noise:
    """Noise of all images of a data set, ``dataset.images`` as they are."""
    (h, w), sides = dataset.image_shape, [min(n, PATCH) for n in dataset.image_shape]
    middle = dataset.images.crop((h - sides[0]) // 2, (w - sides[1]) // 2, sides[0], sides[1])
    measured = [variances(image) for image in middle]
    means, values = (np.array(part) for part in zip(*measured, strict=True))  # [image, bin]
    photons, read = _law(means, values)
    off = np.log(np.maximum(values.mean(axis=1), 1e-300) / _line(means.mean(axis=1), photons, read))
    one = bool(np.ptp(np.quantile(off, [0.1, 0.9])) < 2 * ONE_LAW)
    count = dataset.n_images
    if one:
        every, reads = np.full(count, photons), np.full(count, read)
    else:
        own = [_law(m[None], v[None]) for m, v in zip(means, values, strict=True)]
        every, reads = np.array([p for p, _ in own]), np.array([r for _, r in own])
        off = np.log(
            np.maximum(values.mean(axis=1), 1e-300)
            / np.array([_line(m, p, r) for m, (p, r) in zip(means.mean(axis=1), own, strict=True)])
        )
    bright = means.mean(axis=1) > 0.4 * np.quantile(means.mean(axis=1), 0.98)
    slopes = _slopes(means[bright], values[bright])
    exponent, spread = (float(np.median(slopes)), float(slopes.std())) if len(slopes) else (math.nan, math.inf)
    return Noise(every, reads, one, float(np.median(np.abs(off))), exponent, spread)


def variances(image: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """(local mean, variance of the noise) of an image [y, x] in ``BINS`` bins of its pixels by brightness."""
    values = np.asarray(image, dtype=np.float64)
    order = min(DIFFERENCE, (min(values.shape) - 1) // 2)
    rows, columns = (np.diff(np.eye(n), order, axis=0) for n in values.shape)
    total = float(np.square(rows[0]).sum())
    noise = np.square(rows @ values @ columns.T).ravel() / total**2
    # A pixel counts in the local mean as its variance counts in that of the difference.
    local = (np.square(rows) @ values @ np.square(columns).T).ravel() / total**2
    ranked = np.argsort(local)
    means = [float(local[part].mean()) for part in np.array_split(ranked, BINS)]
    return np.array(means), np.array([_variance(noise[part]) for part in np.array_split(ranked, BINS)])


def _variance(squares: Floats) -> float:
    """Of a variable with these squares, most of which are noise; edges and hot pixels count little.

    A median would do for normal noise, but that of few photons has long tails.
    """
    found = float(np.median(squares)) / MEDIAN_OF_SQUARE
    for _ in range(REFINED):
        if found == 0:
            return float(squares.mean())
        before, found = found, float(np.minimum(squares, CAPPED**2 * found).mean()) / MEAN_OF_CAPPED
        if abs(found - before) < CLOSE * before:
            break
    return found


def _line(means: Floats, photons: float, read: float) -> Floats:
    return np.asarray(np.maximum(np.maximum(means, 0) / photons + read**2, 1e-300))


def _law(means: Floats, values: Floats) -> tuple[float, float]:
    """Photons per unit and read noise that fit variances [image, bin] with equal relative errors."""
    m, v = np.maximum(means.ravel(), 0), values.ravel()
    model = np.maximum(v, 1e-3 * max(float(v.mean()), 1e-300))
    slope = constant = 0.0
    for _ in range(STEPS):
        a = np.stack([m, np.ones_like(m)], axis=1) / model[:, None]
        slope, constant = (float(c) for c in np.linalg.lstsq(a, v / model, rcond=None)[0])
        if constant < 0:
            slope, constant = float((a[:, 0] * v / model).sum() / max((a[:, 0] ** 2).sum(), 1e-300)), 0.0
        if slope < 0:
            slope, constant = 0.0, float((v / model**2).sum() / (1 / model**2).sum())
        fit = slope * m + constant
        before, model = model, np.maximum(fit, 1e-6 * max(float(fit.max()), 1e-300))
        if np.abs(model / before - 1).max() < CLOSE:
            break
    return (1 / slope if slope > 0 else math.inf), math.sqrt(constant)


def _slopes(means: Floats, values: Floats) -> Floats:
    """d log variance / d log mean of each image [image, bin] whose brightness varies enough to tell."""
    out = []
    for m, v in zip(means, values, strict=True):
        if m.min() > 0 and v.min() > 0 and m.max() > 1.3 * m.min():
            out.append(float(np.polyfit(np.log(m), np.log(v), 1)[0]))
    return np.array(out)
