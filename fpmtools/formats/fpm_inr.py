"""The data of the FPM-INR paper (Zhou et al., Optica 10, 1679, 2023), of APIC (Cao et al., Nat. Commun. 15, 4713, 2024)
and of others who store theirs the same way.

MATLAB v5 or v7.3, plain or in a struct ``saved_data``. Intensities ``I_low`` [y, x, led]; ``na_cal``, ``mag``, the
camera's pixel ``dpix_c`` and, sometimes, ``lambda``, both in µm. LED directions are ``na_calib`` [led, (x, y)],
direction sines with the opposite sign of ours; or else ``freqXY_calib`` [led, (x, y)], with the same sign in pixels of
the image's spectrum, in which the objective's NA is ``na_rp_cal``. Those are relative to the axis, or count from 1, the
axis being n // 2 + 1: whichever brings the bright images nearer to it. The thyroid samples hold only ``I``, 225 images
of a 15 × 15 board lit row by row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fpmtools import leds
from fpmtools.errors import DataError
from fpmtools.formats.chunks import ChunkedImages
from fpmtools.formats.matfile import MatFile
from fpmtools.formats.recording import Recording, led_first, nearest_to_axis
from fpmtools.images import Images
from fpmtools.leds import Board

IMAGES, BARE_IMAGES = "I_low", "I"
KEYS = (IMAGES, BARE_IMAGES, "na_calib", "freqXY_calib", "na_rp_cal", "na_cal", "mag", "dpix_c", "lambda")

_OPTICS = {"wavelength_um": "lambda", "na": "na_cal", "magnification": "mag", "camera_pixel_um": "dpix_c"}

# The thyroid system of the paper; only LEDs within 7 pitches of the centre were used.
_BOARD, _PITCH_MM, _HEIGHT_MM, _RADIUS_MM = 15, 4.0, 66.0, 28.0
_THYROID = {"na": 0.40, "magnification": 20.0, "camera_pixel_um": 5.5}


def interpret(mat: MatFile) -> Recording:
    """Intensities, and the LEDs and numbers of the microscope that the file has."""
    if IMAGES not in mat.names and BARE_IMAGES in mat.names:
        return _bare(mat)
    board, layout = None, "FPM-INR (I_low, na_calib)"
    if "na_calib" in mat.names:
        board = Board(-directions(mat, "na_calib"))
    images = led_first(mat, IMAGES, None if board is None else board.images)
    if board is None and "freqXY_calib" in mat.names:
        na, counted = _from_pixels(mat, images)
        board, layout = Board(na), f"APIC (I_low, freqXY_calib {counted})"
    optics = {ours: mat.number(theirs) for ours, theirs in _OPTICS.items() if theirs in mat.names}
    return Recording(mat.path.stem, images, board, optics, provenance={"layout": layout})


def directions(mat: MatFile, key: str) -> NDArray[np.float64]:
    """The variable ``key`` as [led, (x, y)]."""
    found = np.atleast_2d(mat.array(key))
    if found.dtype.kind not in "iuf" or found.ndim != 2 or found.shape[1] != 2:
        raise DataError(f"{mat.path.name}: {key} must be [led, (x, y)], got {found.dtype} {found.shape}")
    return found.astype(np.float64)


def _from_pixels(mat: MatFile, images: NDArray[np.generic] | ChunkedImages) -> tuple[NDArray[np.float64], str]:
    """Direction sines from ``freqXY_calib``, and how it was counted."""
    mat.need("na_rp_cal", "na_cal")
    pixels = directions(mat, "freqXY_calib")
    height, width = images.shape[1:]
    if height != width:
        raise DataError(
            f"{mat.path.name}: freqXY_calib and na_rp_cal are in pixels of a square image's spectrum, and these images "
            f"are {height} × {width}: give the LED positions with leds"
        )
    if len(pixels) != len(images):
        raise DataError(f"{mat.path.name}: {len(images)} images but {len(pixels)} pairs in freqXY_calib")
    radius = mat.number("na_rp_cal")
    if not radius > 0:
        raise DataError(f"{mat.path.name}: na_rp_cal must be a positive number of pixels, got {radius:g}")
    ways = {"relative to the axis": pixels, "counted from 1": pixels - (width // 2 + 1)}
    counted = nearest_to_axis(ways, images)
    return -ways[counted] / radius * mat.number("na_cal"), counted


def _bare(mat: MatFile) -> Recording:
    """Images without geometry: that of the thyroid system when there are as many as its board has LEDs."""
    images = led_first(mat, BARE_IMAGES)
    if len(images) != _BOARD**2:
        return Recording(mat.path.stem, images, None, {}, provenance={"layout": "images only (I)"})
    positions = leds.raster(_BOARD, _BOARD, _PITCH_MM)
    used = np.flatnonzero(np.hypot(*positions.T) < _RADIUS_MM)
    return Recording(
        mat.path.stem,
        Images.of(images).select(used),
        leds.at(positions[used], _HEIGHT_MM),
        _THYROID,
        provenance={"layout": "FPM-INR thyroid (I); geometry and microscope as published", "leds_used": used.tolist()},
    )
