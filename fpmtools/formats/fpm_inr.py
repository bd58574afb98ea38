"""The data of the FPM-INR paper (Zhou et al., Optica 10, 1679, 2023) and of others who store theirs the same way.

Two layouts, MATLAB v5 or v7.3. The usual one holds intensities ``I_low`` [y, x, led], LED directions ``na_calib``
[led, (x, y)] with the opposite sign of ours, and the microscope, but not the wavelength. The thyroid samples hold
only ``I``, 225 images of a 15 × 15 board lit row by row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fpmtools import leds
from fpmtools.errors import DataError
from fpmtools.formats.matfile import MatFile
from fpmtools.formats.recording import Recording, led_first

IMAGES, BARE_IMAGES = "I_low", "I"
KEYS = (IMAGES, BARE_IMAGES, "na_calib", "na_cal", "mag", "dpix_c", "lambda")

_OPTICS = {"wavelength_um": "lambda", "na": "na_cal", "magnification": "mag", "camera_pixel_um": "dpix_c"}

# The thyroid system of the paper; only LEDs within 7 pitches of the centre were used.
_BOARD, _PITCH_MM, _HEIGHT_MM, _RADIUS_MM = 15, 4.0, 66.0, 28.0
_THYROID = {"na": 0.40, "magnification": 20.0, "camera_pixel_um": 5.5}


def interpret(mat: MatFile) -> Recording:
    """Intensities, and the LEDs and numbers of the microscope that the file has."""
    if IMAGES not in mat.names and BARE_IMAGES in mat.names:
        return _bare(mat)
    images = led_first(mat.array(IMAGES), mat.path.name, IMAGES)
    na = _directions(mat) if "na_calib" in mat.names else None
    optics = {ours: mat.number(theirs) for ours, theirs in _OPTICS.items() if theirs in mat.names}
    return Recording(mat.path.stem, images, na, optics, provenance={"layout": "FPM-INR (I_low, na_calib)"})


def _directions(mat: MatFile) -> NDArray[np.float64]:
    directions = np.atleast_2d(mat.array("na_calib"))
    if directions.dtype.kind not in "iuf" or directions.ndim != 2 or directions.shape[1] != 2:
        raise DataError(f"{mat.path.name}: na_calib must be [led, (x, y)], got {directions.dtype} {directions.shape}")
    return -directions.astype(np.float64)


def _bare(mat: MatFile) -> Recording:
    """Images without geometry: that of the thyroid system when there are as many as its board has LEDs."""
    images = led_first(mat.array(BARE_IMAGES), mat.path.name, BARE_IMAGES)
    if len(images) != _BOARD**2:
        return Recording(mat.path.stem, images, None, {}, provenance={"layout": "images only (I)"})
    positions = leds.raster(_BOARD, _BOARD, _PITCH_MM)
    used = np.flatnonzero(np.hypot(*positions.T) < _RADIUS_MM)
    return Recording(
        mat.path.stem,
        images[used],
        leds.direction_sines(positions[used], _HEIGHT_MM),
        _THYROID,
        provenance={"layout": "FPM-INR thyroid (I); geometry and microscope as published", "leds_used": used.tolist()},
    )
