"""Whether the images are intensities, or amplitudes, or intensities squared once more."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fpmtools.calibrate.brightness import bright_images
from fpmtools.calibrate.exposure import Exposure, compare
from fpmtools.dataset import Dataset
from fpmtools.noise import Noise

POWERS = {"amplitude": 2.0, "intensity": 1.0, "squared": 0.5}  # what makes intensities of them
SLOPE_ERROR = 0.12  # of the slope of measured against predicted dark-field brightness, beside its spread
EXPOSURES = 1.5  # standard deviation of the logarithm of exposure ratios that people use, and of the prediction's error
PATCH = 192  # pixels along each axis, in the middle of the image, are enough
UNLIKELY, CLEARLY = -3.0, 2.5  # log likelihood of what is given, and what the better explanation must gain
POSSIBLE = -5.0  # log likelihood of the better explanation
AMPLITUDES = (-0.5, 0.4)  # exponents of the noise that amplitudes of photon-limited images have


@dataclass(frozen=True)
class Light:
    """``kind`` is a key of :data:`POWERS`, or "" where nothing tells; ``gain`` the log likelihood over "intensity".

    ``exposure`` is the dark field's against what bright field predicts, of the images as they are. ``by_noise`` where
    only the noise says so, which a camera's processing can feign.
    """

    kind: str
    gain: float
    exposure: Exposure | None
    by_noise: bool = False


def judge(dataset: Dataset, dark_level: float, noise: Noise | None) -> Light:
    """What the images of a data set, whose geometry is right, are."""
    h, w = dataset.image_shape
    part = dataset.crop((h - min(h, PATCH)) // 2, (w - min(w, PATCH)) // 2, min(h, PATCH), min(w, PATCH))
    images = part.intensities.astype(np.float64) - dark_level
    found = {name: _raised(part, images, power) for name, power in POWERS.items()}
    given = found["intensity"]
    if given is None:
        low, high = AMPLITUDES
        if noise is not None and low < noise.exponent < high and noise.exponent_spread < 0.4 and noise.scatter < 0.3:
            return Light("amplitude", 0.0, None, by_noise=True)
        return Light("", 0.0, None)
    likelihood = {name: _likelihood(exposure) for name, exposure in found.items() if exposure is not None}
    best = max(likelihood, key=lambda name: likelihood[name])
    gain = likelihood[best] - likelihood["intensity"]
    if best != "intensity" and likelihood["intensity"] < UNLIKELY and gain > CLEARLY and likelihood[best] > POSSIBLE:
        return Light(best, gain, given)
    return Light("intensity" if likelihood["intensity"] > UNLIKELY else "", gain, given)


def _raised(dataset: Dataset, images: NDArray[np.float64], power: float) -> Exposure | None:
    """Dark field against bright field of ``images`` raised to ``power``."""
    # Noise below zero stays there, or dark images would have light.
    raised = dataset.with_images(np.sign(images) * np.abs(images) ** power)
    bright, level = bright_images(raised.images.means)
    return compare(raised, bright, dataset.calibration.image_na, level)


def _likelihood(exposure: Exposure) -> float:
    off = 0.0 if math.isnan(exposure.slope) else (exposure.slope - 1) / math.hypot(SLOPE_ERROR, exposure.slope_spread)
    return -0.5 * (off**2 + (math.log(exposure.ratio) / EXPOSURES) ** 2)
