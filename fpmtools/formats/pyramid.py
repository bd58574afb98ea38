"""A plane part by part, and the pictures of half its size, a quarter and so on, with none of them whole in memory."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fpmtools.optics import Box, Shape

Field = NDArray[np.complexfloating[Any, Any]]


class Part(NamedTuple):
    """Pixels of a level, 0 the plane itself: the first is (y, x), ``field`` is complex [..., y, x]."""

    level: int
    y: int
    x: int
    field: Field


def halved(plane: Field) -> NDArray[np.complex64]:
    """Every 2 × 2 pixels of a field [..., y, x] as one, their mean; an odd last row or column counts twice."""
    rows, columns = (n % 2 for n in plane.shape[-2:])
    even = np.pad(plane, (*[(0, 0)] * (plane.ndim - 2), (0, rows), (0, columns)), mode="edge")
    left, right = even[..., ::2], even[..., 1::2]
    four = (left[..., ::2, :] + left[..., 1::2, :] + right[..., ::2, :] + right[..., 1::2, :]) / np.float32(4)
    return np.asarray(four, dtype=np.complex64)


def levels(shape: Shape, smallest: int) -> list[Shape]:
    """The shapes of a pyramid by :func:`halved`, down to the first whose longer side is at most ``smallest``."""
    found = [shape]
    while max(found[-1]) > smallest:
        found.append((-(-found[-1][0] // 2), -(-found[-1][1] // 2)))
    return found


def parts(read: Callable[[Box], Field], shapes: Sequence[Shape], block: Shape) -> Generator[Part]:
    """All parts of all levels, each once, what lies finer before what is made of it.

    ``read(box)`` gives pixels of the plane, and is asked for ``block`` (y, x; even) of them at a time, fewer at the
    ends; from then on parts are as large on every level. No more than one part of each level is kept.
    """
    top = len(shapes) - 1
    for y in range(0, shapes[top][0], block[0]):
        for x in range(0, shapes[top][1], block[1]):
            yield from _above(read, shapes, block, (top, y, x))


def _above(
    read: Callable[[Box], Field], shapes: Sequence[Shape], block: Shape, at: tuple[int, int, int]
) -> Generator[Part, None, Field]:
    """Gives the part at (level, y, x) after those that it is made of, and returns it."""
    level, y, x = at
    height, width = (min(side, n - first) for side, n, first in zip(block, shapes[level], (y, x), strict=True))
    if level == 0:
        field = read((y, x, height, width))
    else:
        made: Field | None = None
        for finer_y in range(2 * y, min(2 * (y + height), shapes[level - 1][0]), block[0]):
            for finer_x in range(2 * x, min(2 * (x + width), shapes[level - 1][1]), block[1]):
                less = halved((yield from _above(read, shapes, block, (level - 1, finer_y, finer_x))))
                if made is None:
                    made = np.empty((*less.shape[:-2], height, width), np.complex64)
                top, left = finer_y // 2 - y, finer_x // 2 - x
                made[..., top : top + less.shape[-2], left : left + less.shape[-1]] = less
        assert made is not None
        field = made
    yield Part(level, y, x, field)
    return field
