"""Pixels whose values say nothing of the light: at the end of the camera's range, stuck, or far off all neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

LEAST = 10  # pixels at the largest value: fewer are a chance
PLATEAU = 3.0  # times as many pixels at the largest value as at one just below it are none
FLAT = 1e-3  # of the largest value: images that vary by less have no end of a range to see
SPIKE = 8.0  # standard deviations above (below) all eight neighbours, which no light through the objective can make
LIGHT = 3e-3  # of the brightest image's mean: to stick out by less matters nowhere
MOST = 40  # images whose mean shows pixels that are always bright, or always dark
FEWEST = 5  # images: in fewer a value may repeat by chance

Bools = NDArray[np.bool_]


class Source(Protocol):
    """What looks like :class:`fpmtools.images.Images`."""

    @property
    def means(self) -> NDArray[np.float64]: ...

    @property
    def largest(self) -> NDArray[np.float64]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int | np.integer[Any], /) -> NDArray[Any]: ...

    def __iter__(self) -> Iterator[NDArray[Any]]: ...


@dataclass(frozen=True, eq=False)
class BadPixels:
    """Pixels of a stack of images that must not count.

    Parameters
    ----------
    top
        Value from which on a pixel is saturated, in the images' units; infinite where none is.
    saturated
        How many are, [image].
    hot, dead
        [y, x] bool, in all images: far brighter than all neighbours; far darker, or always the same.
    """

    top: float
    saturated: NDArray[np.int64]
    hot: Bools
    dead: Bools

    def __bool__(self) -> bool:
        return bool(self.saturated.any() or self.stuck.any())

    @property
    def stuck(self) -> Bools:
        """[y, x] bool: bad in every image."""
        return np.asarray(self.hot | self.dead)

    def of(self, image: NDArray[Any]) -> Bools:
        """Those of one image of the stack, [y, x] True where it must not count."""
        return np.asarray(self.stuck | (image >= self.top))

    def dump(self) -> dict[str, NDArray[Any]]:
        """As arrays."""
        stuck = {
            name: np.flatnonzero(where).astype(np.int64) for name, where in (("hot", self.hot), ("dead", self.dead))
        }
        return {"top": np.array([self.top]), "saturated": self.saturated, **stuck}

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]], shape: tuple[int, int]) -> BadPixels:
        """From the arrays of :meth:`dump`, and the shape of the images."""
        hot, dead = np.zeros(shape, bool), np.zeros(shape, bool)
        hot.flat[arrays["hot"]] = True
        dead.flat[arrays["dead"]] = True
        return cls(float(arrays["top"][0]), arrays["saturated"], hot, dead)

    def __str__(self) -> str:
        """How many there are, in words."""
        said = []
        if self.saturated.any():
            worst, count = self.saturated.max() / self.hot.size, int((self.saturated > 0).sum())
            of = f"{count} images" if count > 1 else f"image {int(self.saturated.argmax())}"
            most = f", up to {worst:.2%} of one" if count > 1 else f" ({worst:.2%} of it)"
            said.append(f"{int(self.saturated.sum())} saturated pixels of {of}{most}")
        if self.stuck.any():
            counts = {"hot": int(self.hot.sum()), "dead": int(self.dead.sum())}
            kinds = " and ".join(f"{count} {kind}" for kind, count in counts.items() if count)
            said.append(f"{kinds} pixel{'s' if sum(counts.values()) > 1 else ''} of every image")
        return " and ".join(said)


def find(images: Source) -> BadPixels:
    """The bad pixels of intensities [image, y, x]."""
    top, saturated = saturation(images)
    hot, dead = spikes(images)
    return BadPixels(top, saturated, hot, dead | _constant(images, top))


def saturation(images: Source) -> tuple[float, NDArray[np.int64]]:
    """The value of saturated pixels, and their number in each image: where far more have the largest than the next one.

    Infinite, and none, where values do not pile up.
    """
    tops = images.largest
    top = float(tops.max())
    reach = np.flatnonzero(tops == top)
    at = np.zeros(len(tops), np.int64)
    at[reach] = [int((images[i] == top).sum()) for i in reach]
    none = np.inf, np.zeros_like(at)
    if at.sum() < LEAST:
        return none
    below: dict[float, int] = {}
    lowest = top
    for i in reach:
        values, value = images[i], top
        lowest = min(lowest, float(values.min()))
        for _ in range(3):
            rest = values[values < value]
            if not rest.size:
                break
            value = float(rest.max())
            below[value] = below.get(value, 0) + int((rest == value).sum())
    varied = top - lowest > FLAT * abs(top)
    return (top, at) if varied and at.sum() >= PLATEAU * max(below.values(), default=0) else none


def spikes(images: Source) -> tuple[Bools, Bools]:
    """Pixels that stick out of all their neighbours, [y, x]: upwards in the darkest images, downwards in the brightest.

    A third of the images each, for what a bad pixel adds or swallows is little of the rest.
    """
    ranked, least = np.argsort(images.means, kind="stable"), LIGHT * float(images.means.max())
    third = max(1, len(ranked) // 3)
    return _spikes(_mean_of(images, ranked[:third]), least), _spikes(-_mean_of(images, ranked[-third:]), least)


def _mean_of(images: Source, chosen: NDArray[np.intp]) -> NDArray[np.float64]:
    chosen = chosen[np.unique(np.linspace(0, len(chosen) - 1, min(MOST, len(chosen))).astype(int))]
    chosen = np.sort(chosen)  # in the order in which they are stored, in which files are read fastest
    total = np.zeros(images[0].shape)
    for i in chosen:
        total += images[i]
    return total / len(chosen)


def _spikes(image: NDArray[np.float64], least: float) -> Bools:
    inner, found = image[1:-1, 1:-1], np.zeros(image.shape, bool)
    h, w = image.shape
    around = [image[y : h - 2 + y, x : w - 2 + x] for y in range(3) for x in range(3) if (y, x) != (1, 1)]
    mean = np.mean(around, axis=0)
    scale = np.median(np.abs(inner - mean)) * 1.4826
    if scale > 0:
        spread = np.mean([np.abs(side - mean) for side in around], axis=0)
        limit = np.maximum(SPIKE * np.maximum(scale, spread), least)
        found[1:-1, 1:-1] = inner - np.maximum.reduce(around) > limit
    return found


def _constant(images: Source, top: float) -> Bools:
    """Pixels [y, x] that have one value wherever they are not saturated, while those around them vary as others do."""
    low = high = np.minimum(images[0], top)
    for image in images:
        below = np.where(image < top, image, low) if top < np.inf else image
        low, high = np.minimum(low, below), np.maximum(high, below)
    span = high - low
    found = np.asarray(span == 0)
    if len(images) < FEWEST or not found.any() or found.all():
        return np.zeros_like(found)
    from scipy.ndimage import median_filter

    around = median_filter(span, size=5, mode="nearest")
    return np.asarray(found & (around > np.median(span) / 2))
