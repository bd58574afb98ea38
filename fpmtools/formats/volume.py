"""What a writer is given: a complex field at each z, read part by part, where it is, and channels of real numbers."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fpmtools.errors import OptionError, printable
from fpmtools.formats import pyramid
from fpmtools.formats.channels import LARGEST, Channel, Overview, Piece, Whole, channel, of_colour
from fpmtools.formats.once import Once
from fpmtools.optics import Box, Shape
from fpmtools.reconstruction import Reconstruction

Read = Callable[[float, Box], NDArray[np.complex64]]
ONE_COLOUR, SEVERAL_COLOURS = ("amplitude", "phase"), ("intensity",)  # channels, unless told otherwise
MOST = 4  # units along each side of what is written at once


def _ignored(z_um: float, share: float) -> None:
    """Nobody wants to know."""


class Region(NamedTuple):
    """A part of a level of the pyramid over one plane, as it is written.

    ``plane``: its number in ``z_um``; ``level``: 0 for the plane itself; its first pixel is (``y``, ``x``);
    ``values`` float32 [channel, y, x].
    """

    plane: int
    level: int
    y: int
    x: int
    values: NDArray[np.float32]


@dataclass(frozen=True)
class Volume:
    """A reconstruction as it is written: one complex plane [y, x] at each z, or several, [colour, y, x].

    Parameters
    ----------
    name
        What it is called, fit to be shown.
    shape, pixel_um
        Of each plane, (y, x).
    z_um
        Of the planes, ascending.
    part
        ``part(z_um, box)``: the pixels in a box (y, x, height, width) of the plane at a z in µm, complex64 [y, x], or
        [colour, y, x] of several colours; they may be another's own. Made when they are asked for, so ask once for
        each, and for all of a plane before the next one: see :func:`in_planes`.
    channels
        What a format of real numbers is to hold of it.
    wavelength_um
        Of the light; None where it is not known.
    about
        What else is known of it, JSON-ready.
    colours
        Names of several colours; () of one.
    picture
        Of several colours, what one sees at a z in µm: [y, x, (r, g, b)] float32 from 0 to 1, sRGB.
    tile
        The pixels (y, x) that are made at once; None where that is a whole plane.
    room
        A folder on a disk for the parts that are needed twice; without one they are made twice.
    tell
        Called with a z in µm and how much more of its plane is done, 1 in all, while :meth:`planes` or :meth:`regions`
        go on.
    """

    name: str
    shape: Shape
    pixel_um: tuple[float, float]
    z_um: tuple[float, ...]
    part: Read = field(repr=False)
    channels: tuple[Channel, ...] = ()
    wavelength_um: float | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    colours: tuple[str, ...] = ()
    picture: Callable[[float], NDArray[np.float32]] | None = field(default=None, repr=False)
    tile: Shape | None = None
    room: Path | None = field(default=None, repr=False)
    tell: Callable[[float, float], object] = field(default=_ignored, repr=False)

    @classmethod
    def of(
        cls,
        reconstruction: Reconstruction,
        z_um: Sequence[float],
        shape: Shape | None = None,
        channels: Sequence[str] | None = None,
        name: str = "reconstruction",
    ) -> Volume:
        """A reconstruction at ``z_um``, of ``shape`` (default: its own), with channels of these names.

        Default: amplitude and phase; of several colours the intensity of each. Raises :class:`OptionError` for a
        channel that is not known, or needs a wavelength that is not.
        """
        grid, parts = reconstruction.grid, reconstruction.components()
        size = grid.shape if shape is None else shape
        waves = {colour: part.metadata.get("wavelength_um") for colour, part in parts.items()}
        known = {colour: float(wave) if isinstance(wave, int | float) else None for colour, wave in waves.items()}
        if len(parts) > 1:
            return cls._of_colours(reconstruction, parts, known, (z_um, shape, size), channels, name)
        ((_, part),), (wavelength_um,) = parts.items(), known.values()
        return cls(
            name,
            size,
            (grid.extent_um[0] / size[0], grid.extent_um[1] / size[1]),
            tuple(float(z) for z in z_um),
            _read(part, shape),
            tuple(channel(name, wavelength_um) for name in channels or ONE_COLOUR),
            wavelength_um,
            {"intensity_scale": reconstruction.metadata.get("intensity_scale")},
            tile=_tile(part, shape),
        )

    @classmethod
    def _of_colours(
        cls,
        reconstruction: Any,
        parts: Mapping[str, Any],
        waves: Mapping[str, float | None],
        where: tuple[Sequence[float], Shape | None, Shape],
        channels: Sequence[str] | None,
        name: str,
    ) -> Volume:
        z_um, shape, size = where
        grid = reconstruction.grid
        reads = [(_read(one, shape), np.float32(one.white)) for one in parts.values()]

        def part(z: float, box: Box) -> NDArray[np.complex64]:
            return np.stack([read(z, box) / white for read, white in reads])

        found = [
            of_colour(k, colour, channel(kind, waves[colour]), shown)
            for k, (colour, shown) in enumerate(reconstruction.shown_in().items())
            for kind in channels or SEVERAL_COLOURS
        ]
        return cls(
            name, size, (grid.extent_um[0] / size[0], grid.extent_um[1] / size[1]), tuple(float(z) for z in z_um),
            part, tuple(found), None, {"wavelengths_um": dict(waves)}, tuple(parts),
            lambda z: reconstruction.colour(z, shape), _tile(next(iter(parts.values())), shape),
        )  # fmt: skip

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", printable(self.name))  # it may come from anywhere, and will be shown
        names = [channel.name for channel in self.channels]
        if len({*names}) < len(names):
            raise OptionError(f"channels {', '.join(names)}: each can be there once")

    def plane(self, z_um: float) -> NDArray[np.complex64]:
        """All of a plane, [y, x] or [colour, y, x]."""
        plane = self.part(z_um, (0, 0, *self.shape))
        self.tell(z_um, 1.0)
        return plane

    def planes(self) -> Iterator[NDArray[np.complex64]]:
        """The planes in the order of ``z_um``, one after the other."""
        return (self.plane(z) for z in self.z_um)

    def block(self, unit: int) -> Shape:
        """How many pixels (y, x) to write at once: about a tile, in whole ``unit`` × ``unit``."""
        height, width = self.tile or (2 * unit, 2 * unit)
        return unit * min(-(-height // unit), MOST), unit * min(-(-width // unit), MOST)

    def levels(self, smallest: int) -> list[Shape]:
        """The sizes (y, x) of a pyramid, each half of the one before, until no side is longer than ``smallest``."""
        return pyramid.levels(self.shape, smallest)

    def regions(self, smallest: int, block: Shape) -> Iterator[Region]:
        """All channels of all planes, ``block`` (y, x; even) pixels at a time, with the pyramid over each plane.

        Each level down to ``smallest`` is given region by region; a region comes after the finer ones that it is the
        mean of. So it takes a region of each level in memory, and not a plane, where the source gives parts. Phases and
        paths need a look at all of a plane first, whose parts wait in ``room`` until their turn comes.
        """
        for number, z in enumerate(self.z_um):
            with Once(partial(self.part, z), self._roomy()) as once:
                whole = Whole(partial(self._overview, z, once, block))
                for level, y, x, part in pyramid.parts(once, self.levels(smallest), block):
                    piece = Piece(part, whole, (y, x), level)
                    yield Region(number, level, y, x, np.stack([channel.take(piece) for channel in self.channels]))
                    if level == 0:
                        self.tell(z, self._share(part) / (2 if whole.seen else 1))

    def _roomy(self) -> Path | None:
        """``room``, where parts are worth keeping, and as much is left for the file itself, of which there is no more.

        A source of whole planes keeps its own.
        """
        if self.room is None or self.tile is None:
            return None
        pixels = math.prod(self.shape)
        kept, written = 8 * max(len(self.colours), 1) * pixels, 6 * len(self.channels) * len(self.z_um) * pixels
        return self.room if shutil.disk_usage(self.room).free > kept + written else None

    def _share(self, part: NDArray[Any]) -> float:
        """How much of a plane a part is."""
        return math.prod(part.shape[-2:]) / math.prod(self.shape)

    def _overview(self, z_um: float, once: Once, block: Shape) -> Overview:
        """A plane at a size that fits into memory, by a look at all of it."""
        shapes = self.levels(LARGEST)
        leading = (len(self.colours),) if self.colours else ()
        total, coarse = np.zeros(leading, np.complex128), np.zeros((*leading, *shapes[-1]), np.complex64)
        for level, y, x, part in pyramid.parts(once.keep, shapes, block):
            if level == 0:
                total = total + part.sum(axis=(-2, -1), dtype=np.complex128)
                self.tell(z_um, self._share(part) / 2)
            if level == len(shapes) - 1:
                coarse[..., y : y + part.shape[-2], x : x + part.shape[-1]] = part
        return Overview(total, coarse, len(shapes) - 1)

    @property
    def spacing_um(self) -> float | None:
        """The distance of neighbouring planes; None where it is not the same everywhere, or there is one plane only."""
        return even_spacing(self.z_um)

    @property
    def extent_um(self) -> tuple[float, float]:
        """The field of view (y, x)."""
        return self.shape[0] * self.pixel_um[0], self.shape[1] * self.pixel_um[1]


def in_planes(plane: Callable[[float], NDArray[np.complex64]]) -> Read:
    """The parts of planes that come whole, ``plane(z_um)`` [..., y, x]: one is kept until another is asked for."""
    kept: dict[float, NDArray[np.complex64]] = {}

    def part(z_um: float, box: Box) -> NDArray[np.complex64]:
        if z_um not in kept:
            kept.clear()
            kept[z_um] = plane(z_um)
        y, x, height, width = box
        return kept[z_um][..., y : y + height, x : x + width]

    return part


def _read(result: Reconstruction, shape: Shape | None) -> Read:
    """Parts of a result: its own, where it is made of parts and has this ``shape``; else those of planes."""
    return in_planes(lambda z: result.field(z, shape)) if _tile(result, shape) is None else result.part


def _tile(result: Reconstruction, shape: Shape | None) -> Shape | None:
    """What a result makes at once at ``shape``; None where that is all."""
    own = shape is None or tuple(shape) == tuple(result.grid.shape)
    return result.part_shape if own and result.part_shape != result.grid.shape else None


def even_spacing(z_um: Sequence[float]) -> float | None:
    """The distance of neighbouring planes; None where it is not the same everywhere, or there is one plane only."""
    steps = np.diff(np.asarray(z_um, dtype=np.float64))
    if not len(steps) or not np.allclose(steps, steps.mean(), rtol=1e-4, atol=0):
        return None
    return float(steps.mean())
