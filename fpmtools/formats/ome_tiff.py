"""OME-TIFF: channels with names and units, micrometres, the z of each plane, and a pyramid in sub-IFDs.

Written page after page in the order z, channel, in tiles where the image is large; each plane is rendered once. The
numbers are those of the OME 2016-06 schema: lengths in µm, ``PositionZ`` on each plane, so that uneven z are exact.
Read, such a file is a stack of measured images.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools import storage
from fpmtools.errors import DataError, printable
from fpmtools.formats import images, ome
from fpmtools.formats.recording import Recording, Wanted
from fpmtools.formats.volume import Volume, halved, levels
from fpmtools.optics import Shape

TILE = 256  # pixels; a plane that is no larger has no tiles and no pyramid
_BIG_BYTES = 2**32 - 2**26  # beyond, offsets need BigTIFF, which all readers of OME-TIFF know


def write(path: Path, volume: Volume) -> None:
    """The channels of a volume as float32 pages in the order z, channel."""
    import tifffile

    shapes = levels(volume.shape, TILE)
    pages = len(volume.z_um) * len(volume.channels)
    smaller = [storage.scratch((pages, *shape), np.float32) for shape in shapes[1:]]
    size = sum(4 * pages * shape[0] * shape[1] for shape in shapes)
    how: dict[str, Any] = {"dtype": np.float32, "photometric": "minisblack"}
    how |= {"tile": (TILE, TILE)} if smaller else {}

    with tifffile.TiffWriter(path, ome=True, bigtiff=size > _BIG_BYTES) as tiff:
        for k, shape in enumerate(shapes):
            scale = 1e4 / 2**k  # pixels of a level in a centimetre
            tiff.write(
                _parts(smaller[k - 1], shape) if k else _parts(_pages(volume, smaller), shape, bool(smaller)),
                shape=(len(volume.z_um), len(volume.channels), *shape),
                resolution=(scale / volume.pixel_um[1], scale / volume.pixel_um[0]),
                resolutionunit="CENTIMETER",
                **(how | ({"subfiletype": 1} if k else {"subifds": len(smaller), "metadata": _metadata(volume)})),
            )


def _pages(volume: Volume, smaller: list[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """Each channel of each plane; on the way the levels of the pyramid are filled."""
    page = 0
    for plane in volume.planes():
        less: NDArray[Any] = plane
        for level in smaller:  # before the page is given: after the last nobody comes back
            less = halved(less)
            for number, channel in enumerate(volume.channels):
                level[page + number] = channel.of(less)
            storage.release(level)
        for channel in volume.channels:
            yield channel.of(plane)
        page += len(volume.channels)


def _parts(pages: Any, shape: Shape, tiled: bool = True) -> Iterator[NDArray[np.float32]]:
    """The pages, or the tiles of each, row by row."""
    for page in pages:
        if not tiled:
            yield page
            continue
        for y in range(0, shape[0], TILE):
            for x in range(0, shape[1], TILE):
                part = page[y : y + TILE, x : x + TILE]
                yield np.pad(part, ((0, TILE - part.shape[0]), (0, TILE - part.shape[1])))


def _metadata(volume: Volume) -> dict[str, Any]:
    """As tifffile takes the attributes of OME-XML's Image, Pixels, Channel and Plane."""
    z_um, count = volume.z_um, len(volume.channels)
    planes = [z for z in z_um for _ in range(count)]
    contents = "; ".join(f"{channel.label}: {channel.content}" for channel in volume.channels)
    known = "" if volume.wavelength_um is None else f"; wavelength {1e3 * volume.wavelength_um:g} nm"
    spacing = volume.spacing_um
    return {
        "axes": "ZCYX",
        "Name": volume.name,
        "Description": f"Fourier ptychography; {contents}{known}; z in um: {' '.join(f'{z:.9g}' for z in z_um)}",
        "PhysicalSizeX": volume.pixel_um[1],
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": volume.pixel_um[0],
        "PhysicalSizeYUnit": "µm",
        **({} if spacing is None else {"PhysicalSizeZ": spacing, "PhysicalSizeZUnit": "µm"}),
        "Channel": {"Name": [channel.label for channel in volume.channels]},
        "Plane": {"PositionZ": planes, "PositionZUnit": ["µm"] * len(planes)},
    }


def is_ome(path: Path, head: bytes) -> bool:
    """Whether a file that starts with ``head`` is a TIFF with OME metadata."""
    if not images.is_tiff(head):
        return False
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            return bool(file.is_ome)
    except Exception:  # damaged: whoever reads the images says how
        return False


def read(path: Path, wanted: Wanted) -> Recording:
    """The images of a file in the order that its metadata say, its pixel size, and what they tell of the microscope.

    Of several channels beside several planes or times ``wanted.channel`` names one. Where the metadata cannot be used,
    or speak of other files too, the file's own pages are read in their order, and this is said. Raises as
    :func:`fpmtools.formats.images.read` does, and :class:`OptionError` where a channel must be named, or is not there.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            description, pages = file.pages.first.description, len(file.pages)
    except Exception as error:  # the library raises almost anything on a damaged file
        raise DataError(f"{path}: not a readable TIFF ({printable(error)})") from error
    said: list[str] = []
    try:
        layout = ome.Layout.parse(description, pages, path.name)
    except ome.Unusable as reason:
        said.append(f"its OME metadata are not used: {reason}")
        stack, _ = images.stack([path], wanted.channel)
        return Recording(ome.stem(path), stack, None, {}, provenance={"layout": "OME-TIFF", "warnings": said})
    chosen = ome.choose(layout.places, layout.channels, wanted.channel, path)
    stack, _ = images.stack([path], None if layout.channels else wanted.channel)
    optics = layout.optics({layout.places[n][0] for n in chosen}, said)
    sizes = "".join(f" {axis}{size}" for axis, size in zip("CZT", layout.sizes, strict=True))
    about: dict[str, Any] = {"layout": f"OME-TIFF,{sizes}"} | ({"warnings": said} if said else {})
    return Recording(ome.stem(path), stack[[layout.pages[n] for n in chosen]], None, optics, provenance=about)
