"""Simulated data sets by name: ``sim:tilted``, ``sim:bars+noise+tile``, ``sim:twin-siemens``, ``sim:thin@96x128``.

A name is ``sim:SAMPLE``, then any ``+VARIANT``, then ``@HEIGHTxWIDTH``, the size of one image in camera pixels, or
``@N`` of an image of N × N.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fpmtools.errors import OptionError, unknown

if TYPE_CHECKING:
    from fpmtools.dataset import Dataset
    from fpmtools.optics import Shape

PREFIX = "sim:"
SMALLEST, LARGEST = 8, 16384  # camera pixels a side

# Variant → what it adds to the arguments of `simulate`.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "noise": ("500 photons per bright-field pixel, read noise of 2", {"photons": 500.0, "read_noise": 2.0}),
    "tile": ("the middle of a field twice as wide: light crosses the borders", {"surround": 2}),
    "misaligned": ("LEDs 0.012 NA off the nominal positions", {"misaligned_na": 0.012}),
    "aberrated": ("unknown pupil with 0.7 rad rms of aberrations", {"aberration_rad": 0.7}),
    "vignetted": ("corners that lose 60 % of the light, each LED's elsewhere", {"vignetting": 0.6}),
}


def entries() -> dict[str, str]:
    """Every name without a variant, and what it is."""
    from fpmtools.simulation import SAMPLES

    samples = {f"{PREFIX}{name}": title for name, title in SAMPLES.items()}
    return samples | {f"{PREFIX}{name}": title for name, (title, _) in _twins().items()}


def make(name: str, **changes: Any) -> Dataset:
    """Simulate the data set of this name (with or without ``sim:``).

    ``changes`` replace arguments of :func:`fpmtools.simulation.simulate`, such as ``seed``. Raises
    :class:`OptionError` for an unknown sample or variant, with the nearest that exists, and for a size that is none.
    """
    from fpmtools.simulation import SAMPLES, simulate

    full = PREFIX + name.removeprefix(PREFIX)
    stem, at, size = full.removeprefix(PREFIX).partition("@")
    sample, *variants = stem.split("+")
    twins = _twins()
    if sample in twins:
        arguments = dict(twins[sample][1])
    elif sample in SAMPLES:
        arguments = {"sample": sample}
    else:
        raise unknown("simulated sample", sample, [*SAMPLES, *twins])
    for variant in variants:
        if variant not in VARIANTS:
            raise unknown(f"variant of {PREFIX}{sample}", variant, VARIANTS)
        arguments |= VARIANTS[variant][1]
    if at:
        height, width = arguments["image_shape"] = _shape(full, size)
        full = f"{PREFIX}{stem}@{height}x{width}"
    return replace(simulate(**(arguments | changes)), name=full)


def _shape(full: str, size: str) -> Shape:
    """Height and width that are written after the @ of a name."""
    found = re.fullmatch(r"([0-9]{1,5})(?:x([0-9]{1,5}))?", size)
    shape = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not (min(shape) >= SMALLEST and max(shape) <= LARGEST):
        raise OptionError(
            f"{full}: the size after @ must be HEIGHTxWIDTH, or N of both, from {SMALLEST} to {LARGEST} camera pixels, "
            "such as @96x128 or @128"
        )
    return shape


def _twins() -> Mapping[str, tuple[str, dict[str, Any]]]:
    """Simulations with the optics, the LEDs and the sizes of the five published samples (Optica 10, 1679, 2023).

    What only the data files tell is assumed: the objective's NA of 0.25 and the LEDs of the three 2-D samples (68
    NA-matched ones for the smear and the section, and a disc of 145 up to the synthetic NA 0.75 for the star).
    """
    from fpmtools.leds import direction_sines, raster, rings

    grid = raster(15, 15, 1.0)
    disc = grid[np.hypot(*grid.T) < 7]
    red = {"wavelength_um": 0.632, "na": 0.25}
    matched = direction_sines(rings((1, 6, 13, 20, 28), 4.795 * 0.25 / 0.256), 74.0)
    flat = {"image_shape": (512, 512), "upsample": 2, "optics": red, "leds": matched}
    thyroid = {"wavelength_um": 0.5226, "na": 0.4, "magnification": 20, "camera_pixel_um": 5.5}
    return {
        "twin-blood-smear": (
            "twin of BloodSmearTilt: 1024 × 1024, 68 LEDs, z −20 … 20 µm",
            {"sample": "tilted", "image_shape": (1024, 1024), "tilt_um": 20.0, "optics": {"wavelength_um": 0.522}},
        ),
        "twin-thyroid": (
            "twin of Thyroid: 20×, NA 0.4, 1024 × 1024, 145 LEDs, z −10 … 20 µm",
            {
                "sample": "thick",
                "image_shape": (1024, 1024),
                "optics": thyroid,
                "leds": direction_sines(4.0 * disc, 66.0),
                "thickness_um": 30.0,
                "defocus_um": 5.0,
            },
        ),
        "twin-siemens": (
            "twin of Siemens: 512 × 512, 145 LEDs with dark field, synthetic NA 0.75",
            {**flat, "sample": "siemens", "upsample": 3, "leds": 0.5 * disc / np.hypot(*disc.T).max()},
        ),
        "twin-sheepblood": ("twin of sheepblood: 512 × 512, 68 LEDs, one plane", {**flat, "sample": "thin"}),
        "twin-wu1005": ("twin of WU1005, unstained: 512 × 512, 68 LEDs, one plane", {**flat, "sample": "phase"}),
    }
