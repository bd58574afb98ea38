"""From a camera's counts to light: the offset subtracted, nothing below zero, an image when it is asked for."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools import passes
from fpmtools.images import Images
from fpmtools.passes import Identity


@dataclass(frozen=True, eq=False)
class Light:
    """Intensities float32 [image, y, x] of ``counts``.

    ``squared``: the counts are amplitudes. ``dark``: what is subtracted, a number or an image [y, x]; what is negative
    then becomes 0. ``top``: counts from which on a pixel is saturated, and the one value that all of these get, by
    which they are known where the dark image is not the same everywhere.
    """

    counts: Images
    squared: bool = False
    dark: np.float32 | NDArray[np.float32] | None = None
    top: tuple[float, float] | None = None

    @property
    def changes(self) -> bool:
        """Whether it is more than the counts themselves."""
        return self.squared or self.dark is not None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(images, y, x)."""
        return self.counts.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Single precision."""
        return np.dtype(np.float32)

    @property
    def identity(self) -> Identity | None:
        """Names them and the state of the counts' files, where they are in files."""
        known, dark = self.counts.identity, None if self.dark is None else np.asarray(self.dark, np.float32).tobytes()
        made = self.squared, None if dark is None else hashlib.sha256(dark).hexdigest(), self.top
        return None if known is None else known.part(made)

    def __getitem__(self, key: tuple[int, slice, slice]) -> NDArray[np.float32]:
        """A part of one image: ``[image, y0:y1, x0:x1]``."""
        values = self._less_dark(*key)
        return values if self.dark is None else np.maximum(values, 0, out=values)

    def _less_dark(self, image: int, rows: slice, columns: slice) -> NDArray[np.float32]:
        (y, y_end, _), (x, x_end, _) = (
            part.indices(n) for part, n in zip((rows, columns), self.shape[1:], strict=True)
        )
        counts = self.counts.crop(y, x, y_end - y, x_end - x).stored_image(image)
        values = counts.astype(np.float32)
        if self.squared:
            np.square(values, out=values)
        if self.dark is not None:
            values -= self.dark if np.ndim(self.dark) == 0 else self.dark[y:y_end, x:x_end]  # type: ignore[index]
        if self.top is not None:
            values[counts == self.top[0]] = self.top[1]
        return values

    def with_top(self, top: float) -> Light:
        """Saturated pixels, whose counts are ``top``, with the largest value that one of them has."""
        return replace(self, top=(top, self._told(f"largest of {top}", lambda: self._largest(top))))

    def below(self) -> float:
        """Share of all pixels that are darker than the dark."""
        return self._told("below", self._below)

    def _told(self, name: str, find: Callable[[], float]) -> float:
        """A number that a pass tells, which is kept for large files."""
        return passes.kept(
            Images.of(self), name, find, lambda n: {"found": np.array([n])}, lambda arrays: float(arrays["found"][0])
        )

    def _largest(self, top: float) -> float:
        largest, every = -math.inf, slice(0, None)
        for i, counts in enumerate(self.counts.counts()):
            if (full := counts == top).any():
                largest = max(largest, float(self._less_dark(i, every, every)[full].max()))
        return largest

    def _below(self) -> float:
        every, count = slice(0, None), 0
        for i in range(len(self.counts)):
            count += int((self._less_dark(i, every, every) < 0).sum())
        return count / math.prod(self.shape)
