"""What OME metadata say of a stack of images, as XML in a TIFF; and what OME-TIFF and OME-Zarr have in common."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from fpmtools.errors import OptionError, printable, unknown

UM = {
    "nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6, "Å": 1e-4, "pm": 1e-6,
    "nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6, "angstrom": 1e-4,
}  # fmt: skip
MOST_PLANES = 20_000
_XML_LIMIT = 1 << 26  # characters
_SAME = 1e-3  # relative difference of pixels' sides that are taken as one

Place = tuple[int, int, int]  # channel, z, time


class Unusable(Exception):
    """Why metadata are not used."""


def stem(path: Path) -> str:
    """The name of a file or folder without its suffixes, such as ``.ome.tiff``."""
    return re.sub(r"(\.ome)?\.[A-Za-z0-9]+$", "", path.name) or path.name


def choose(places: Sequence[Place], channels: Sequence[str], asked: str | int | None, path: Path) -> list[int]:
    """Which planes are the images: all, or those of the channel that is ``asked`` for by name or number.

    ``places`` [plane] of each; ``channels`` their names where there are several. Raises :class:`OptionError` where
    there are several and several planes of each, and none is named, or it is not there.
    """
    if asked is None or not channels:
        if channels and len(places) > len(channels):
            known = printable(", ".join(channels))
            raise OptionError(f"{path}: has {len(channels)} channels; choose one by name or number: {known}")
        return list(range(len(places)))
    names = [*map(str, range(len(channels))), *channels]
    if str(asked) not in names:
        raise unknown(f"channel in {path.name}:", str(asked), channels)
    number = names.index(str(asked)) % len(channels)
    return [n for n, place in enumerate(places) if place[0] == number]


def pixel_um(y: float | None, x: float | None, said: list[str]) -> dict[str, float]:
    """The pixel on the object where its sides, in µm, are known and the same; else nothing, which is ``said``."""
    if y is None or x is None:
        return {}
    if not (0 < y < math.inf and math.isclose(x, y, rel_tol=_SAME)):
        said.append(f"the pixel size is not used: {y:g} × {x:g} µm (y, x)")
        return {}
    return {"pixel_um": x}


@dataclass(frozen=True)
class Layout:
    """The first image of a document.

    ``places`` of its planes in their order, and the ``pages`` of the file that hold them; ``sizes`` (C, Z, T);
    ``channels``: their names, where there are several.
    """

    root: ElementTree.Element
    places: list[Place]
    pages: list[int]
    sizes: Place
    channels: list[str]

    @classmethod
    def parse(cls, text: str, pages: int, file: str) -> Layout:
        """From OME-XML in a ``file`` of so many ``pages``; :class:`Unusable` where it is no such document."""
        if len(text) > _XML_LIMIT or re.search(r"<!(DOCTYPE|ENTITY)", text):
            raise Unusable("too large, or with definitions of its own")
        try:
            root = ElementTree.fromstring(text.encode())
            for element in root.iter():  # whatever version of the schema
                element.tag = element.tag.rpartition("}")[2]
            pixels = next(root.iter("Pixels"))
            c, z, t = (int(pixels.attrib[f"Size{axis}"]) for axis in "CZT")
            order = pixels.attrib["DimensionOrder"][2:]
            samples = {int(found.get("SamplesPerPixel", 1)) for found in pixels.iter("Channel")} or {1}
            names = [found.get("Name") or f"channel {k}" for k, found in enumerate(pixels.iter("Channel"))]
            sizes = (c // max(samples), z, t)
            if sorted(order) != ["C", "T", "Z"] or min(sizes) < 1 or math.prod(sizes) > MOST_PLANES:
                raise Unusable(f"planes of {sizes}")
            places = _places(sizes, order)
            where = _pages(pixels, places, file)
        except StopIteration:
            raise Unusable("they describe no image") from None
        except (ElementTree.ParseError, KeyError, ValueError, RecursionError) as error:
            raise Unusable(printable(f"{type(error).__name__}: {error}", 100)) from None
        if max(where) >= pages:
            raise Unusable(f"they speak of page {max(where)}, and there are {pages} pages")
        return cls(root, places, where, sizes, (names if len(names) == sizes[0] else []) if sizes[0] > 1 else [])

    def optics(self, channels: Collection[int], said: list[str]) -> dict[str, float]:
        """Numbers of the microscope, of the images of these ``channels``; what cannot be used is ``said``."""
        pixels = next(self.root.iter("Pixels"))
        found = pixel_um(_length(pixels, "PhysicalSizeY"), _length(pixels, "PhysicalSizeX"), said)
        objectives = list(self.root.iter("Objective"))
        if len(objectives) == 1:
            for name, key in (("LensNA", "na"), ("NominalMagnification", "magnification")):
                if (value := _number(objectives[0].get(name))) is not None and value > 0:
                    found[key] = value
        elements = list(pixels.iter("Channel"))
        waves = {_wavelength(elements[k]) for k in channels if k < len(elements)}
        if len(waves) == 1 and (wave := waves.pop()) is not None:
            found["wavelength_um"] = wave
        return found


def _places(sizes: Place, order: str) -> list[Place]:
    """All planes in the order in which they are counted, the first letter of ``order`` running fastest."""
    size = dict(zip("CZT", sizes, strict=True))
    counted = itertools.product(*(range(size[axis]) for axis in reversed(order)))
    named = (dict(zip(reversed(order), numbers, strict=True)) for numbers in counted)
    return [(place["C"], place["Z"], place["T"]) for place in named]


def _pages(pixels: ElementTree.Element, places: list[Place], file: str) -> list[int]:
    """The page of each plane."""
    found: dict[int, int] = {}
    number = {place: n for n, place in enumerate(places)}
    for data in pixels.iter("TiffData"):
        if any(other.get("FileName") not in (None, file) for other in data.iter("UUID")):
            raise Unusable("they speak of other files too, which are not followed: give their folder")
        first = int(data.get("FirstC", 0)), int(data.get("FirstZ", 0)), int(data.get("FirstT", 0))
        start, page = number[first], int(data.get("IFD", 0))
        count = int(data.get("PlaneCount", 1 if "IFD" in data.attrib else len(places)))
        if page < 0 or not 0 < count <= len(places) - start:
            raise Unusable("they count more planes than there are")
        found |= {start + k: page + k for k in range(count)}
    if not found:
        return list(range(len(places)))
    if len(found) < len(places):
        raise Unusable("they do not say where all planes are")
    return [found[n] for n in range(len(places))]


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _length(element: ElementTree.Element, name: str, unit: str = "µm") -> float | None:
    """An attribute in µm; None where there is none, or in a unit that is no length."""
    value, factor = _number(element.get(name)), UM.get(element.get(f"{name}Unit", unit))
    return None if value is None or factor is None else value * factor


def _wavelength(channel: ElementTree.Element) -> float | None:
    for name in ("EmissionWavelength", "ExcitationWavelength"):
        if value := _length(channel, name, "nm"):
            return value
    return None
