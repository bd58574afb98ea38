"""OME-TIFF: channels with names and units, micrometres, the z of each plane, and a pyramid in sub-IFDs.

Pages are in the order z, channel, in tiles where the image is large. The file is laid out first, at its full size, and
then filled region by region, all channels of it at once, so that nothing is rendered twice. The numbers are those of
the OME 2016-06 schema: lengths in µm, ``PositionZ`` on each plane, so that uneven z are exact. Read, such a file is a
stack of measured images.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np
from numpy.typing import NDArray

import fpmtools
from fpmtools.errors import DataError, printable
from fpmtools.formats import images, ome
from fpmtools.formats.recording import Recording, Wanted
from fpmtools.formats.volume import Volume
from fpmtools.optics import Shape

TILE = 256  # pixels; a plane that is no larger has no tiles and no pyramid
_SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_BIG_BYTES = 2**32 - 2**26  # beyond, offsets need BigTIFF, which all readers of OME-TIFF know


def write(path: Path, volume: Volume) -> None:
    """The channels of a volume as float32 pages in the order z, channel."""
    shapes, channels = volume.levels(TILE), len(volume.channels)
    tile = (TILE, TILE) if len(shapes) > 1 else volume.shape
    places = _lay_out(path, volume, shapes)

    with path.open("r+b") as file:
        for plane, level, y, x, values in volume.regions(TILE, volume.block(TILE)):
            across = -(-shapes[level][1] // tile[1])
            for number, channel in enumerate(values):
                page = places[level][plane * channels + number]
                for row, column, part in _tiles(channel, tile):
                    file.seek(page[(y // tile[0] + row) * across + x // tile[1] + column])
                    file.write(part.tobytes())


def _lay_out(path: Path, volume: Volume, shapes: Sequence[Shape]) -> list[list[Sequence[int]]]:
    """A file of zeros, so that a disk that is too small is known of at once.

    Returns where each tile begins, [level][page][tile].
    """
    import tifffile

    pages = len(volume.z_um) * len(volume.channels)
    size = sum(4 * pages * math.prod(-(-n // TILE) * TILE for n in shape) for shape in shapes)
    tiled: dict[str, Any] = {"tile": (TILE, TILE)} if len(shapes) > 1 else {"rowsperstrip": shapes[0][0]}
    with tifffile.TiffWriter(path, ome=False, byteorder="<", bigtiff=size > _BIG_BYTES) as tiff:
        for level, shape in enumerate(shapes):
            scale = 1e4 / 2**level  # pixels of a level in a centimetre
            kind = {"subfiletype": 1} if level else {"subifds": len(shapes) - 1, "description": _document(volume)}
            count = math.prod(-(-n // TILE) for n in shape) if len(shapes) > 1 else 1
            empty = np.broadcast_to(np.float32(0), (TILE, TILE) if len(shapes) > 1 else shape)
            tiff.write(
                itertools.repeat(empty, pages * count),
                shape=(len(volume.z_um), len(volume.channels), *shape),
                dtype=np.float32,
                photometric="minisblack",
                resolution=(scale / volume.pixel_um[1], scale / volume.pixel_um[0]),
                resolutionunit="CENTIMETER",
                metadata=None,
                **tiled | kind,
            )
    with tifffile.TiffFile(path) as file:
        return [[page.dataoffsets for page in level.pages if page is not None] for level in file.series[0].levels]


def _tiles(values: NDArray[np.float32], tile: Shape) -> list[tuple[int, int, NDArray[np.float32]]]:
    """The tiles (row, column, [y, x]) of a part, little-endian; at the ends they are filled up with zeros."""
    found = []
    for row, y in enumerate(range(0, values.shape[0], tile[0])):
        for column, x in enumerate(range(0, values.shape[1], tile[1])):
            whole, part = np.zeros(tile, "<f4"), values[y : y + tile[0], x : x + tile[1]]
            whole[: part.shape[0], : part.shape[1]] = part
            found.append((row, column, whole))
    return found


def _document(volume: Volume) -> bytes:
    """The metadata as OME-XML of schema 2016-06, in UTF-8. Not by tifffile: of its versions not all escape names."""
    z_um, channels, um = volume.z_um, volume.channels, "µm"
    known = "" if volume.wavelength_um is None else f"; wavelength {1e3 * volume.wavelength_um:g} nm"
    contents = "; ".join(f"{channel.label}: {channel.content}" for channel in channels)
    root = Element("OME", {"xmlns": _SCHEMA, "Creator": f"fpmtools {fpmtools.__version__}"})
    image = SubElement(root, "Image", {"ID": "Image:0", "Name": volume.name})
    SubElement(image, "Description").text = f"Fourier ptychography; {contents}{known}"
    sizes = {"X": volume.shape[1], "Y": volume.shape[0], "Z": len(z_um), "C": len(channels), "T": 1}
    physical = {"X": volume.pixel_um[1], "Y": volume.pixel_um[0], "Z": volume.spacing_um}
    about = {"ID": "Pixels:0", "DimensionOrder": "XYCZT", "Type": "float"}
    about |= {f"Size{axis}": str(size) for axis, size in sizes.items()}
    for axis, size in physical.items():
        about |= {} if size is None else {f"PhysicalSize{axis}": repr(float(size)), f"PhysicalSize{axis}Unit": um}
    pixels = SubElement(image, "Pixels", about)
    for c, channel in enumerate(channels):
        name = {"ID": f"Channel:0:{c}", "Name": channel.label, "SamplesPerPixel": "1"}
        name |= {"IlluminationType": "Transmitted"}
        if channel.wavelength_um is not None:
            name |= {"EmissionWavelength": repr(1e3 * channel.wavelength_um), "EmissionWavelengthUnit": "nm"}
        if channel.colour is not None:  # as a signed number of four bytes, the last of them opacity
            shade = int(channel.colour + "FF", 16)
            name |= {"Color": str(shade - 2**32 if shade >= 2**31 else shade)}
        SubElement(pixels, "Channel", name)
    SubElement(pixels, "TiffData", {"IFD": "0", "PlaneCount": str(len(z_um) * len(channels))})
    for z, position in enumerate(z_um):
        for c in range(len(channels)):
            place = {"TheC": str(c), "TheZ": str(z), "TheT": "0"}
            SubElement(pixels, "Plane", place | {"PositionZ": repr(float(position)), "PositionZUnit": um})
    return bytes(tostring(root, encoding="utf-8", xml_declaration=True))


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
    return Recording(ome.stem(path), stack.select([layout.pages[n] for n in chosen]), None, optics, provenance=about)
