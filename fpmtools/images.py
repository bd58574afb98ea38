"""Measured images as something that reads: any of them, any part, when it is asked for."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fpmtools import passes
from fpmtools.errors import DataError
from fpmtools.optics import Shape
from fpmtools.pixels import BadPixels, find


class Source(Protocol):
    """An array [image, y, x] that reads ``source[image, y0:y1, x0:x1]`` when it is asked to.

    One that reads files may say so by ``identity``, a :class:`fpmtools.passes.Identity`.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, key: tuple[int, slice, slice], /) -> NDArray[Any]: ...


@dataclass(frozen=True, eq=False)
class Values:
    """The ``means`` of images [image], the mean size of what is ``below`` zero, and the largest value of each.

    ``wrong``: why they are no intensities, in words; empty: they can be.
    """

    means: NDArray[np.float64]
    below: NDArray[np.float64]
    largest: NDArray[np.float64]
    wrong: str = ""

    @property
    def brightest(self) -> float:
        """The largest value of all."""
        return float(self.largest.max())

    def dump(self) -> dict[str, NDArray[Any]] | None:
        """As arrays."""
        return None if self.wrong else {"means": self.means, "below": self.below, "largest": self.largest}

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]]) -> Values:
        """From the arrays of :meth:`dump`."""
        return cls(arrays["means"], arrays["below"], arrays["largest"])


@dataclass(frozen=True, eq=False, repr=False)
class Images:
    """Intensities [image, y, x] in the order recorded, linear in light, non-negative up to noise.

    ``source`` is any array that slices like NumPy's, a memory map or a file's array too. A part (:meth:`crop`,
    :meth:`select`) shares it, and reads no more of it than it needs. What is read is floating-point: integers become
    float32, other numbers stay what they are.
    """

    source: Any
    chosen: NDArray[np.intp]
    corner: tuple[int, int]
    image_shape: Shape

    @classmethod
    def of(cls, source: Images | Source | ArrayLike, name: str = "data") -> Images:
        """All of ``source``; :class:`DataError` when it is not [image, y, x] or empty."""
        if isinstance(source, Images):
            return source
        array: Any = source if hasattr(source, "shape") else np.asarray(source)
        if len(array.shape) != 3 or 0 in array.shape:
            raise DataError(f"{name}: images must be [led, y, x] and not empty, got shape {tuple(array.shape)}")
        count, h, w = (int(n) for n in array.shape)
        return cls(array, np.arange(count), (0, 0), (h, w))

    def __len__(self) -> int:
        return len(self.chosen)

    def __repr__(self) -> str:
        count, h, w = self.shape
        return f"Images: {count} of {h} × {w} pixels, {np.dtype(self.source.dtype).name}"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(images, y, x)."""
        return len(self), *self.image_shape

    def __getitem__(self, index: int | np.integer[Any]) -> NDArray[Any]:
        """One image [y, x]."""
        values = self.stored_image(index)
        return values.astype(np.float32) if values.dtype.kind in "biu" else values

    def stored_image(self, index: int | np.integer[Any]) -> NDArray[Any]:
        """One image with the numbers of its source."""
        (y, x), (h, w) = self.corner, self.image_shape
        return np.asarray(self.source[int(self.chosen[index]), y : y + h, x : x + w])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the numbers as they are stored."""
        dtype: np.dtype[Any] = self.source.dtype
        return dtype

    @property
    def n_bytes(self) -> int:
        """What all of them take in float32."""
        return math.prod(self.shape) * 4

    def stored(self) -> NDArray[Any]:
        """All images with the numbers of their source, [image, y, x]: a camera's counts are integers."""
        found = np.empty(self.shape, self.dtype.newbyteorder("="))
        for i in range(len(self)):
            found[i] = self.stored_image(i)
        return found

    def counts(self) -> Iterator[NDArray[Any]]:
        """The same, one after the other."""
        return (self.stored_image(i) for i in range(len(self)))

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[i] for i in range(len(self)))

    def read(self, images: Sequence[int] | None = None) -> NDArray[Any]:
        """Some images, or all, [image, y, x]."""
        return np.stack([self[i] for i in (range(len(self)) if images is None else images)])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All images."""
        if copy is False:
            raise ValueError("images are read from their source: there is always a copy")
        return np.asarray(self.read(), dtype=dtype)

    def crop(self, y: int, x: int, height: int, width: int) -> Images:
        """The same images, of each the ``height`` × ``width`` pixels whose first is (y, x)."""
        corner = (self.corner[0] + y, self.corner[1] + x)
        return Images(self.source, self.chosen, corner, (height, width))

    def select(self, images: ArrayLike) -> Images:
        """Only the images with these indices, in the order given."""
        return Images(self.source, self.chosen[np.asarray(images, dtype=np.intp)], self.corner, self.image_shape)

    @property
    def identity(self) -> passes.Identity | None:
        """Names them and the state of their files; None where they are in memory."""
        known = passes.of_source(self.source)
        part = hashlib.sha256(self.chosen.astype(np.int64).tobytes()).hexdigest(), self.corner, self.image_shape
        return None if known is None else known.part(part)

    @cached_property
    def values(self) -> Values:
        """What is known of all their values, from one pass over them, which is kept for large files."""
        return passes.kept(self, "values", self._values, Values.dump, Values.restore)

    def _values(self) -> Values:
        count = len(self)
        means, below, largest = np.zeros(count), np.zeros(count), np.zeros(count)
        for i, image in enumerate(self.counts()):  # whole numbers, where they are: they need not become others
            if np.iscomplexobj(image):
                return Values(means, below, largest, f"image {i} is complex; intensities are real")
            high, low = float(image.max()), float(image.min())  # NaN where there is one
            if not (math.isfinite(high) and math.isfinite(low)):
                return Values(means, below, largest, f"image {i} has values that are not finite")
            largest[i] = high
            below[i] = -np.minimum(image, 0).mean(dtype=np.float64) if low < 0 else 0.0
            means[i] = np.mean(image, dtype=np.float64)
        return Values(means, below, largest)

    @cached_property
    def means(self) -> NDArray[np.float64]:
        """Mean intensity of each, [image]."""
        known = self.values if self.identity is not None else self.__dict__.get("values")
        if known is not None and not known.wrong:
            return np.asarray(known.means)
        return np.array([float(np.mean(image, dtype=np.float64)) for image in self])

    @property
    def largest(self) -> NDArray[np.float64]:
        """The largest value of each as it is read, [image]."""
        if self.values.wrong:
            return np.array([float(image.max()) for image in self])
        found = self.values.largest
        return found.astype(np.float32).astype(np.float64) if self.dtype.kind in "biu" else found

    @cached_property
    def bad(self) -> BadPixels:
        """Pixels that are saturated or stuck, by the values of all images together; kept for large files."""
        return passes.kept(
            self, "bad", lambda: find(self), BadPixels.dump, lambda arrays: BadPixels.restore(arrays, self.image_shape)
        )
