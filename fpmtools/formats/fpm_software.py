"""The data of FPM_software (Zhou, Caltech), MATLAB v5 or v7.3.

Intensities ``imlow`` [y, x, led]; LED directions ``NA_list`` [led, (x, y)], direction sines with the opposite sign of
ours; ``NA`` of the objective, ``lambda`` and the camera's pixel ``dpix_c`` in µm, ``mag``.
"""

from __future__ import annotations

from fpmtools.formats.fpm_inr import directions
from fpmtools.formats.matfile import MatFile
from fpmtools.formats.recording import Recording, led_first
from fpmtools.leds import Board

IMAGES = "imlow"
KEYS = (IMAGES, "NA_list", "NA", "dpix_c", "lambda", "mag")
_OPTICS = {"wavelength_um": "lambda", "na": "NA", "magnification": "mag", "camera_pixel_um": "dpix_c"}


def interpret(mat: MatFile) -> Recording:
    """Intensities, and the LEDs and numbers of the microscope that the file has."""
    leds = Board(-directions(mat, "NA_list")) if "NA_list" in mat.names else None
    images = led_first(mat, IMAGES, None if leds is None else leds.images)
    optics = {ours: mat.number(theirs) for ours, theirs in _OPTICS.items() if theirs in mat.names}
    return Recording(mat.path.stem, images, leds, optics, provenance={"layout": "FPM_software (imlow, NA_list)"})
