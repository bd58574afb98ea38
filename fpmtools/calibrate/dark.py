"""What the camera adds and hides: dark level, saturation, pixels that stick out, images without light."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fpmtools.dataset import Dataset

BOX = 5  # pixels along each axis of a local mean
LOWEST = 2.0  # percent of the local means: the darkest places of an image
LEAST = 5  # dark-field images: with fewer no line through them is trusted
RESAMPLED = 60
PATCH = 256  # pixels along each axis, in the middle of the image, show whether there is any detail
BLOCK = 4  # pixels along each axis: noise is averaged in them, detail is not
STRUCTURE = 1.3  # variance of blocks, over that of noise alone

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Camera:
    """What the camera does to the images.

    Parameters
    ----------
    offset, offset_spread
        What every dark-field image has even in its darkest places, in the images' units, and how sure; NaN where there
        are too few dark-field images.
    offset_share
        The offset as a share of the mean of a typical dark-field image.
    saturated
        Share of saturated pixels, [image].
    top
        Their value, in the images' units.
    hot, dead
        How many pixels are so in every image; see :class:`fpmtools.pixels.BadPixels`.
    empty
        [image] bool: nothing in it but noise.
    """

    offset: float
    offset_spread: float
    offset_share: float
    saturated: Floats
    top: float
    hot: int
    dead: int
    empty: Bools


def examine(dataset: Dataset, bright: Bools) -> Camera:
    """The camera of a data set whose images [image] are ``bright`` field or dark field."""
    offset, spread, share = dark_level(dataset, bright)
    bad, size = dataset.images.bad, math.prod(dataset.image_shape)
    empty = np.array(
        [not lit and structure(image) < STRUCTURE for image, lit in zip(dataset.images, bright, strict=True)]
    )
    return Camera(offset, spread, share, bad.saturated / size, bad.top, int(bad.hot.sum()), int(bad.dead.sum()), empty)


def dark_level(dataset: Dataset, bright: Bools) -> tuple[float, float, float]:
    """What dark-field images have in their darkest places beyond what grows with their brightness.

    Returns the intercept of the line through (mean, darkest places) of the images, its standard deviation over
    resampled images, and its share of the mean of a typical dark-field image.
    """
    dark = np.flatnonzero(~bright)
    if len(dark) < LEAST:
        return math.nan, math.inf, 0.0
    means = dataset.images.means[dark]
    lowest = np.array([np.percentile(_blocks(dataset.images[i], BOX), LOWEST) for i in dark])
    rng = np.random.default_rng(0)
    offset = _intercept(means, lowest)
    again = [_intercept(means[k], lowest[k]) for k in rng.integers(0, len(dark), (RESAMPLED, len(dark)))]
    typical = float(np.median(means))
    return offset, float(np.std(again)), max(offset / typical, 0.0) if typical > 0 else 0.0


def structure(image: NDArray[np.floating]) -> float:
    """Variance of block means over what noise of the same variance within blocks would give; 1: nothing but noise."""
    h, w = (min(n, PATCH) // BLOCK * BLOCK for n in image.shape)
    y, x = ((n - m) // 2 for n, m in zip(image.shape, (h, w), strict=True))
    blocks = np.asarray(image[y : y + h, x : x + w], dtype=np.float64).reshape(h // BLOCK, BLOCK, w // BLOCK, BLOCK)
    means = blocks.mean(axis=(1, 3))
    # Slow changes of the illumination are not detail, nor are hot pixels: differences of neighbours, and medians.
    between = np.median(np.square(np.diff(means, axis=1))) / 0.4549 / 2
    within = np.median(blocks.var(axis=(1, 3), ddof=1))
    return float(between * BLOCK**2 / within) if within > 0 else (math.inf if between > 0 else 0.0)


def _blocks(image: NDArray[np.floating], size: int) -> Floats:
    h, w = (n // size * size for n in image.shape)
    return np.asarray(image[:h, :w].reshape(h // size, size, w // size, size).mean(axis=(1, 3), dtype=np.float64))


def _intercept(means: Floats, lowest: Floats) -> float:
    """The offset o in lowest = o + κ (mean − o), fitted with equal relative errors; never beyond the smallest."""
    weight = 1 / np.maximum(means, 1e-3 * max(float(means.max()), 1e-300))
    a = np.stack([np.ones_like(means), means], axis=1) * weight[:, None]
    constant, slope = (float(c) for c in np.linalg.lstsq(a, lowest * weight, rcond=None)[0])
    return min(constant / (1 - slope) if slope < 0.9 else constant, float(lowest.min()))
