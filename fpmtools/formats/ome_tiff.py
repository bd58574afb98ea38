"""OME-TIFF: channels with names and units, micrometres, the z of each plane, and a pyramid in sub-IFDs.

Written page after page in the order z, channel, in tiles where the image is large; each plane is rendered once. The
numbers are those of the OME 2016-06 schema: lengths in µm, ``PositionZ`` on each plane, so that uneven z are exact.
Read, such a file is a stack of measured images.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np
from numpy.typing import NDArray

import fpmtools
from fpmtools import storage
from fpmtools.errors import DataError, printable
from fpmtools.formats import images, ome
from fpmtools.formats.recording import Recording, Wanted
from fpmtools.formats.volume import Volume, halved, levels
from fpmtools.optics import Shape

TILE = 256  # pixels; a plane that is no larger has no tiles and no pyramid
_SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
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

    with tifffile.TiffWriter(path, ome=False, bigtiff=size > _BIG_BYTES) as tiff:
        for k, shape in enumerate(shapes):
            scale = 1e4 / 2**k  # pixels of a level in a centimetre
            tiff.write(
                _parts(smaller[k - 1], shape) if k else _parts(_pages(volume, smaller), shape, bool(smaller)),
                shape=(len(volume.z_um), len(volume.channels), *shape),
                resolution=(scale / volume.pixel_um[1], scale / volume.pixel_um[0]),
                resolutionunit="CENTIMETER",
                metadata=None,
                **(how | ({"subfiletype": 1} if k else {"subifds": len(smaller), "description": _document(volume)})),
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
