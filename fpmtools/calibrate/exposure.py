"""Whether bright and dark field are on one scale, and whether that scale is the light's.

The single disc of a bright-field spectrum holds the sample's spectrum, |O(f)|² in units of the direct light. Summed
over the place of a dark-field LED's pupil it is the brightness that its image should have: the quotient with what it
has is the exposure ratio. Over LEDs both grow together, in proportion where values are intensities; where these are
amplitudes the slope of the logarithms is about a half, of squared intensities about two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from fpmtools.calibrate.brightness import bright_images
from fpmtools.dataset import Dataset
from fpmtools.optics import frequency_axes

MOST = 24  # bright-field images
CORNER = 0.55  # cycles per pixel: the corners of the camera's band, where the objective passes nothing
COVERED = 0.5  # of a dark-field LED's pupil must have been seen in bright field
LEAST = 4  # dark-field images
FARTHEST = 1.9  # of the objective's NA

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Exposure:
    """How bright the inner dark field is against what the bright field predicts.

    Parameters
    ----------
    ratio, ratio_spread
        Measured / predicted, a geometric mean, and the standard deviation of its logarithm over the images.
    slope, slope_spread
        d log measured / d log predicted, and its standard deviation.
    images
        How many dark-field images say so.
    """

    ratio: float
    ratio_spread: float
    slope: float
    slope_spread: float
    images: int


def compare(dataset: Dataset, bright: Bools, na: Floats, level: float, dark_level: float = 0.0) -> Exposure | None:
    """Measured against predicted brightness of dark-field images, with LEDs at ``na`` [image, (x, y)].

    ``level`` and ``dark_level`` are in the images' units; None where the bright field says too little.
    """
    power, seen = sample_power(dataset, bright, na, dark_level)
    fy, fx = frequency_axes(dataset.image_shape, dataset.optics.pixel_um)
    measured, predicted = [], []
    distance = np.linalg.norm(na, axis=1) / dataset.optics.na
    for i in np.flatnonzero(~bright & (distance < FARTHEST)):
        k = na[i] / dataset.optics.wavelength_um
        disc = np.hypot(fx + k[0], fy[:, None] + k[1]) <= dataset.optics.cutoff
        light = float(dataset.images.means[i]) - dark_level
        found = float(power[disc].sum())
        if light > 0 and found > 0 and seen[disc].sum() >= COVERED * disc.sum():
            measured.append(light / level)
            predicted.append(found)
    if len(measured) < LEAST:
        return None
    return _summarise(np.log(measured), np.log(predicted))


def dark_field(dataset: Dataset, background: Floats) -> Exposure | None:
    """:func:`compare` of images that have ``background`` [image], in their own units, on top."""
    images = dataset.intensities.astype(np.float64) - background[:, None, None]
    clear = dataset.with_images(images)
    bright, level = bright_images(clear.images.means)
    return compare(clear, bright, dataset.calibration.image_na, level)


def sample_power(dataset: Dataset, bright: Bools, na: Floats, dark_level: float) -> tuple[Floats, Bools]:
    """|O(f)|² of the sample in units of the direct light, on the images' centred grid of −f, and where it was seen."""
    optics, (h, w) = dataset.optics, dataset.image_shape
    fy, fx = frequency_axes((h, w), optics.pixel_um)
    window = np.hanning(h + 2)[1:-1, None] * np.hanning(w + 2)[1:-1]
    total, count = np.zeros((h, w)), np.zeros((h, w))
    away = np.hypot(fx * w, fy[:, None] * h) > 1.5 * optics.pixel_um**-1
    corner = np.hypot(fx, fy[:, None]) * optics.pixel_um > CORNER
    chosen = np.flatnonzero(bright)
    for i in chosen[np.unique(np.linspace(0, len(chosen) - 1, min(MOST, len(chosen))).astype(int))]:
        values = np.asarray(dataset.images[i], dtype=np.float64) - dark_level
        spectrum = np.fft.fftshift(scipy.fft.fft2((values / values.mean() - 1) * window, axes=(-2, -1)), axes=(-2, -1))
        k = na[i] / optics.wavelength_um
        one = np.hypot(fx + k[0], fy[:, None] + k[1]) <= optics.cutoff
        other = np.hypot(fx - k[0], fy[:, None] - k[1]) <= optics.cutoff
        alone = one & ~other & away
        power = np.square(np.abs(spectrum))
        total[alone] += power[alone] - power[corner].mean()  # what is there is noise
        count[alone] += 1
    seen = count > 0
    return np.asarray(total / np.maximum(count, 1) / (np.square(window).sum() * h * w)), seen


def _summarise(measured: Floats, predicted: Floats) -> Exposure:
    n, quotient = len(measured), measured - predicted
    x, y = predicted - predicted.mean(), measured - measured.mean()
    sxx, syy, sxy = float(x @ x), float(y @ y), float(x @ y)
    if sxx <= 1e-12 or syy <= 1e-12 or sxy <= 0:
        slope, spread = math.nan, math.inf
    else:
        correlation = sxy / math.sqrt(sxx * syy)
        slope = math.sqrt(syy / sxx)  # both have errors
        spread = slope * math.sqrt(max(1 - correlation**2, 1e-6) / max(n - 2, 1)) / max(correlation, 1e-3)
    return Exposure(float(np.exp(quotient.mean())), float(quotient.std()), slope, spread, n)
