"""What a writer is given: complex planes, made one at a time, where they are, and channels of real numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools.errors import OptionError, printable, unknown
from fpmtools.optics import Shape
from fpmtools.reconstruction import Reconstruction, without_piston

Field = NDArray[np.complexfloating[Any, Any]]


@dataclass(frozen=True)
class Channel:
    """One real number of each pixel: ``of(field)`` makes float32 [y, x] of a plane; ``content`` says what it is."""

    name: str
    unit: str
    content: str
    of: Callable[[Field], NDArray[np.float32]] = field(repr=False)

    @property
    def label(self) -> str:
        """The name with the unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


@dataclass(frozen=True)
class Volume:
    """A reconstruction as it is written: one complex plane [y, x] at each z.

    Parameters
    ----------
    name
        What it is called, fit to be shown.
    shape, pixel_um
        Of each plane, (y, x).
    z_um
        Of the planes, ascending.
    plane
        The one at a z in µm, complex64 [y, x]: rendered when it is asked for, so ask once for each.
    channels
        What a format of real numbers is to hold of it.
    wavelength_um
        Of the light; None where it is not known.
    about
        What else is known of it, JSON-ready.
    """

    name: str
    shape: Shape
    pixel_um: tuple[float, float]
    z_um: tuple[float, ...]
    plane: Callable[[float], NDArray[np.complex64]] = field(repr=False)
    channels: tuple[Channel, ...] = ()
    wavelength_um: float | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        reconstruction: Reconstruction,
        z_um: Sequence[float],
        shape: Shape | None = None,
        channels: Sequence[str] = ("amplitude", "phase"),
        name: str = "reconstruction",
    ) -> Volume:
        """A reconstruction at ``z_um``, of ``shape`` (default: its own), with channels of these names.

        Raises :class:`OptionError` for a channel that is not known, or needs a wavelength that is not.
        """
        grid, known = reconstruction.grid, reconstruction.metadata.get("wavelength_um")
        size = grid.shape if shape is None else shape
        wavelength_um = float(known) if isinstance(known, int | float) else None
        return cls(
            name,
            size,
            (grid.extent_um[0] / size[0], grid.extent_um[1] / size[1]),
            tuple(float(z) for z in z_um),
            lambda z: reconstruction.field(z, shape),
            tuple(channel(name, wavelength_um) for name in channels),
            wavelength_um,
            {"intensity_scale": reconstruction.metadata.get("intensity_scale")},
        )

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", printable(self.name))  # it may come from anywhere, and will be shown
        names = [channel.name for channel in self.channels]
        if len({*names}) < len(names):
            raise OptionError(f"channels {', '.join(names)}: each can be there once")

    def planes(self) -> Iterator[NDArray[np.complex64]]:
        """The planes in the order of ``z_um``, one after the other."""
        return (self.plane(z) for z in self.z_um)

    @property
    def spacing_um(self) -> float | None:
        """The distance of neighbouring planes; None where it is not the same everywhere, or there is one plane only."""
        return even_spacing(self.z_um)

    @property
    def extent_um(self) -> tuple[float, float]:
        """The field of view (y, x)."""
        return self.shape[0] * self.pixel_um[0], self.shape[1] * self.pixel_um[1]


AMPLITUDE = "amplitude of the transmitted field; the mean bright-field image has intensity 1"
PHASE = "phase in rad, -pi to pi, relative to the mean of its plane"
PATH = "optical path in nm, phase times wavelength over 2 pi, not unwrapped, relative to the mean of its plane"
CHANNELS = ("amplitude", "phase", "path")


def channel(name: str, wavelength_um: float | None = None) -> Channel:
    """The channel of this name; :class:`OptionError` when there is none, or it needs a wavelength that is not known."""
    if name == "amplitude":
        return Channel(name, "", AMPLITUDE, lambda plane: np.abs(plane).astype(np.float32, copy=False))
    if name == "phase":
        return Channel(name, "rad", PHASE, flat_phase)
    if name != "path":
        raise unknown("channel", name, CHANNELS)
    if wavelength_um is None:
        raise OptionError("channel path needs the wavelength, which this result does not tell: solve it again")
    nm_per_rad = np.float32(1e3 * wavelength_um / (2 * math.pi))
    return Channel(name, "nm", PATH, lambda plane: flat_phase(plane) * nm_per_rad)


def flat_phase(plane: Field) -> NDArray[np.float32]:
    """Phase of a field [y, x] in rad, float32 in (−π, π], relative to its mean (the angle of the summed field)."""
    return np.angle(without_piston(plane)).astype(np.float32, copy=False)


def even_spacing(z_um: Sequence[float]) -> float | None:
    """The distance of neighbouring planes; None where it is not the same everywhere, or there is one plane only."""
    steps = np.diff(np.asarray(z_um, dtype=np.float64))
    if not len(steps) or not np.allclose(steps, steps.mean(), rtol=1e-4, atol=0):
        return None
    return float(steps.mean())


def halved(plane: Field) -> NDArray[np.complex64]:
    """Every 2 × 2 pixels of a field [y, x] averaged; an odd last row or column counts twice, so that pixels double."""
    rows, columns = (n % 2 for n in plane.shape)
    even = np.pad(plane, ((0, rows), (0, columns)), mode="edge")
    return np.asarray(
        (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / np.float32(4), dtype=np.complex64
    )


def levels(shape: Shape, smallest: int) -> list[Shape]:
    """The shapes of a pyramid by :func:`halved`, down to the first whose longer side is at most ``smallest``."""
    found = [shape]
    while max(found[-1]) > smallest:
        found.append((-(-found[-1][0] // 2), -(-found[-1][1] // 2)))
    return found
