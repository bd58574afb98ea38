"""Parts of a field at a resolution of choice: what the viewer asks of a source, and how a whole field gives it.

A large mosaic answers this itself; anything else is rendered whole, once per z, and kept as a pyramid for a while.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fpmtools.optics import Box as WholeBox
from fpmtools.optics import Shape
from fpmtools.reconstruction import Grid

TILE = 512  # pixels of a tile's side
KEPT_BYTES = 256 << 20


class Box(NamedTuple):
    """Pixels of a level: the first one (y, x), and how many."""

    y: int
    x: int
    height: int
    width: int


class Regions(Protocol):
    """Gives parts of a field. Level 0 is full size; each further one has half the pixels per axis, rounded up."""

    def region(self, z_um: float, box: Box, level: int) -> NDArray[np.complex64]:
        """The pixels ``box`` of ``level`` at ``z_um``, [y, x] complex64."""
        ...


@runtime_checkable
class InParts(Protocol):
    """A result that gives parts of itself, as a mosaic does: the box is in pixels of full size, whatever the level."""

    @property
    def grid(self) -> Grid:
        """Its pixels at full size."""
        ...

    def region(self, z_um: float | None, box: WholeBox, level: int = 0) -> NDArray[np.complex64]:
        """As :meth:`fpmtools.tiling.mosaic.Mosaic.region`."""
        ...


@dataclass(frozen=True)
class Parts:
    """The regions of a result that is read part by part; nothing else of it is."""

    result: InParts

    def region(self, z_um: float, box: Box, level: int) -> NDArray[np.complex64]:
        """As :class:`Regions` has it."""
        return self.result.region(z_um, full_size(self.result.grid.shape, box, level), level)


class Kept:
    """What was computed lately, by key, up to so many bytes; the newest stays however large it is."""

    def __init__(self, most_bytes: int = KEPT_BYTES) -> None:
        self._most, self._held, self._lock = most_bytes, OrderedDict[Hashable, NDArray[Any]](), threading.Lock()

    def get(self, key: Hashable, compute: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """The array under ``key``, computed if it is not there."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        array = compute()
        with self._lock:
            self._held[key] = array
            while len(self._held) > 1 and self.nbytes > self._most:
                self._held.popitem(last=False)
        return array

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""
        return sum(array.nbytes for array in self._held.values())


class Pyramid:
    """Levels of whole arrays [y, x], complex or real, that ``render(at)`` gives, kept in ``kept`` for a while."""

    def __init__(self, render: Callable[[float], NDArray[Any]], kept: Kept) -> None:
        self._render, self._kept = render, kept

    def region(self, z_um: float, box: Box, level: int) -> NDArray[Any]:
        """A part of a level; a view of what is kept."""
        return self._level(z_um, level)[box.y : box.y + box.height, box.x : box.x + box.width]

    def whole(self, z_um: float) -> NDArray[Any]:
        """All of level 0, as it is kept."""
        return self._level(z_um, 0)

    def _level(self, at: float, level: int) -> NDArray[Any]:
        def compute() -> NDArray[Any]:
            return halved(self._level(at, level - 1)) if level else self._render(at)

        return self._kept.get((id(self), at, level), compute)


def halved(values: NDArray[Any]) -> NDArray[Any]:
    """Means of 2 × 2 pixels of [y, x]; an odd last row or column counts twice."""
    h, w = values.shape
    even = np.pad(values, ((0, h % 2), (0, w % 2)), mode="edge")
    return np.asarray((even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4, values.dtype)


def full_size(shape: Shape, box: Box, level: int) -> WholeBox:
    """The pixels of a picture of ``shape`` that a ``box`` of a level of it shows."""
    y, x, height, width = (n << level for n in box)
    return y, x, min(height, shape[0] - y), min(width, shape[1] - x)


def level_shape(shape: Shape, level: int) -> Shape:
    """Size (y, x) of a level."""
    return -(-shape[0] // (1 << level)), -(-shape[1] // (1 << level))


def levels(shape: Shape, longest: int = TILE) -> int:
    """How many levels there are until one has no side longer than ``longest``."""
    count = 1
    while max(level_shape(shape, count - 1)) > longest:
        count += 1
    return count
