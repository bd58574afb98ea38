"""Where the tiles of a field are: their size and overlap, by the optics unless told otherwise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fpmtools.errors import OptionError
from fpmtools.optics import Box, Optics, Shape, fast_length

LARGEST = 256  # camera pixels: aberrations change over more than that
SMALLEST = 16
LEAST_OVERLAP = 8  # by which two tiles can be joined
WORST_CURVATURE = 0.5  # rad, at a tile's corners, of what differs from LED to LED in the curvature of their light
REACH = 16.0  # lengths λ/2NA of the overlap: 8 from a border the error is that of the inside to 2 dB (docs/slides.md)
GUARD = 0.25  # share of an overlap on either side that only the other tile shows
PRIMES = (2, 3, 5, 7)


@dataclass(frozen=True)
class Tile:
    """A tile by its name, and its place in camera pixels: (y, x, height, width) from the field's corner."""

    name: str
    box: Box


@dataclass(frozen=True)
class Plan:
    """Tiles of one size that cover a ``frame`` (y, x) of camera pixels, in rows and columns.

    ``rows`` and ``columns`` are the first pixels of each. Neighbours share at least ``overlap`` pixels; what the frame
    leaves over is shared out among the overlaps.
    """

    frame: Shape
    size: Shape
    overlap: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @classmethod
    def of(cls, frame: Shape, size: int, overlap: int) -> Plan:
        """Tiles of ``size`` × ``size``, or of the frame's own size along an axis that is shorter.

        Raises :class:`OptionError` where they are too small, or overlap too much or too little.
        """
        if size < SMALLEST:
            raise OptionError(f"tiles of {size} pixels are too small: {SMALLEST} at least")
        if overlap >= size:
            raise OptionError(f"an overlap of {overlap} pixels needs tiles larger than that, not of {size}")
        if overlap < LEAST_OVERLAP:
            raise OptionError(f"tiles that share {overlap} pixels cannot be joined: {LEAST_OVERLAP} at least")
        height, width = (min(n, size) for n in frame)
        return cls(
            frame, (height, width), overlap, _starts(frame[0], height, overlap), _starts(frame[1], width, overlap)
        )

    @cached_property
    def tiles(self) -> tuple[Tile, ...]:
        """All tiles, row by row."""
        height, width = self.size
        return tuple(Tile(f"y{y:05d}-x{x:05d}", (y, x, height, width)) for y in self.rows for x in self.columns)

    @property
    def middle(self) -> Box:
        """A box of a tile's size in the middle of the frame, and no tile itself."""
        (h, w), (height, width) = self.frame, self.size
        return (h - height) // 2, (w - width) // 2, height, width

    def neighbours(self) -> list[tuple[int, int]]:
        """Pairs of tiles, by their numbers, that are side by side, or one below the other."""
        count = len(self.columns)
        beside = [(i, i + 1) for i in range(len(self.tiles)) if (i + 1) % count]
        return sorted(beside + [(i, i + count) for i in range(len(self.tiles) - count)])

    def windows(self, factor: int) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
        """What each row and each column of tiles counts at its own pixels, ``factor`` to a camera pixel.

        A tile's window is the product of its row's and its column's; over all tiles they add up to 1 where no more
        than two overlap along an axis.
        """
        return _windows(self.rows, self.size[0], factor), _windows(self.columns, self.size[1], factor)


