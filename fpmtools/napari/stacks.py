"""Planes that are made when they are looked at, behind what slices like an array."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

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
            return np.stack([self._made(k)[tuple(rest)] for k in chosen])
        if np.ndim(first):
            return np.asarray(np.asarray(self)[(first, *rest)])
        return np.asarray(self._made(range(len(self))[operator.index(first)])[tuple(rest)])

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """All planes."""
        if copy is False:
            raise ValueError("planes are made when they are asked for: there is always a copy")
        return np.asarray(self[:], dtype=dtype)

    def _made(self, k: int) -> NDArray[Any]:
        return np.asarray(self.plane(k), self.dtype)


def kept(make: Callable[[int], NDArray[Any]], plane_bytes: int) -> Callable[[int], NDArray[Any]]:
    """``make``, of which the latest results stay: two, and as many as :data:`CACHE_BYTES` hold."""
    return functools.lru_cache(max(2, CACHE_BYTES // max(plane_bytes, 1)))(make)
