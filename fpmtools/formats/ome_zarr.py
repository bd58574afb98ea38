"""OME-Zarr: channels with labels and display windows, micrometres, a pyramid; versions 0.5 (Zarr 3) and 0.4 (Zarr 2).

https://ngff.openmicroscopy.org/0.5 and /0.4. Arrays are [c, z, y, x]. A pixel's coordinate is that of its middle, so a
level of the pyramid begins half of its own pixel less half of the finest beyond the first. The format knows even steps
only: planes that are not evenly spaced are counted, and their z stand in the attribute ``fpmtools``.

Each part is rendered once and is a file of its own on each level: about a tile of what is made of tiles. Version 0.5
divides it into chunks that can be read by themselves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fpmtools
from fpmtools import storage
from fpmtools.errors import OutputError
from fpmtools.formats.volume import Volume
from fpmtools.optics import Shape

CHUNK = 256  # pixels, the longest side of a chunk in a file
SMALLEST = 256  # pixels: the pyramid ends with a level that is no larger
CLIPPED_PERCENT = 0.2  # of a plane's pixels are darker, and as many brighter, than the window that is shown
_COLOURS = {"amplitude": "FFFFFF", "phase": "00FFFF", "path": "FFFF00"}
_AXES = ("c", "z", "y", "x")


def write(path: Path, volume: Volume) -> list[str]:
    """Version 0.5, in Zarr 3."""
    return _write(path, volume, "0.5")


def write_0_4(path: Path, volume: Volume) -> list[str]:
    """Version 0.4, in Zarr 2, which more programs read so far, those in Java among them."""
    return _write(path, volume, "0.4")


def _write(path: Path, volume: Volume, version: str) -> list[str]:
    try:
        import zarr
    except ImportError:
        raise OutputError("OME-Zarr needs the package zarr: pip install 'fpmtools[zarr]'") from None
    shapes, block = volume.levels(SMALLEST), volume.block(CHUNK)

    group = zarr.create_group(store=path, zarr_format=3 if version == "0.5" else 2)
    leading = (len(volume.channels), len(volume.z_um))
    arrays = [_array(group, str(k), (*leading, *shape), block, version) for k, shape in enumerate(shapes)]
    windows = _fill(arrays, volume, block)
    group.attrs.put(_attributes(volume, len(shapes), windows, version))
    if len(volume.z_um) > 1 and volume.spacing_um is None:
        return ["the planes are not evenly spaced: OME-Zarr counts them, and their z are in its attribute fpmtools"]
    return []


def _array(group: Any, name: str, shape: tuple[int, ...], block: Shape, version: str) -> Any:
    """An array whose files have ``block`` pixels (y, x), fewer where it is smaller."""
    pairs = list(zip(shape[2:], block, strict=True))
    chunk = tuple(min(n, CHUNK) for n in shape[2:])
    shard = tuple(min(side, -(-n // of) * of) for (n, side), of in zip(pairs, chunk, strict=True))
    how: dict[str, Any] = {"dimension_names": _AXES, "chunks": (1, 1, *chunk)}
    if shard != chunk:
        how["shards"] = (1, 1, *shard)
    if version == "0.4":
        from numcodecs import Zlib  # which every implementation has

        how = {"chunks": (1, 1, *(min(n, side) for n, side in pairs)), "compressors": Zlib(level=1)}
        how["chunk_key_encoding"] = {"name": "v2", "separator": "/"}
    return group.create_array(name=name, shape=shape, dtype="float32", fill_value=0.0, **how)


def _fill(arrays: list[Any], volume: Volume, block: Shape) -> NDArray[np.float64]:
    """Write all regions, each once; returns lowest, start, end, highest of each channel, [channel, 4].

    Start and end are those of the coarsest level.
    """
    windows = np.tile([np.inf, np.inf, -np.inf, -np.inf], (len(volume.channels), 1))
    for plane, level, y, x, values in volume.regions(SMALLEST, block):
        rows, columns = slice(y, y + values.shape[1]), slice(x, x + values.shape[2])
        arrays[level][:, plane, rows, columns] = values
        windows[:, 0] = np.minimum(windows[:, 0], values.min(axis=(1, 2)))
        windows[:, 3] = np.maximum(windows[:, 3], values.max(axis=(1, 2)))
        if level == len(arrays) - 1:  # one region, and all of a plane
            found = np.percentile(values, (CLIPPED_PERCENT, 100 - CLIPPED_PERCENT), axis=(1, 2))
            windows[:, 1], windows[:, 2] = np.minimum(windows[:, 1], found[0]), np.maximum(windows[:, 2], found[1])
    return windows


def _attributes(volume: Volume, count: int, windows: NDArray[np.float64], version: str) -> dict[str, Any]:
    """The group's attributes."""
    own = {
        "version": fpmtools.__version__,
        "channels": {channel.label: channel.content for channel in volume.channels},
        "z_um": list(volume.z_um),
        "wavelength_um": volume.wavelength_um,
        **volume.about,
    }
    multiscales = [
        {
            "name": volume.name,
            "axes": _axes(volume),
            "datasets": [{"path": str(k), "coordinateTransformations": _place(volume, k)} for k in range(count)],
            "type": "mean",
        }
    ]
    omero = {
        "name": volume.name,
        "channels": [_channel(volume, c, windows[c]) for c in range(len(volume.channels))],
        "rdefs": {
            "model": "color" if volume.colours else "greyscale",
            "defaultT": 0,
            "defaultZ": len(volume.z_um) // 2,
        },
    }
    if version == "0.5":
        known: dict[str, Any] = {"ome": {"version": "0.5", "multiscales": multiscales, "omero": omero}}
    else:
        known = {"multiscales": [{"version": "0.4", **multiscales[0]}], "omero": {"version": "0.4", **omero}}
    finite: dict[str, Any] = storage.finite(known | {"fpmtools": own})
    return finite


def _even(volume: Volume) -> bool:
    return len(volume.z_um) == 1 or volume.spacing_um is not None


def _axes(volume: Volume) -> list[dict[str, str]]:
    space = {"type": "space", "unit": "micrometer"}
    z = space if _even(volume) else {"type": "space"}
    return [{"name": "c", "type": "channel"}, {"name": "z", **z}, {"name": "y", **space}, {"name": "x", **space}]


def _place(volume: Volume, level: int) -> list[dict[str, Any]]:
    """Size of a pixel of a level, and where the middle of its first is."""
    (dy, dx), factor = volume.pixel_um, 2**level
    dz, z = (volume.spacing_um or 1.0, volume.z_um[0]) if _even(volume) else (1.0, 0.0)
    shift = (factor - 1) / 2
    return [
        {"type": "scale", "scale": [1.0, dz, dy * factor, dx * factor]},
        {"type": "translation", "translation": [0.0, z, dy * shift, dx * shift]},
    ]


def _channel(volume: Volume, c: int, window: NDArray[np.float64]) -> dict[str, Any]:
    channel = volume.channels[c]
    lowest, start, end, highest = (float(value) for value in window)
    if channel.colour is not None:  # white is white only where all have one window
        start, end = 0.0, 1.0
    return {
        "label": channel.label,
        "color": channel.colour or _COLOURS.get(channel.name, "FFFFFF"),
        "active": c == 0 or channel.colour is not None,
        "window": {"min": lowest, "start": start, "end": max(end, start + 1e-6), "max": max(highest, start + 1e-6)},
    }
