"""The data of PtyLab (Loetgering et al., Opt. Express 31, 13763, 2023) for Fourier ptychography: HDF5, in metres.

Flat: intensities ``ptychogram`` [led, y, x], LED positions ``encoder`` [led, (y, x)] at the height ``zled``,
``wavelength``, the camera's pixel ``dxd``, ``magnification``, ``NA``. Sectioned: the same below ``section{n}``, with
LED positions ``positions_led`` [led, (y, x)] at the height ``zo``, or else ``positions`` [led, (y, x)], in samples of
the spectrum: the corners of the images' windows of ``Nd`` in an object spectrum of ``No``, or the windows' middles
relative to the axis, whichever brings the bright images nearer to it. ``dxp`` is the pixel on the object, ``num_apert``
the NA. One section is one region of the field.

PtyLab moves its windows against the encoder, −p / sqrt(|p|² + h²) / λ, and its images are the forward transforms of
their spectra, which mirrors the object: in our convention an LED's direction sines are +p / sqrt(|p|² + h²), and a
window's are those of its middle with the opposite sign.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from fpmtools import leds
from fpmtools.errors import DataError, OptionError, unknown
from fpmtools.formats import matfile
from fpmtools.formats.chunks import ChunkedImages
from fpmtools.formats.folder import natural_key
from fpmtools.formats.matfile import MatFile
from fpmtools.formats.recording import Recording, nearest_to_axis
from fpmtools.leds import Board

IMAGES = "ptychogram"
KEYS = (IMAGES, "encoder", "wavelength", "dxd", "zled", "magnification", "NA")
_SECTION_KEYS = ("positions", "positions_led", "wavelength", "zo", "dxd", "dxp", "num_apert", "Nd", "No")
_SECTION = re.compile(rf"(section\w*)/{IMAGES}")
_UM = 1e6
_LENGTHS = {"wavelength_um": ("wavelength", _UM), "camera_pixel_um": ("dxd", _UM)}
_FLAT = {**_LENGTHS, "magnification": ("magnification", 1.0), "na": ("NA", 1.0)}
_SECTIONED = {**_LENGTHS, "na": ("num_apert", 1.0)}


def sections(mat: MatFile) -> list[str]:
    """Names of the groups that hold a ``ptychogram``, in natural order."""
    return sorted((match[1] for name in mat.shapes if (match := _SECTION.fullmatch(name))), key=natural_key)


def interpret(mat: MatFile, key: str | None = None) -> Recording:
    """Intensities, LEDs and numbers of the microscope; ``key`` chooses one of several sections."""
    if IMAGES in mat.names:
        if key is not None:
            raise OptionError(f"{mat.path.name}: holds one ptychogram; leave out the key {key!r}")
        return _flat(mat)
    found = sections(mat)
    if not found:
        mat.need(IMAGES)
    if key is not None and key not in found:
        raise unknown(f"key in {mat.path.name}:", key, found)
    if key is None and len(found) > 1:
        raise OptionError(f"{mat.path}: has {len(found)} sections; choose one with key: {', '.join(found[:8])}")
    return _section(mat, key or found[0])


def _flat(mat: MatFile) -> Recording:
    board = _board(mat, "encoder", "zled") if {"encoder", "zled"} <= {*mat.names} else None
    optics = {ours: mat.number(theirs) * unit for ours, (theirs, unit) in _FLAT.items() if theirs in mat.names}
    return Recording(mat.path.stem, _images(mat, IMAGES), board, optics, provenance={"layout": "PtyLab (ptychogram)"})


def _section(mat: MatFile, section: str) -> Recording:
    """What a section holds; what it lacks is looked for at the top of the file."""
    wanted = [f"{section}/{IMAGES}", *_SECTION_KEYS, *(f"{section}/{name}" for name in _SECTION_KEYS)]
    mat = matfile.read(mat.path, wanted)
    at = {name: place for name in _SECTION_KEYS for place in (name, f"{section}/{name}") if place in mat.names}
    images = _images(mat, f"{section}/{IMAGES}")
    optics = {ours: mat.number(at[theirs]) * unit for ours, (theirs, unit) in _SECTIONED.items() if theirs in at}
    if "dxp" in at:
        pixel_um = mat.number(at["dxp"]) * _UM
        optics.setdefault("camera_pixel_um", pixel_um)
        if pixel_um > 0:
            optics["magnification"] = optics["camera_pixel_um"] / pixel_um
    board = None
    if {"positions_led", "zo"} <= at.keys():
        board = _board(mat, at["positions_led"], at["zo"])
    elif {"positions", "Nd", "No", "dxp", "wavelength"} <= at.keys():
        window, spectrum = mat.number(at["Nd"]), mat.number(at["No"])
        places = _pairs(mat, at["positions"])
        if len(places) != len(images):
            raise DataError(f"{mat.path.name}: {len(images)} images but {len(places)} pairs in {at['positions']}")
        ways = {"corners": places + window // 2 - spectrum // 2, "middles": places}
        middle = ways[nearest_to_axis(ways, images)]
        step = mat.number(at["wavelength"]) / (window * mat.number(at["dxp"]))
        board = Board(-middle * step)
    layout = {"layout": f"PtyLab ({section}/ptychogram)"}
    return Recording(f"{mat.path.stem} {section}", images, board, optics, provenance=layout)


def _images(mat: MatFile, key: str) -> NDArray[np.generic] | ChunkedImages:
    images = mat.images(key)
    if mat.matlab:  # axes were turned round on reading
        images = images.transpose()
    if images.ndim != 3 or images.dtype.kind not in "iuf":
        raise DataError(f"{mat.path.name}: {key} must be [led, y, x], got {images.dtype} of shape {images.shape}")
    return images


def _board(mat: MatFile, positions: str, height: str) -> Board:
    height_m = mat.number(height)
    if not height_m > 0:
        raise DataError(f"{mat.path.name}: {height} must be a positive height in metres, got {height_m:g}")
    return leds.at(_pairs(mat, positions) * 1e3, height_m * 1e3)


def _pairs(mat: MatFile, key: str) -> NDArray[np.float64]:
    """[led, (x, y)] of an array [led, (y, x)]."""
    values = mat.array(key).transpose() if mat.matlab else mat.array(key)
    if values.ndim != 2 or values.shape[1] != 2 or values.dtype.kind not in "iuf":
        raise DataError(f"{mat.path.name}: {key} must be [led, (y, x)], got {values.dtype} of shape {values.shape}")
    return values[:, ::-1].astype(np.float64)
