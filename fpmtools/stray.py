"""Stray light that differs over the field: a few smooth pictures that all images share, each at its own strength."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools.errors import DataError
from fpmtools.optics import Shape

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class StrayLight:
    """A background of low rank, Σ_r levels[image, r] · pictures[r](y, x), of intensities.

    Parameters
    ----------
    levels
        How much of each picture an image has, [image, r], in the images' own units, 0 or more.
    pictures
        [r, y, x], 0 or more: samples in the middle of equal cells, straight between them and level beyond the last.
    place
        (y, x, height, width) that the cells fill, in camera pixels from the corner of the field of view.
    """

    levels: Floats
    pictures: Floats
    place: tuple[float, float, float, float]

    def __post_init__(self) -> None:
        levels, pictures = self.levels, self.pictures
        if levels.ndim != 2 or pictures.ndim != 3 or levels.shape[1] != len(pictures) or not pictures.size:
            raise DataError(
                f"stray light: levels must be [image, r] and pictures [r, y, x], got {levels.shape} and "
                f"{pictures.shape}"
            )
        if any(not np.isfinite(part).all() or (part < 0).any() for part in (levels, pictures)):
            raise DataError("stray light: levels and pictures must be finite, 0 or more")
        if len(self.place) != 4 or not np.isfinite(self.place).all() or min(self.place[2:]) <= 0:
            raise DataError("stray light: its place must be (y, x, height, width) in camera pixels")

    def weights(self, y: Floats, x: Floats) -> tuple[Floats, Floats]:
        """What each cell counts at camera pixels y and x (0: the first one's middle), [y, cell] and [x, cell]."""
        axes = zip((y, x), self.place[:2], self.place[2:], self.pictures.shape[1:], strict=True)
        rows, columns = (cells(at - start, length, count) for at, start, length, count in axes)
        return rows, columns

    def at(self, y: Floats, x: Floats) -> Floats:
        """The pictures [r, y, x] at these camera pixels."""
        rows, columns = self.weights(y, x)
        return np.asarray(rows @ self.pictures @ columns.T)

    def of(self, image_shape: Shape) -> Floats:
        """The pictures [r, y, x] at all pixels of the camera."""
        height, width = image_shape
        return self.at(np.arange(height, dtype=np.float64), np.arange(width, dtype=np.float64))

    def means(self, image_shape: Shape) -> Floats:
        """What it adds to the mean of each image, [image]."""
        return np.asarray(self.levels @ self.of(image_shape).mean(axis=(1, 2)))

    def select(self, images: NDArray[np.intp]) -> StrayLight:
        """Of these images."""
        return replace(self, levels=self.levels[images])

    def seen_from(self, y: float, x: float) -> StrayLight:
        """The same, of a field of view whose corner is that camera pixel (y, x) of this one."""
        top, left, height, width = self.place
        return replace(self, place=(top - y, left - x, height, width))

    def dump(self) -> tuple[dict[str, NDArray[Any]], list[float]]:
        """Its arrays by name, and its place."""
        return {"levels": self.levels, "pictures": self.pictures}, [float(value) for value in self.place]


def cells(at: Floats, length: float, count: int) -> Floats:
    """What each of ``count`` equal cells counts at pixels ``at`` of a stretch of ``length`` pixels, [at, cell]."""
    place = np.clip((at + 0.5) * count / length - 0.5, 0, count - 1)
    return np.asarray(np.maximum(0, 1 - np.abs(place[:, None] - np.arange(count))))
