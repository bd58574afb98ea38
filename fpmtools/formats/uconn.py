"""The University of Connecticut's Fourier ptychography data (SmartImagingLabUConn), MATLAB v5 or v7.3.

The file holds the **amplitude** of the low-resolution field. The microscope is not in the file but in the data's
description: a 2× objective of NA 0.1 whose pixels are 1.845 µm on the sample, and a board of LEDs 4 mm apart, 90.88 mm
below a glass slide of 1 mm, lit in an outward spiral.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fpmtools import leds
from fpmtools.errors import DataError
from fpmtools.formats.light import Light
from fpmtools.formats.matfile import MatFile
from fpmtools.formats.recording import Recording, led_first
from fpmtools.images import Images

IMAGES = "imlow_HDR"
KEYS = (IMAGES, "wlength", "z", "theta", "xint", "yint", "aberration")

_OPTICS = {"na": 0.1, "magnification": 2.0, "camera_pixel_um": 3.69}
_PITCH_MM, _HEIGHT_MM = 4.0, 90.88
_SLIDE_MM, _SLIDE_INDEX = 1.0, 1.52


def interpret(mat: MatFile) -> Recording:
    """Intensities (the squared amplitude), LEDs seen through the slide, defocus, and the pupil if there is one."""
    mat.need(*KEYS)
    amplitude = Images.of(led_first(mat, IMAGES), mat.path.stem)
    positions = leds.spiral(len(amplitude), _PITCH_MM) + np.array([mat.number("xint"), mat.number("yint")])
    turn = math.radians(mat.number("theta"))
    x, y = positions.T
    positions = np.stack([x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)], axis=1)
    na = through_slide(positions)
    return Recording(
        mat.path.stem,
        Images.of(Light(amplitude, squared=True)),
        leds.Board(na, height_mm=np.full(len(na), _HEIGHT_MM)),
        {**_OPTICS, "wavelength_um": mat.number("wlength") * 1e6},
        pupil=_pupil(mat, amplitude.image_shape),
        defocus_um=mat.number("z") * 1e6,
        provenance={"layout": "UConn (amplitudes, squared on reading)"},
    )


def through_slide(positions_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Direction sines of LEDs at ``positions_mm`` [led, (x, y)] whose light is refracted by the slide.

    The slide shifts the point where a ray enters by d = t tan θ_glass towards the LED, so the ray comes in at the angle
    of an LED nearer by d: sin θ = (l − d) / sqrt((l − d)² + h²), sin θ_glass = sin θ / n. Solved by fixed-point steps.
    """
    distance = np.hypot(*positions_mm.T)
    shift = np.zeros_like(distance)
    for _ in range(20):  # each step gains two digits or more
        sine = (distance - shift) / np.hypot(distance - shift, _HEIGHT_MM)
        shift = _SLIDE_MM * np.tan(np.arcsin(sine / _SLIDE_INDEX))
    direction = positions_mm / np.where(distance > 0, distance, 1.0)[:, None]
    return np.asarray(sine[:, None] * direction)


def _pupil(mat: MatFile, shape: tuple[int, ...]) -> NDArray[np.complex64] | None:
    pupil = mat.array("aberration")
    if pupil.size == 1 and not pupil.any():  # how these files say that there is none
        return None
    if pupil.shape != shape or not np.isfinite(pupil).all():
        raise DataError(f"{mat.path.name}: aberration must be a finite pupil of {shape}, got shape {pupil.shape}")
    return pupil.astype(np.complex64)
