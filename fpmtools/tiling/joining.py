"""From solved tiles to a mosaic: neighbours are compared where they overlap, and gain and slow phase found for each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools.optics import Optics
from fpmtools.reconstruction import Grid
from fpmtools.tiling.mosaic import Mosaic, Part, _shared
from fpmtools.tiling.plan import Plan
from fpmtools.tiling.stitching import (
    INDEPENDENT,
    Seam,
    curvature,
    join,
    seam,
    without_curvature,
)


def join_tiles(
    plan: Plan,
    ended: Sequence[Mapping[str, Any]],
    folder: Path,
    depths: Sequence[tuple[float, ...]],
    *,
    factor: int,
    optics: Optics,
    scale: float,
    height_um: float | None,
) -> Mosaic:
    """The mosaic of the tiles in ``folder``.

    Parameters
    ----------
    ended
        How each tile of the plan has ended; one without a ``sha256`` is a hole.
    depths
        The z of each, µm.
    factor
        Pixels of the mosaic to a camera pixel.
    scale
        The measured intensity that counts as 1 in all of it.
    height_um
        Of the LEDs, whose light is curved by it over each tile, by k/2h at most: how much of that the tiles show is
        found where they overlap, for so slow a phase is seen by few LEDs, and a solver that starts flat may stay so.
        Angles of its own place leave a tile no ramp; where no height is known it may have any.
    """
    middles = [(z[0] + z[-1]) / 2 for z in depths]
    common = float(np.median(middles))
    parts = [
        Part(
            tile.name, about.get("sha256"), int(about.get("stored_bytes", 0)), middle - common, about.get("reason", "")
        )
        for tile, about, middle in zip(plan.tiles, ended, middles, strict=True)
    ]
    same = all(z == depths[0] for z in depths)
    planes = depths[0] if same else (common,)
    shape = (plan.frame[0] * factor, plan.frame[1] * factor)
    grid = Grid(shape, (plan.frame[0] * optics.pixel_um, plan.frame[1] * optics.pixel_um), (planes[0], planes[-1]))
    fine = optics.pixel_um / factor
    curved = 0.0 if height_um is None else optics.curvature(height_um) * fine**2
    count = len(parts)
    mosaic = Mosaic(
        plan, parts, np.ones(count, complex), np.zeros((count, 2)), grid, factor=factor,
        folder=folder, planes=tuple(planes),
    )  # fmt: skip
    for index, part in enumerate(parts):
        if part.sha256 is not None:  # one intensity counts as 1 everywhere
            mosaic.gain[index] = math.sqrt(float(mosaic.tile(index).metadata.get("intensity_scale", scale)) / scale)
    centres = np.array([(y + h / 2, x + w / 2) for y, x, h, w in map(mosaic.place, range(count))])
    alike = INDEPENDENT * optics.wavelength_um / (2 * optics.na) / fine
    half = min(plan.size) * factor / 2
    compared = seams(mosaic, (planes[0] + planes[-1]) / 2, alike, half)
    mosaic.curvature = curvature(compared, centres, half, curved)
    compared = without_curvature(compared, centres, half, mosaic.curvature)
    found = join(count, compared, centres, half, known=height_um is not None)
    there = np.array([part.sha256 is not None for part in parts])
    gain = np.where(there, mosaic.gain * np.exp(found.gain + 1j * found.phase), 0)
    mosaic.gain, mosaic.ramp, mosaic.bend = gain, found.ramp, found.bend
    mosaic.metadata |= {"intensity_scale": scale, "wavelength_um": optics.wavelength_um}
    return mosaic


def seams(mosaic: Mosaic, z_um: float, alike: float, half: float) -> list[Seam]:
    """All neighbours compared, at the gains that the mosaic has; of each tile only what it shares is kept."""
    pairs = mosaic.plan.neighbours()
    fields: dict[int, NDArray[np.complex64]] = {}
    found = []
    for first, second in pairs:
        if None in (mosaic.parts[first].sha256, mosaic.parts[second].sha256):
            continue
        for index in [index for index in fields if index < first]:
            del fields[index]
        for index in (first, second):
            if index not in fields:
                fields[index] = mosaic.joined_field(index, z_um)
        mine, theirs = _shared(mosaic.place(first), mosaic.place(second))
        window = _trusted(mosaic, first)[mine] * _trusted(mosaic, second)[theirs]
        y, x, *_ = mosaic.place(first)
        corner = (y + mine[0].start, x + mine[1].start)
        one = seam(first, second, fields[first][mine], fields[second][theirs], window, corner, alike, half)
        if one is not None:
            found.append(one)
    return found


def _trusted(mosaic: Mosaic, index: int) -> NDArray[np.float64]:
    """How far a tile is to be trusted [y, x]: where its window rises, and next to nothing at its very border."""
    return mosaic._weight(index) + 1e-3
