"""Real numbers that a format holds of a complex field: each of a part of a plane, as if all of it had been there.

A phase is relative to all of its plane, and an optical path is continued over all of it: both have a look at the plane
first, at a size that fits into memory, and take what they found to every part and every level of the pyramid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fpmtools import clear
from fpmtools.errors import OptionError, unknown
from fpmtools.formats.pyramid import Field, halved, levels
from fpmtools.optics import Shape
from fpmtools.reconstruction import nm_per_rad, without_piston
from fpmtools.unwrapping import unwrapped

LARGEST = 2048  # pixels of the longer side of what is unwrapped at once
AMPLITUDE = "amplitude of the transmitted field; the mean bright-field image has intensity 1"
PHASE = "phase in rad, -pi to pi, relative to the mean of its plane"
PATH = "optical path in nm, unwrapped phase times wavelength over 2 pi, without its ramp, 0 beside the sample"
INTENSITY = "intensity of the transmitted light; 1 is that of the mean bright-field image, or of the clear field"
CHANNELS = ("amplitude", "phase", "path", "intensity")


class Overview(NamedTuple):
    """A plane, small: ``total``, the sum of its pixels [...], and ``coarse`` [..., y, x], a level of its pyramid."""

    total: NDArray[np.complex128]
    coarse: Field
    level: int


class Whole:
    """What is known of a plane beyond a part of it; ``look`` is called when it is first needed."""

    def __init__(self, look: Callable[[], Overview]) -> None:
        self._look = look
        self._colours: dict[int, Whole] = {}

    @classmethod
    def of(cls, plane: Field) -> Whole:
        """Of a plane [..., y, x] that is there."""

        def look() -> Overview:
            coarse, level = plane, len(levels((plane.shape[-2], plane.shape[-1]), LARGEST)) - 1
            for _ in range(level):
                coarse = halved(coarse)
            return Overview(plane.sum(axis=(-2, -1), dtype=np.complex128), coarse, level)

        return cls(look)

    def colour(self, index: int) -> Whole:
        """Of one of several colours."""

        def look() -> Overview:
            return Overview(self._seen.total[index], self._seen.coarse[index], self._seen.level)

        return self._colours.setdefault(index, Whole(look))

    @property
    def seen(self) -> bool:
        """Whether it was needed."""
        return "_seen" in vars(self)

    @cached_property
    def _seen(self) -> Overview:
        return self._look()

    @cached_property
    def turn(self) -> np.complex64:
        """The factor that makes the sum of all pixels real and positive."""
        return np.complex64(np.exp(-1j * np.angle(self._seen.total)))

    @cached_property
    def _continued(self) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """The unwrapped phase of the small picture, and the plane through its clear field."""
        coarse = self._seen.coarse
        phase = unwrapped(np.angle(coarse).astype(np.float32))
        return phase, clear.plane(phase, clear.likeness(np.abs(coarse)))

    def level_phase(self, part: Field, corner: Shape, level: int) -> NDArray[np.float32]:
        """:func:`fpmtools.reconstruction.level_phase` of a ``part`` [y, x] of a level, from the pixel ``corner`` on.

        The whole turns are those of the small picture, there or between its pixels.
        """
        phase, plane = self._continued
        finer = 2.0 ** (level - self._seen.level)
        rows, columns = (
            np.clip((first + np.arange(n) + 0.5) * finer - 0.5, 0, most - 1)
            for first, n, most in zip(corner, part.shape, phase.shape, strict=True)
        )
        wrapped = np.angle(part)
        turns = np.round((_between(phase, rows, columns) - wrapped) / (2 * np.pi))
        at = (2 * places / max(n - 1, 1) - 1 for places, n in zip((rows, columns), phase.shape, strict=True))
        return np.asarray(wrapped + 2 * np.pi * turns - clear.height(plane, *at), dtype=np.float32)


def _between(values: NDArray[Any], rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """``values`` [y, x] at places within it, linear between its pixels."""
    found = values
    for axis, at in enumerate((rows, columns)):
        low = np.minimum(at.astype(int), max(values.shape[axis] - 2, 0))
        high = np.minimum(low + 1, values.shape[axis] - 1)
        share = (at - low)[:, None] if axis == 0 else at - low
        found = (1 - share) * found.take(low, axis) + share * found.take(high, axis)
    return found


@dataclass(frozen=True)
class Piece:
    """A part of a plane: ``field`` [y, x], or [colour, y, x], the pixels of ``level`` from ``corner`` (y, x) on."""

    field: Field
    whole: Whole
    corner: Shape = (0, 0)
    level: int = 0

    def colour(self, index: int) -> Piece:
        """Of one of several colours."""
        return replace(self, field=self.field[index], whole=self.whole.colour(index))


@dataclass(frozen=True)
class Channel:
    """One real number of each pixel; ``content`` says what it is, ``take(piece)`` makes float32 [y, x] of a part.

    ``wavelength_um`` of its light, where it is known; ``colour``: what it is to be shown in, as RRGGBB, where that is
    more than a choice.
    """

    name: str
    unit: str
    content: str
    take: Callable[[Piece], NDArray[np.float32]] = field(repr=False)
    wavelength_um: float | None = None
    colour: str | None = None

    @property
    def label(self) -> str:
        """The name with the unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def of(self, plane: Field) -> NDArray[np.float32]:
        """Of a whole plane."""
        return self.take(Piece(plane, Whole.of(plane)))


def channel(name: str, wavelength_um: float | None = None) -> Channel:
    """The channel of this name; :class:`OptionError` when there is none, or it needs a wavelength that is not known."""
    if name == "amplitude":
        return Channel(name, "", AMPLITUDE, lambda piece: _real(np.abs(piece.field)), wavelength_um)
    if name == "intensity":
        return Channel(name, "", INTENSITY, lambda piece: _real(np.abs(piece.field) ** 2), wavelength_um)
    if name == "phase":
        return Channel(name, "rad", PHASE, lambda piece: _real(np.angle(piece.field * piece.whole.turn)), wavelength_um)
    if name != "path":
        raise unknown("channel", name, CHANNELS)
    if wavelength_um is None:
        raise OptionError("channel path needs the wavelength, which this result does not tell: solve it again")
    nm = nm_per_rad(wavelength_um)

    def path(piece: Piece) -> NDArray[np.float32]:
        return piece.whole.level_phase(piece.field, piece.corner, piece.level) * nm

    return Channel(name, "nm", PATH, path, wavelength_um)


def of_colour(index: int, colour: str, base: Channel, shown: str) -> Channel:
    """A channel of one of several colours."""
    label = colour if base.name == "intensity" else f"{colour} {base.name}"
    shade = shown if base.name in ("intensity", "amplitude") else None
    return replace(base, name=label, take=lambda piece: base.take(piece.colour(index)), colour=shade)


def flat_phase(plane: Field) -> NDArray[np.float32]:
    """Phase of a field [y, x] in rad, float32 in (−π, π], relative to its mean (the angle of the summed field)."""
    return _real(np.angle(without_piston(plane)))


def _real(values: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(values, dtype=np.float32)
