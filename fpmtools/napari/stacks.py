"""Planes that are made when they are looked at, behind what slices like an array."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fpmtools.optics import Box, Shape

CACHE_BYTES = 1 << 28  # of what was made and may be looked at again


class Stack:
    """An array [plane, ...] of which ``make(k)`` gives plane k, and keeps the last few.

    Parameters
    ----------
    count
        Number of planes.
    shape
        Of each of them.
    make
        Called once for a plane that is not kept any more; several threads may do so.
    dtype
        What the values are turned into.
    """

    def __init__(
        self, count: int, shape: tuple[int, ...], make: Callable[[int], NDArray[Any]], dtype: DTypeLike = np.float32
    ) -> None:
        self.shape = (count, *shape)
        self.dtype = np.dtype(dtype)
        self.plane = kept(make, math.prod(shape) * self.dtype.itemsize)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """What NumPy would give; only the planes that are asked for are made."""
        first, *rest = self._of_each_axis(index)
        if isinstance(first, slice):
            chosen = range(len(self))[first]
            if not chosen:
                return np.empty((0, *self.shape[1:]), self.dtype)[(slice(None), *rest)]
            return np.stack([self._part(k, rest) for k in chosen])
        if np.ndim(first):
            return np.asarray(np.asarray(self)[(first, *rest)])
        return np.asarray(self._part(range(len(self))[operator.index(first)], rest))

    def _of_each_axis(self, asked: Any) -> list[Any]:
        """What is asked for along each axis, with all of those that are not named."""
        index: list[Any] = list(asked) if isinstance(asked, tuple) else [asked]
        at = next((k for k, part in enumerate(index) if part is Ellipsis), len(index))
        index[at : at + 1] = [slice(None)] * (self.ndim - len(index) + (at < len(index)))
        return index

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """All planes."""
        if copy is False:
            raise ValueError("planes are made when they are asked for: there is always a copy")
        return np.asarray(self[:], dtype=dtype)

    def _part(self, k: int, rest: Sequence[Any]) -> NDArray[Any]:
        """A part of a plane."""
        return np.asarray(self._made(k)[tuple(rest)])

    def _made(self, k: int) -> NDArray[Any]:
        return np.asarray(self.plane(k), self.dtype)


class Tiles(Stack):
    """Planes [y, x] of which only the part is made that is looked at: ``cut(k, (y, x, height, width))``.

    A slice through several planes is another of these, of which again nothing is made: napari cuts out what the screen
    shows of all planes before it takes the one that it is at.
    """

    def __init__(self, count: int, shape: Shape, cut: Callable[[int, Box], NDArray[Any]]) -> None:
        super().__init__(count, shape, lambda k: cut(k, (0, 0, *shape)))
        self._cut = cut

    def __getitem__(self, index: Any) -> Any:
        """An array of one plane; of several, if they are sliced, what makes it when it is needed."""
        parts = self._of_each_axis(index)
        if not all(isinstance(part, slice) for part in parts):
            return super().__getitem__(index)
        planes, rows, columns = (range(n)[part] for n, part in zip(self.shape, parts, strict=True))

        def cut(k: int, box: Box) -> NDArray[Any]:
            y, x, height, width = box
            return self._part(planes[k], [_slice(rows[y : y + height]), _slice(columns[x : x + width])])

        return Tiles(len(planes), (len(rows), len(columns)), cut)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """All planes."""
        if copy is False:
            raise ValueError("planes are made when they are asked for: there is always a copy")
        every = [self._part(k, [slice(None)] * 2) for k in range(len(self))]
        return np.stack(every).astype(dtype or self.dtype, copy=False) if every else np.empty(self.shape, self.dtype)

    def _part(self, k: int, rest: Sequence[Any]) -> NDArray[Any]:
        chosen = [*rest, *[slice(None)] * (2 - len(rest))]
        if not all(isinstance(one, slice) for one in chosen):
            return super()._part(k, rest)
        rows, columns = (range(n)[one] for n, one in zip(self.shape[1:], chosen, strict=True))
        if not (rows and columns):
            return np.empty((len(rows), len(columns)), self.dtype)
        (top, bottom), (left, right) = (sorted((one[0], one[-1])) for one in (rows, columns))
        part = np.asarray(self._cut(k, (top, left, bottom - top + 1, right - left + 1)), self.dtype)
        return part[:: rows.step, :: columns.step]


def _slice(places: range) -> slice:
    """What takes these places."""
    return slice(places.start, None if places.stop < 0 else places.stop, places.step)


def kept(make: Callable[[int], NDArray[Any]], plane_bytes: int) -> Callable[[int], NDArray[Any]]:
    """``make``, of which the latest results stay: two, and as many as :data:`CACHE_BYTES` hold."""
    return functools.lru_cache(max(2, CACHE_BYTES // max(plane_bytes, 1)))(make)
