"""What several colours of a sample make together: their fields on one grid, and a picture as the eye would see it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools.colour.registration import Placement, moved
from fpmtools.errors import DataError, OptionError, unknown
from fpmtools.optics import Box, Shape, resample
from fpmtools.reconstruction import Derived, Grid, Reconstruction, mean_cells
from fpmtools.results import open_part

KIND = "colour"
CHANNELS_FOLDER = "channels"  # in that of the run
BLOCK = 512  # pixels of what is moved at a time
PRIMARIES_UM = (0.610, 0.545, 0.465)  # the middles of what the eye's red, green and blue are mostly made of


@dataclass(frozen=True)
class Channel:
    """A colour: the SHA-256 of its result, its bytes, and by how much its z differs from the others'.

    ``white``: its amplitude where there is no sample. ``place``: where it lies on the common grid.
    """

    name: str
    sha256: str
    bytes: int
    z_um: float
    wavelength_um: float
    white: float = 1.0
    place: Placement = field(default_factory=Placement)


class ColourReconstruction(Reconstruction):
    """Colours in a run's folder, each with what brings it onto the others.

    All that a :class:`Reconstruction` gives is here of the ``reference``, the colour that the others were brought
    onto; :meth:`channel` gives any of them on the same grid, and :meth:`colour` the picture of all.

    Parameters
    ----------
    channels
        By wavelength, the longest first.
    reference
        The name of one of them.
    """

    kind = KIND

    def __init__(
        self,
        channels: Sequence[Channel],
        reference: str,
        grid: Grid,
        *,
        folder: Path | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(grid, metadata)
        self.parts = {one.name: one for one in channels}
        if reference not in self.parts or len(self.parts) < len(channels):
            raise DataError(f"colours {', '.join(one.name for one in channels)}: {reference} must be one of them, once")
        self.reference, self.folder = reference, folder
        self._opened = functools.lru_cache(len(channels))(self._read)

    @property
    def channels(self) -> tuple[str, ...]:
        """The names of the colours, the longest wavelength first."""
        return tuple(self.parts)

    def facts(self) -> dict[str, str]:
        """With the colours."""
        colours = (f"{one.name} {1e3 * one.wavelength_um:.0f} nm" for one in self.parts.values())
        return {**super().facts(), "colours": f"{', '.join(colours)}; on the grid of {self.reference}"}

    def opened_from(self, folder: Path) -> None:
        """The folder with the run."""
        self.folder = folder

    def result(self, name: str) -> Reconstruction:
        """The reconstruction of a colour as it was solved, at its own place and depth.

        Raises :class:`OptionError` where there is no such colour, :class:`DataError` where its file is damaged.
        """
        if name not in self.parts:
            raise unknown("channel", name, self.channels)
        return self._opened(name)

    def _read(self, name: str) -> Reconstruction:
        return open_part(self.folder, CHANNELS_FOLDER, name, self.parts[name].sha256)

    def channel(self, name: str) -> Aligned:
        """A colour on the common grid, at the common z."""
        return Aligned(self, name, self.result(name))

    def components(self) -> dict[str, Reconstruction]:
        """All colours on the common grid."""
        return {name: self.channel(name) for name in self.channels}

    def shown_in(self) -> dict[str, str]:
        """What each colour is shown in, as RRGGBB."""
        shades = mixing([one.wavelength_um for one in self.parts.values()])
        shades = np.rint(255 * shades / np.maximum(shades.max(axis=0), 1e-6)).astype(int)
        return {name: "".join(f"{n:02X}" for n in shades[:, k]) for k, name in enumerate(self.parts)}

    def native_field(self, z_um: float) -> NDArray[np.complex64]:
        """The reference's, without margins."""
        return self.channel(self.reference).native_field(z_um)

    def part(self, z_um: float | None, box: Box) -> NDArray[np.complex64]:
        """:meth:`region` pixel by pixel."""
        return self.region(z_um, box)

    def region(self, z_um: float | None, box: Box, level: int = 0) -> NDArray[np.complex64]:
        """The reference's, see :meth:`fpmtools.tiling.mosaic.Mosaic.region`."""
        return self.channel(self.reference).region(z_um, box, level)

    def colour(
        self, z_um: float | None = None, shape: Shape | None = None, *, box: Box | None = None, level: int = 0
    ) -> NDArray[np.float32]:
        """What one sees through a microscope: [y, x, (red, green, blue)] float32, sRGB from 0 to 1.

        Each colour is its intensity over that of the clear field, which so is white; the longest of three wavelengths
        is red, the shortest blue, and of other numbers of colours these are what lies between. Only the parts are read
        that the picture shows, one after the other.

        Parameters
        ----------
        z_um
            As for :meth:`Reconstruction.field`.
        shape
            Size (y, x); default: the grid's, or the box's.
        box
            (y, x, height, width), pixels of the grid that are shown; default: all.
        level
            Each halves the size: 2^level × 2^level pixels become their mean.
        """
        whole = (0, 0, *self.grid.shape) if box is None else box
        if shape is not None and box is None:
            level = max(level, int(np.log2(max(1.0, min(n / m for n, m in zip(whole[2:], shape, strict=True))))))
        mixture = mixing([one.wavelength_um for one in self.parts.values()])
        first, picture = True, np.zeros(0)
        for weights, one in zip(mixture.T, self.parts.values(), strict=True):
            light = self.intensity(one.name, z_um, whole, level)[..., None] * weights.astype(np.float32)
            picture, first = (light if first else picture + light), False
        if shape is not None and picture.shape[:2] != tuple(shape):
            picture = np.stack([resample(picture[..., k], shape) for k in range(3)], axis=-1)
        return srgb(picture)

    def intensity(self, name: str, z_um: float | None, box: Box, level: int = 0) -> NDArray[np.float32]:
        """Of a colour in a box, [y, x] float32; 1 in the clear field."""
        channel, white = self.channel(name), self.parts[name].white
        return _in_blocks(lambda part: np.abs(channel.region(z_um, part) / np.float32(white)) ** 2, box, level)

    @property
    def planes_um(self) -> tuple[float, ...]:
        """The z that the reference was solved at; none where it is continuous in z."""
        return self.channel(self.reference).planes_um

    @property
    def stored_bytes(self) -> int:
        """With what the colours take."""
        return super().stored_bytes + sum(one.bytes for one in self.parts.values())

    def save(self, path: str | Path) -> Path:
        """Write what joins the colours, which stay where they are: ``path`` is in their run's folder."""
        if self.folder is None or Path(path).resolve().parent != self.folder.resolve():
            raise OptionError(f"{path}: colours stay with their runs, in {self.folder}; render writes them elsewhere")
        return super().save(path)

    def dump(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """What is known of each colour, and its result by name and checksum."""
        every = [*self.parts.values()]
        tensors = {
            "shift": np.array([one.place.shift for one in every]),
            "scale": np.array([one.place.scale for one in every]),
            "correlation": np.array([one.place.correlation for one in every]),
            "white": np.array([one.white for one in every]),
        }
        listed = [[one.name, one.sha256, one.bytes, one.z_um, one.wavelength_um] for one in every]
        return tensors, {"channels": listed, "reference": self.reference}

    @classmethod
    def restore(
        cls, grid: Grid, tensors: Mapping[str, NDArray[Any]], config: Mapping[str, Any]
    ) -> ColourReconstruction:
        """Inverse of :meth:`dump`."""
        channels = [
            Channel(str(name), str(sha), int(count), float(z), float(wave), float(tensors["white"][k]), Placement(
                (float(tensors["shift"][k][0]), float(tensors["shift"][k][1])),
                float(tensors["scale"][k]),
                float(tensors["correlation"][k]),
            ))
            for k, (name, sha, count, z, wave) in enumerate(config["channels"])
        ]  # fmt: skip
        return cls(channels, str(config["reference"]), grid)


class Aligned(Derived):
    """One of several colours, on the grid and at the z that all have in common."""

    kind = "channel of a colour"

    def __init__(self, whole: ColourReconstruction, name: str, own: Reconstruction) -> None:
        super().__init__(whole.grid, own.metadata)
        self.about, self.own, self.calibration = whole.parts[name], own, own.calibration
        self.metadata["wavelength_um"] = self.about.wavelength_um

    def part(self, z_um: float | None, box: Box) -> NDArray[np.complex64]:
        """:meth:`region` pixel by pixel."""
        return self.region(z_um, box)

    @property
    def part_shape(self) -> Shape:
        """That of the colour by itself, in whole blocks."""
        if self.own.part_shape == self.own.grid.shape:
            return self.grid.shape
        height, width = self.own.part_shape
        return BLOCK * -(-height // BLOCK), BLOCK * -(-width // BLOCK)

    def region(self, z_um: float | None, box: Box, level: int = 0) -> NDArray[np.complex64]:
        """As :meth:`fpmtools.tiling.mosaic.Mosaic.region`; only what lies in the box is read."""
        low, high = self.own.grid.z_range
        z = min(max(self._inside(z_um) + self.about.z_um, low), high)
        self._check_box(box, level)

        def read(part: Box) -> NDArray[np.complex64]:
            return moved(lambda at: self.own.part(z, at), part, self.about.place, self.grid.shape)

        return _in_blocks(read, box, level)

    def native_field(self, z_um: float) -> NDArray[np.complex64]:
        """All of it."""
        return self.region(z_um, (0, 0, *self.grid.shape))

    @property
    def planes_um(self) -> tuple[float, ...]:
        """Where it was solved, at the z that all have in common."""
        low, high = self.grid.z_range
        common = (z - self.about.z_um for z in self.own.planes_um)
        return tuple(min(max(z, low), high) for z in common)

    @property
    def white(self) -> float:
        """Its amplitude in the clear field."""
        return self.about.white

    @property
    def stored_bytes(self) -> int:
        """What the colour takes by itself."""
        return self.own.stored_bytes


def mixing(wavelengths_um: Sequence[float]) -> NDArray[np.float64]:
    """How much of each colour is in red, green and blue [(r, g, b), colour], each of the three adding up to 1.

    Three colours, the longest wavelength first, are these; of others what lies between at :data:`PRIMARIES_UM`.
    """
    count = len(wavelengths_um)
    if count == 3:
        return np.eye(3)
    rising = np.array(wavelengths_um[::-1])
    return np.stack([[float(np.interp(at, rising, row)) for row in np.eye(count)[:, ::-1]] for at in PRIMARIES_UM])


def srgb(linear: NDArray[Any]) -> NDArray[np.float32]:
    """Intensities as IEC 61966-2-1 encodes them for a screen, from 0 to 1; what is brighter than white is white."""
    light = np.clip(linear, 0, 1)
    curved = 1.055 * np.maximum(light, 0.0031308) ** (1 / 2.4) - 0.055
    return np.asarray(np.where(light <= 0.0031308, 12.92 * light, curved), dtype=np.float32)


def _in_blocks(read: Any, box: Box, level: int) -> NDArray[Any]:
    """What ``read(part)`` gives of each part of ``box``, put together, 2^level × 2^level pixels as their mean."""
    y, x, height, width = box
    cell = 1 << level
    out: NDArray[Any] | None = None
    for (at, here), (left, there) in _steps(height, width, max(BLOCK, cell)):
        found = mean_cells(np.asarray(read((y + at, x + left, here, there))), cell)
        if out is None:
            out = np.zeros((-(-height // cell), -(-width // cell)), found.dtype)
        out[at // cell : at // cell + found.shape[0], left // cell : left // cell + found.shape[1]] = found
    assert out is not None
    return out


def _steps(height: int, width: int, block: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    for y in range(0, height, block):
        for x in range(0, width, block):
            yield (y, min(block, height - y)), (x, min(block, width - x))
