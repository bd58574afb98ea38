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
        index = index if isinstance(index, tuple) else (index,)
        if any(part is Ellipsis for part in index):
            at = next(k for k, part in enumerate(index) if part is Ellipsis)
            missing = self.ndim - len(index) + 1
            index = (*index[:at], *[slice(None)] * missing, *index[at + 1 :])
        first, *rest = index or (slice(None),)
        if isinstance(first, slice):
            chosen = range(len(self))[first]
            if not chosen:
                return np.empty((0, *self.shape[1:]), self.dtype)[(slice(None), *rest)]
            return np.stack([self._part(k, rest) for k in chosen])
        if np.ndim(first):
            return np.asarray(np.asarray(self)[(first, *rest)])
        return np.asarray(self._part(range(len(self))[operator.index(first)], rest))

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
    """Planes [y, x] of which only the part is made that is looked at: ``cut(k, (y, x, height, width))``."""

    def __init__(self, count: int, shape: Shape, cut: Callable[[int, Box], NDArray[Any]]) -> None:
        super().__init__(count, shape, lambda k: cut(k, (0, 0, *shape)))
        self._cut = cut

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


def kept(make: Callable[[int], NDArray[Any]], plane_bytes: int) -> Callable[[int], NDArray[Any]]:
    """``make``, of which the latest results stay: two, and as many as :data:`CACHE_BYTES` hold."""
    return functools.lru_cache(max(2, CACHE_BYTES // max(plane_bytes, 1)))(make)
