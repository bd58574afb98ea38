"""OME-Zarr: channels with labels and display windows, micrometres, a pyramid; versions 0.5 (Zarr 3) and 0.4 (Zarr 2).

https://ngff.openmicroscopy.org/0.5 and /0.4. Arrays are [c, z, y, x]. A pixel's coordinate is that of its middle, so a
level of the pyramid begins half of its own pixel less half of the finest beyond the first. The format knows even steps
only: planes that are not evenly spaced are counted, and their z stand in the attribute ``fpmtools``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fpmtools
from fpmtools import storage
from fpmtools.errors import OutputError
from fpmtools.formats.volume import Volume, halved, levels

CHUNK = 512  # pixels, the longest side of a chunk
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
    shapes = levels(volume.shape, SMALLEST)

    group = zarr.create_group(store=path, zarr_format=3 if version == "0.5" else 2)
    leading = (len(volume.channels), len(volume.z_um))
    arrays = [_array(group, str(k), (*leading, *shape), version) for k, shape in enumerate(shapes)]
    windows = _fill(arrays, volume)
    group.attrs.put(_attributes(volume, len(shapes), windows, version))
    if len(volume.z_um) > 1 and volume.spacing_um is None:
        return ["the planes are not evenly spaced: OME-Zarr counts them, and their z are in its attribute fpmtools"]
    return []


def _array(group: Any, name: str, shape: tuple[int, ...], version: str) -> Any:
    chunks = (1, 1, min(shape[2], CHUNK), min(shape[3], CHUNK))
    how: dict[str, Any] = {"dimension_names": _AXES}
    if version == "0.4":
        from numcodecs import Zlib  # which every implementation has

        how = {"compressors": Zlib(level=1), "chunk_key_encoding": {"name": "v2", "separator": "/"}}
    return group.create_array(name=name, shape=shape, dtype="float32", chunks=chunks, fill_value=0.0, **how)


def _fill(arrays: list[Any], volume: Volume) -> NDArray[np.float64]:
    """Write all planes, each once; returns lowest, start, end, highest of each channel, [channel, 4]."""
    percents = (0, CLIPPED_PERCENT, 100 - CLIPPED_PERCENT, 100)
    windows = np.tile([np.inf, np.inf, -np.inf, -np.inf], (len(volume.channels), 1))
    for k, plane in enumerate(volume.planes()):
        less: NDArray[Any] = plane
        for level, array in enumerate(arrays):
            less = halved(less) if level else less
            for c, channel in enumerate(volume.channels):
                values = channel.of(less)
                array[c, k] = values
                if not level:
                    found = np.percentile(values, percents)
                    windows[c, :2] = np.minimum(windows[c, :2], found[:2])
                    windows[c, 2:] = np.maximum(windows[c, 2:], found[2:])
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
