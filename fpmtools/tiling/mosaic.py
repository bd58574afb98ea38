"""The result of a tiled run: a field that is read tile by tile, when a part of it is asked for."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools.dataset import as_planes
from fpmtools.display import span
from fpmtools.errors import DataError, OptionError, expect
from fpmtools.metrics.focus import AllInFocus, all_in_focus
from fpmtools.optics import Box, Shape, resample
from fpmtools.reconstruction import Derived, Grid, Reconstruction
from fpmtools.results import open_part
from fpmtools.tiling.plan import Plan

KIND = "mosaic"
TILES_FOLDER = "tiles"  # in that of the run
OPEN_TILES = 8  # that are kept open
KEPT_BYTES = 1 << 26  # of tiles as they were last rendered, each of which several regions may lie in
FEWEST_KEPT = 4
FINEST = 2  # a picture with so many times fewer pixels is a mean of pixels; a larger one is resampled in its band


@dataclass(frozen=True)
class Part:
    """A tile in a mosaic: the SHA-256 of its file, None for a hole, and by how much its z differs from the mosaic's."""

    name: str
    sha256: str | None
    bytes: int
    z_um: float
    reason: str = ""


class Mosaic(Reconstruction):
    """Tiles in a run's folder, with what brings each to its neighbours.

    Parameters
    ----------
    plan
        Where the tiles are.
    parts
        One for each of the plan's tiles, in its order.
    gain, ramp, bend
        [tile] complex, [tile, (y, x)] rad per pixel and [tile, (y², yx, x²)] rad per pixel²: tile t is multiplied by
        gain · exp(i ramp · s + i bend · (s_y², s_y s_x, s_x²)), s from its middle. ``bend`` None: 0.
    planes
        The z that the tiles were solved at; none where they are continuous in z.
    curvature
        rad per pixel²: what of the curvature k/2h of the LEDs' light is in each tile. 0: none, or not known.
    factor
        Pixels of the mosaic to a camera pixel.

    A tile that could not be solved is a hole: what its neighbours do not show of it is 0.
    """

    kind = KIND

    def __init__(
        self,
        plan: Plan,
        parts: Sequence[Part],
        gain: NDArray[np.complexfloating[Any, Any]],
        ramp: NDArray[np.floating[Any]],
        grid: Grid,
        *,
        factor: int,
        planes: tuple[float, ...] = (),
        curvature: float = 0.0,
        bend: NDArray[np.floating[Any]] | None = None,
        folder: Path | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(grid, metadata)
        bend = np.zeros((len(parts), 3)) if bend is None else bend
        if not len(plan.tiles) == len(parts) == len(gain) == len(ramp) == len(bend):
            raise DataError(f"a mosaic needs a part for each of its {len(plan.tiles)} tiles, got {len(parts)}")
        self.plan, self.parts, self.factor = plan, tuple(parts), factor
        self.gain, self.ramp = np.asarray(gain, np.complex128), np.asarray(ramp, np.float64)
        self.bend = np.asarray(bend, np.float64)
        self.curvature, self.folder, self.planes = curvature, folder, planes
        self._open = functools.lru_cache(OPEN_TILES)(self._opened)
        self._rows, self._columns = plan.windows(factor)
        kept = KEPT_BYTES // (8 * plan.size[0] * plan.size[1] * factor**2)
        self._weighted = functools.lru_cache(max(FEWEST_KEPT, kept))(self._rendered_tile)

    def facts(self) -> dict[str, str]:
        """With the tiles, and those that are missing."""
        facts, count = super().facts(), len(self.parts)
        missing = f", {len(self.holes)} of them missing" if self.holes else ""
        facts["tiles"] = f"{count} of {' × '.join(map(str, self.plan.size))} camera pixels{missing}"
        depths = [part.z_um for part in self.parts]
        if min(depths) < max(depths):
            facts["z"] += f"; the tiles at {span(min(depths), max(depths))} from there"
        return facts

    @property
    def holes(self) -> dict[str, str]:
        """Names of the tiles that are missing, and why."""
        return {part.name: part.reason for part in self.parts if part.sha256 is None}

    def opened_from(self, folder: Path) -> None:
        """The folder with the run."""
        self.folder = folder

    def tile(self, index: int) -> Reconstruction:
        """The reconstruction of a tile, as it was solved.

        Raises :class:`DataError` where its file is damaged, missing, or not in the mosaic's own folder.
        """
        return self._open(index)

    def _opened(self, index: int) -> Reconstruction:
        part = self.parts[index]
        return open_part(self.folder, TILES_FOLDER, part.name, part.sha256)

    def tile_field(self, index: int, z_um: float) -> NDArray[np.complex64]:
        """A tile [y, x] at the mosaic's pixels, without the curvature of its light, and not yet brought to others."""
        part, (height, width) = self.tile(index), self.plan.size
        low, high = part.grid.z_range
        z = min(max(z_um + self.parts[index].z_um, low), high)
        field = part.field(z, (height * self.factor, width * self.factor))
        if self.curvature:
            y, x = self._from_middle()
            field *= (np.exp(-1j * self.curvature * y**2)[:, None] * np.exp(-1j * self.curvature * x**2)).astype(
                np.complex64
            )
        return field

    def _from_middle(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Rows and columns of a tile, in pixels from its middle."""
        height, width = (n * self.factor for n in self.plan.size)
        return np.arange(float(height)) - height / 2, np.arange(float(width)) - width / 2

    def joined_field(self, index: int, z_um: float) -> NDArray[np.complex64]:
        """A tile [y, x] as it is in the mosaic, without its window."""
        y, x = self._from_middle()
        (ramp_y, ramp_x), (yy, yx, xx) = self.ramp[index], self.bend[index]
        turn = self.gain[index] * np.exp(1j * y * (ramp_y + yy * y))[:, None] * np.exp(1j * x * (ramp_x + xx * x))
        turn = turn.astype(np.complex64) * np.exp(np.multiply.outer(y, 1j * yx * x).astype(np.complex64))
        return np.asarray(self.tile_field(index, z_um) * turn)

    def place(self, index: int) -> Box:
        """Where a tile is, in the mosaic's pixels."""
        y, x, height, width = self.plan.tiles[index].box
        return y * self.factor, x * self.factor, height * self.factor, width * self.factor

    def window(self, index: int) -> NDArray[np.float64]:
        """What a tile counts at its pixels [y, x]: with those of all others that are there it adds up to 1."""
        own, total = self._weight(index), np.zeros([n * self.factor for n in self.plan.size])
        for other in self._near(self.place(index)):
            mine, theirs = _shared(self.place(index), self.place(other))
            total[mine] += self._weight(other)[theirs]
        return np.divide(own, total, out=np.zeros_like(own), where=total > 0)

    def _weight(self, index: int) -> NDArray[np.float64]:
        row, column = divmod(index, len(self.plan.columns))
        weight: NDArray[np.float64] = self._rows[row][:, None] * self._columns[column]
        return weight

    def _near(self, box: Box) -> list[int]:
        """The tiles that are there and lie, in part, in a box of the mosaic's pixels."""
        factor, (y, x, height, width), (high, wide) = self.factor, box, self.plan.size
        rows = [i for i, at in enumerate(self.plan.rows) if at * factor < y + height and y < (at + high) * factor]
        columns = [i for i, at in enumerate(self.plan.columns) if at * factor < x + width and x < (at + wide) * factor]
        every = (row * len(self.plan.columns) + column for row in rows for column in columns)
        return [index for index in every if self.parts[index].sha256 is not None]

    def native_field(self, z_um: float) -> NDArray[np.complex64]:
        """All of it, at full size."""
        return self._render(z_um, (0, 0, *self.grid.shape), self.grid.shape)

    def field(self, z_um: float | None = None, shape: Shape | None = None) -> NDArray[np.complex64]:
        """As :meth:`Reconstruction.field`; half as large as the mosaic or less it is the mean of its pixels.

        It is put together a tile at a time, so that a small picture of a large mosaic takes little memory.
        """
        shape = self.grid.shape if shape is None else shape
        expect(shape, (tuple, list), "shape", "two whole numbers (y, x)")
        if all(FINEST * n <= whole for n, whole in zip(shape, self.grid.shape, strict=True)):
            return self._render(self._inside(z_um), (0, 0, *self.grid.shape), (shape[0], shape[1]))
        return np.asarray(resample(self.native_field(self._inside(z_um)), (shape[0], shape[1])), np.complex64)

    def part(self, z_um: float | None, box: Box) -> NDArray[np.complex64]:
        """:meth:`region` pixel by pixel."""
        return self.region(z_um, box)

    @property
    def part_shape(self) -> Shape:
        """What of the mosaic a tile's share is."""
        (height, width), plan = self.grid.shape, self.plan
        return -(-height // len(plan.rows)), -(-width // len(plan.columns))

    def region(self, z_um: float | None, box: Box, level: int = 0) -> NDArray[np.complex64]:
        """A part of the field, for which no other tiles are read than those that it lies in.

        Parameters
        ----------
        z_um
            As for :meth:`field`.
        box
            (y, x, height, width) in pixels of ``grid.shape``.
        level
            0: pixel by pixel; each level more halves the size, 2^level × 2^level pixels becoming their mean.

        Returns
        -------
        numpy.ndarray
            [y, x] complex64, of height and width over 2^level, rounded up.

        Raises
        ------
        OptionError
            A box that does not lie in the field, or z out of range.
        """
        self._check_box(box, level)
        height, width = box[2:]
        shape = ((height + (1 << level) - 1) >> level, (width + (1 << level) - 1) >> level)
        return self._render(self._inside(z_um), box, shape, 1 << level)

    def _render(self, z_um: float, box: Box, shape: Shape, cell: int | None = None) -> NDArray[np.complex64]:
        """The pixels of ``box`` at ``shape``, each the mean of what it covers; ``cell``: of so many along each axis."""
        height, width = box[2:]
        out = np.zeros(shape, np.complex64)
        for index in self._near(box):
            (rows, columns), part = _shared(self.place(index), box)
            weighted = self._weighted(index, z_um)[rows, columns]
            if shape == (height, width):
                out[part] += weighted
                continue
            down, weights_y = _cells(part[0], height, shape[0], cell)
            across, weights_x = _cells(part[1], width, shape[1], cell)
            out[down, across] += weights_y @ weighted @ weights_x.T
        return out

    def _rendered_tile(self, index: int, z_um: float) -> NDArray[np.complex64]:
        """A tile [y, x] as it is in the mosaic, with its window."""
        return np.asarray(self.joined_field(index, z_um) * self.window(index).astype(np.float32), np.complex64)

    def all_in_focus(self, z_um: Sequence[float] | float, **how: Any) -> AllInFocus:
        """:func:`fpmtools.metrics.all_in_focus` of the mosaic, made a tile at a time: amplitude and depth map.

        ``how``: its ``method``, ``window_um`` and ``clip``.
        """
        amplitude, depth = np.zeros(self.grid.shape, np.float32), np.zeros(self.grid.shape, np.float32)
        for index, where, window in self.windows():
            found = all_in_focus(_Placed(self, index), as_planes(z_um), **how)
            amplitude[where] += window.astype(np.float32) * found.amplitude
            depth[where] += window.astype(np.float32) * found.depth_um
        return AllInFocus(amplitude, depth)

    def windows(self) -> Iterator[tuple[int, tuple[slice, slice], NDArray[np.float64]]]:
        """Each tile that is there: its number, its place in the mosaic, and what it counts there."""
        for index, part in enumerate(self.parts):
            if part.sha256 is not None:
                y, x, height, width = self.place(index)
                yield index, np.s_[y : y + height, x : x + width], self.window(index)

    @property
    def planes_um(self) -> tuple[float, ...]:
        """The z that the tiles were solved at; none where they are continuous in z."""
        return self.planes or super().planes_um

    @property
    def stored_bytes(self) -> int:
        """With what the tiles take."""
        return super().stored_bytes + sum(part.bytes for part in self.parts)

    def save(self, path: str | Path) -> Path:
        """Write what joins the tiles, which stay where they are: ``path`` is in the mosaic's own folder."""
        if self.folder is None or Path(path).resolve().parent != self.folder.resolve():
            raise OptionError(f"{path}: a mosaic stays with its tiles, in {self.folder}; render writes it elsewhere")
        return super().save(path)

    def dump(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Gains, ramps and bends, the plan, and the tiles by name and checksum."""
        gain = np.stack([self.gain.real, self.gain.imag], axis=-1)
        parts = [[p.name, p.sha256, p.bytes, p.z_um, p.reason] for p in self.parts]
        config = {
            "frame": self.plan.frame, "size": self.plan.size, "overlap": self.plan.overlap, "rows": self.plan.rows,
            "columns": self.plan.columns, "factor": self.factor, "planes": self.planes, "curvature": self.curvature,
            "tiles": parts,
        }  # fmt: skip
        return {"gain": gain, "ramp": self.ramp, "bend": self.bend}, config

    @classmethod
    def restore(cls, grid: Grid, tensors: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> Mosaic:
        """Inverse of :meth:`dump`."""
        pair = {name: (int(config[name][0]), int(config[name][1])) for name in ("frame", "size")}
        rows, columns = (tuple(int(n) for n in config[name]) for name in ("rows", "columns"))
        plan = Plan(pair["frame"], pair["size"], int(config["overlap"]), rows, columns)
        parts = [
            Part(str(name), None if sha is None else str(sha), int(count), float(z), str(reason))
            for name, sha, count, z, reason in config["tiles"]
        ]
        gain = tensors["gain"].astype(np.float64)
        planes = tuple(float(z) for z in config["planes"])
        return cls(
            plan, parts, gain[:, 0] + 1j * gain[:, 1], tensors["ramp"], grid, factor=int(config["factor"]),
            planes=planes, curvature=float(config["curvature"]), bend=tensors.get("bend"),
        )  # fmt: skip


class _Placed(Derived):
    """A tile as it is in its mosaic."""

    kind = "tile of a mosaic"

    def __init__(self, mosaic: Mosaic, index: int) -> None:
        height, width = (n * mosaic.factor for n in mosaic.plan.size)
        y, x = mosaic.grid.pixel_um
        super().__init__(Grid((height, width), (height * y, width * x), mosaic.grid.z_range))
        self.mosaic, self.index = mosaic, index

    def native_field(self, z_um: float) -> NDArray[np.complex64]:
        """As it is in the mosaic."""
        return self.mosaic.joined_field(self.index, z_um)


def _shared(one: Box, other: Box) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """What two boxes share, as slices of the one and of the other."""
    mine, theirs = [], []
    for axis in (0, 1):
        low, high = max(one[axis], other[axis]), min(one[axis] + one[axis + 2], other[axis] + other[axis + 2])
        mine.append(slice(low - one[axis], max(low, high) - one[axis]))
        theirs.append(slice(low - other[axis], max(low, high) - other[axis]))
    return (mine[0], mine[1]), (theirs[0], theirs[1])


def _cells(part: slice, length: int, count: int, cell: int | None) -> tuple[slice, NDArray[np.float32]]:
    """Which of ``count`` cells of a stretch of ``length`` pixels those of ``part`` lie in, and what each counts there.

    [cell, pixel]; over all pixels of a cell they add up to 1. ``cell``: the pixels of one, the last may have fewer.
    """
    size = length / count if cell is None else float(cell)
    first = int(part.start / size + 1e-9)
    last = min(int(np.ceil(part.stop / size - 1e-9)), count)
    edges = np.minimum(np.arange(first, last + 1) * size, length)
    pixels = np.arange(part.start, part.stop)
    share = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.maximum(share, 0) / np.diff(edges)[:, None]
    return slice(first, last), weights.astype(np.float32)