def choose(
    frame: Shape,
    optics: Optics,
    na: NDArray[np.float64],
    z_um: Sequence[float],
    size: int | None = None,
    overlap: int | None = None,
    height_um: float | None = None,
) -> Plan:
    """The plan for a field of ``frame`` camera pixels.

    Parameters
    ----------
    na
        Direction sines of the LEDs, [led, (x, y)].
    z_um
        How far from focus the sample is: light spreads by that times the tangent of the objective's angle.
    size, overlap
        Camera pixels, where they are given; else about :func:`suggested_size`, such that tiles fill the frame, and
        :func:`suggested_overlap`, but a quarter of a tile at most.
    height_um
        From the LEDs to the sample, where it is known.
    """
    side = suggested_size(optics, na, height_um) if size is None else size
    shared = min(suggested_overlap(optics, z_um), max(side // 4, LEAST_OVERLAP)) if overlap is None else overlap
    if size is None:
        side = _evened(max(frame), max(side, 2 * shared), shared)
    return Plan.of(frame, side, shared)


def suggested_overlap(optics: Optics, z_um: Sequence[float]) -> int:
    """Camera pixels: sixteen resolved lengths λ/2NA, and what defocus moves the steepest light by that gets through.

    Of the light of LEDs further out only that gets through which the sample turns into the objective's angle.
    """
    tangent = optics.na / math.sqrt(max(optics.medium_index**2 - optics.na**2, 1e-2))
    reach = REACH * optics.wavelength_um / (2 * optics.na) + max(map(abs, z_um)) * tangent
    return min(max(LEAST_OVERLAP, 2 * math.ceil(reach / optics.pixel_um / 2)), LARGEST // 2)


def suggested_size(optics: Optics, na: NDArray[np.float64], height_um: float | None) -> int:
    """Camera pixels: so few that one set of angles does, as far as the height of the LEDs is known, and 256 at most.

    An LED's light is a plane wave times exp(ik|s|²/2h), with s from the tile's middle, which is the same for all; what
    is left of its curvature grows with the square of its sine, and may be half a radian in a tile's corners.
    """
    side = float(LARGEST)
    if height_um is not None:
        squared = max(float(np.square(na).sum(axis=1).max()), 1e-4)
        wavenumber = 2 * math.pi / optics.wavelength_um
        corner = math.sqrt(WORST_CURVATURE * 2 * height_um / (1.5 * wavenumber * squared))
        side = min(side, math.sqrt(2) * corner / optics.pixel_um)
    return fast_length_down(max(side, 2 * SMALLEST))


def fast_length_down(n: float) -> int:
    """The largest even number up to ``n`` with no prime factor beyond 7: fast to Fourier transform."""
    length = 2 * max(1, math.floor(n / 2))
    while length > 2:
        rest = length
        for factor in PRIMES:
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            break
        length -= 2
    return length


def _evened(frame: int, size: int, overlap: int) -> int:
    """The size near ``size`` at which whole tiles fill ``frame`` with this overlap; fast to transform."""
    count = max(1, round((frame - overlap) / (size - overlap)))
    return fast_length((frame + (count - 1) * overlap) / count)


def _starts(frame: int, size: int, overlap: int) -> tuple[int, ...]:
    """First pixels of as few tiles as cover ``frame``: the first at 0, the last at the end, evenly in between."""
    if size >= frame:
        return (0,)
    gaps = math.ceil((frame - size) / (size - overlap))
    return tuple(i * (frame - size) // gaps for i in range(gaps + 1))


def _windows(starts: Sequence[int], size: int, factor: int) -> list[NDArray[np.float64]]:
    """Windows [size · factor] that rise in the middle of what a tile shares with the one before, and fall likewise."""
    found, length = [], size * factor
    for i, start in enumerate(starts):
        window = np.ones(length)
        if i:
            rise = _rise((starts[i - 1] + size - start) * factor)
            window[: len(rise)] *= rise
        if i + 1 < len(starts):
            fall = _rise((start + size - starts[i + 1]) * factor)[::-1]
            window[length - len(fall) :] *= fall
        found.append(window)
    return found


def _rise(length: int) -> NDArray[np.float64]:
    """From 0 to 1 over ``length`` pixels, sin² in the middle; with what falls likewise it adds up to 1."""
    at = ((np.arange(length) + 0.5) / length - GUARD) / (1 - 2 * GUARD)
    return np.asarray(np.sin(np.pi / 2 * np.clip(at, 0, 1)) ** 2)
