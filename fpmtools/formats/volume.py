"""What a writer is given: complex planes, made one at a time, where they are, and channels of real numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools.errors import OptionError, printable, unknown
from fpmtools.optics import Shape
from fpmtools.reconstruction import Reconstruction, level_phase, nm_per_rad, without_piston

Field = NDArray[np.complexfloating[Any, Any]]


@dataclass(frozen=True)
class Channel:
    """One real number of each pixel: ``of(field)`` makes float32 [y, x] of a plane; ``content`` says what it is.

    ``wavelength_um`` of its light, where it is known; ``colour``: what it is to be shown in, as RRGGBB, where that is
    more than a choice.
    """

    name: str
    unit: str
    content: str
    of: Callable[[Field], NDArray[np.float32]] = field(repr=False)
    wavelength_um: float | None = None
    colour: str | None = None

    @property
    def label(self) -> str:
        """The name with the unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


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
    plane
        The one at a z in µm, complex64 [y, x], or [colour, y, x] of several colours: rendered when it is asked for, so
        ask once for each.
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
    """

    name: str
    shape: Shape
    pixel_um: tuple[float, float]
    z_um: tuple[float, ...]
    plane: Callable[[float], NDArray[np.complex64]] = field(repr=False)
    channels: tuple[Channel, ...] = ()
    wavelength_um: float | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    colours: tuple[str, ...] = ()
    picture: Callable[[float], NDArray[np.float32]] | None = field(default=None, repr=False)

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
            lambda z: part.field(z, shape),
            tuple(channel(name, wavelength_um) for name in channels or ONE_COLOUR),
            wavelength_um,
            {"intensity_scale": reconstruction.metadata.get("intensity_scale")},
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

        def planes(z: float) -> NDArray[np.complex64]:
            return np.stack([part.field(z, shape) / np.float32(part.white) for part in parts.values()])

        found = [
            _of_colour(k, colour, channel(kind, waves[colour]), shown)
            for k, (colour, shown) in enumerate(reconstruction.shown_in().items())
            for kind in channels or SEVERAL_COLOURS
        ]
        return cls(
            name, size, (grid.extent_um[0] / size[0], grid.extent_um[1] / size[1]), tuple(float(z) for z in z_um),
            planes, tuple(found), None, {"wavelengths_um": dict(waves)}, tuple(parts),
            lambda z: reconstruction.colour(z, shape),
        )  # fmt: skip

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
PATH = "optical path in nm, unwrapped phase times wavelength over 2 pi, without its ramp, 0 beside the sample"
INTENSITY = "intensity of the transmitted light; 1 is that of the mean bright-field image, or of the clear field"
CHANNELS = ("amplitude", "phase", "path", "intensity")
ONE_COLOUR, SEVERAL_COLOURS = ("amplitude", "phase"), ("intensity",)  # unless told otherwise


def channel(name: str, wavelength_um: float | None = None) -> Channel:
    """The channel of this name; :class:`OptionError` when there is none, or it needs a wavelength that is not known."""
    if name == "amplitude":
        return Channel(name, "", AMPLITUDE, lambda plane: np.abs(plane).astype(np.float32, copy=False), wavelength_um)
    if name == "intensity":
        return Channel(name, "", INTENSITY, _intensity, wavelength_um)
    if name == "phase":
        return Channel(name, "rad", PHASE, flat_phase, wavelength_um)
    if name != "path":
        raise unknown("channel", name, CHANNELS)
    if wavelength_um is None:
        raise OptionError("channel path needs the wavelength, which this result does not tell: solve it again")
    nm = nm_per_rad(wavelength_um)
    return Channel(name, "nm", PATH, lambda plane: level_phase(plane) * nm, wavelength_um)


def _intensity(plane: Field) -> NDArray[np.float32]:
    return np.asarray(np.abs(plane) ** 2, dtype=np.float32)


def _of_colour(index: int, colour: str, base: Channel, shown: str) -> Channel:
    """A channel of one of several colours."""
    label = colour if base.name == "intensity" else f"{colour} {base.name}"
    shade = shown if base.name in ("intensity", "amplitude") else None
    return replace(base, name=label, of=lambda planes: base.of(planes[index]), colour=shade)


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
