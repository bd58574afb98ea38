"""Simulated measurements with a known truth: samples flat and deep, LED patterns, noise, and what goes wrong in labs.

Everything here is NumPy float64 and independent of :class:`fpmtools.forward.ForwardModel`; see ``imaging``.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fpmtools import phantom
from fpmtools.dataset import Dataset, Truth
from fpmtools.errors import DataError, OptionError, expect, unknown
from fpmtools.imaging import (
    column_depths_um,
    image_intensities,
    multislice_intensities,
    vignetting_gain,
    zernike_phase,
)
from fpmtools.leds import direction_sines, raster, rings
from fpmtools.optics import Optics, Shape

SAMPLES = {
    "tilted": "blood smear on an inclined plane: every column has its own depth",
    "thin": "blood smear in one plane",
    "phase": "unstained blood smear: phase only, amplitude 1",
    "bars": "three-bar elements of known period, as on the USAF 1951 chart",
    "siemens": "Siemens star",
    "layers": "two layers of cells at different depths, imaged coherently one through the other",
    "thick": "cells throughout a volume, imaged by multislice through 16 slices",
}
SLICES = {"layers": 2, "thick": 16}

# The published blood-smear system (Optica 10, 1679, 2023): 10×, NA 0.256 as calibrated, 68 NA-matched LEDs at 74 mm.
OPTICS = Optics(wavelength_um=0.5226, na=0.256, magnification=10, camera_pixel_um=3.45)
LED_HEIGHT_MM = 74.0
PATTERNS = {"rings": rings((1, 6, 13, 20, 28), 4.795), "grid": raster(11, 11, 4.0)}


def simulate(
    sample: str = "tilted",
    *,
    image_shape: Shape = (64, 64),
    upsample: int = 2,
    leds: str | ArrayLike = "rings",
    optics: Optics | Mapping[str, float] | None = None,
    tilt_um: float = 10.0,
    thickness_um: float = 20.0,
    defocus_um: float = 0.0,
    on_grid: bool = False,
    surround: int = 1,
    aberration_rad: float = 0.0,
    misaligned_na: float = 0.0,
    vignetting: float = 0.0,
    photons: float | None = None,
    read_noise: float = 0.0,
    seed: int = 0,
) -> Dataset:
    """Images of a sample whose complex transmission and depth are known.

    Parameters
    ----------
    sample
        One of :data:`SAMPLES`.
    image_shape
        Shape (y, x) of one image, in camera pixels.
    upsample
        Pixels of the truth per camera pixel along each axis.
    leds
        ``"rings"`` (68 LEDs inside the objective's NA, as published), ``"grid"`` (11 × 11 LEDs of 4 mm pitch, the
        outer ones dark field), or direction sines [led, (x, y)].
    optics
        The microscope, or some numbers that replace those of the published blood-smear system.
    tilt_um, thickness_um, defocus_um
        Depths in µm: column x of ``tilted`` lies at ``defocus_um`` + linspace(−``tilt_um``, +``tilt_um``); the slices
        of ``layers`` and ``thick`` spread over ``thickness_um`` around ``defocus_um``; all else lies at
        ``defocus_um``. A positive z multiplies the spectrum by exp(+i k_z z).
    on_grid
        Move each LED to the nearest one whose spectrum shift is a whole number of frequency samples.
    surround
        The images are the middle of a field this many times as wide and high: the sample no longer repeats, and light
        crosses the borders. 1 for a sample that repeats.
    aberration_rad
        Rms phase over the pupil of random astigmatism, coma and spherical aberration, which the data set does not
        tell (``provenance["actual"]`` does).
    misaligned_na
        The LEDs stand elsewhere than the data set says: all of them by this much in one random direction, and each by
        a third of it at random. Where they stood is in ``provenance["actual"]``.
    vignetting
        Share of the light that the corners lose, see :func:`fpmtools.imaging.vignetting_gain`; below 1.
    photons
        Mean number of photons per camera pixel in the bright-field images; None for noiseless images.
    read_noise
        Standard deviation of the camera's read noise, in photons; needs ``photons``.
    seed
        Chooses the sample and, independently of it, the noise, the aberration and the misalignment.

    Returns
    -------
    Dataset
        ``images`` float32 [led, y, x], 1 where the sample is clear and the light direct; ``na`` the direction
        sines, nominal ones if misaligned; ``truth`` the sample; ``provenance`` all arguments.

        For ``layers`` and ``thick``, a pixel's ``truth.depth_um`` is that of the slice whose cell is nearest, and
        ``truth.field`` is the product of all slices. That is what ``field(z)`` should show of a cell in focus as far
        as the slices above and below are clear there; the blurred light that they send through it is not part of the
        truth, so that no solver with one plane per z can reach it exactly.

    Raises
    ------
    OptionError
        For an unknown name, a value of the wrong kind or out of range.
    DataError
        For LEDs or optics that cannot work.

    Examples
    --------
    >>> fpmtools.simulate("tilted", image_shape=(64, 80), tilt_um=5)
    Dataset 'sim:tilted'
      images  68 of 64 × 80 pixels, 22.08 × 27.6 µm
      optics  10×, NA 0.256, 0.5226 µm, pixel 0.345 µm
      LEDs    68 to NA 0.251, 68 images bright field; synthetic NA 0.507
      z       11 planes, −5 … 5 µm
      truth   128 × 160 pixels, depth −5 … 5 µm
    >>> fpmtools.simulate(image_shape="64")
    Traceback (most recent call last):
    ...
    fpmtools.errors.OptionError: simulate: image_shape must be two whole numbers (y, x), such as (64, 80), got...
    """
    expect(image_shape, (tuple, list), "simulate: image_shape", "two whole numbers (y, x), such as (64, 80)")
    for n in image_shape:
        expect(n, numbers.Integral, "simulate: image_shape", "two whole numbers (y, x), such as (64, 80)")
    arguments = {
        "sample": sample,
        "image_shape": [int(n) for n in image_shape],
        "upsample": upsample,
        "leds": leds if isinstance(leds, str) else np.asarray(leds).tolist(),
        "tilt_um": tilt_um,
        "thickness_um": thickness_um,
        "defocus_um": defocus_um,
        "on_grid": on_grid,
        "surround": surround,
        "aberration_rad": aberration_rad,
        "misaligned_na": misaligned_na,
        "vignetting": vignetting,
        "photons": photons,
        "read_noise": read_noise,
        "seed": seed,
    }
    _check(arguments)
    (h, w), system = image_shape, _system(optics)
    na = _directions(leds, system, upsample)
    if on_grid:
        step = system.wavelength_um / (np.array([w, h]) * system.pixel_um)
        na = np.rint(na / step) * step
    lit = _misalign(na, misaligned_na, seed) if misaligned_na else na
    aberrations = _aberrations(aberration_rad, seed) if aberration_rad else {}
    wide = (h * surround, w * surround)
    # The tilt is that of the tile; the plane keeps its slope around it.
    steeper = (wide[1] * upsample - 1) / (w * upsample - 1)
    scene = _scene(arguments, wide, system, tilt_um * steeper)
    intensities = _images(scene, system, lit, wide, aberrations)
    y, x = ((surround - 1) * n // 2 for n in (h, w))
    intensities = intensities[:, y : y + h, x : x + w]
    if vignetting:
        intensities = intensities * vignetting_gain((h, w), lit, system, vignetting)
    if photons is not None:
        bright = np.linalg.norm(na, axis=1) <= system.na
        intensities = _expose(intensities, bright, photons, read_noise, seed)
    tile = np.s_[y * upsample : (y + h) * upsample, x * upsample : (x + w) * upsample]
    provenance: dict[str, Any] = {
        "source": "fpmtools.simulate",
        "arguments": {**arguments, "optics": system.to_dict()},
        **scene.notes,
    }
    if misaligned_na or aberrations:
        provenance["actual"] = {"na": lit.tolist(), "aberrations_rad": aberrations}
    return Dataset.from_arrays(
        intensities.astype(np.float32),
        na,
        system,
        name=f"sim:{sample}",
        defocus_um=defocus_um if np.ptp(scene.depth_um) == 0 else None,
        truth=Truth(scene.transmission[tile].copy(), scene.depth_um[tile].astype(np.float32)),
        provenance=provenance,
    ).validate()


@dataclass(frozen=True)
class _Scene:
    """A sample: complex64 slices [slice, Y, X] at ``z_um``, the depth [Y, X] that counts for each pixel, and notes.

    Only a single slice can be tilted, by ± ``tilt_um`` around its z.
    """

    slices: NDArray[np.complex64]
    z_um: NDArray[np.float64]
    depth_um: NDArray[np.float64]
    tilt_um: float = 0.0
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def transmission(self) -> NDArray[np.complex64]:
        return np.asarray(np.prod(self.slices, axis=0, dtype=np.complex128).astype(np.complex64))


def _scene(arguments: Mapping[str, Any], image_shape: Shape, optics: Optics, tilt_um: float) -> _Scene:
    """The sample that the arguments of :func:`simulate` ask for, over the field of view of ``image_shape`` pixels."""
    sample, up, z, seed = (arguments[name] for name in ("sample", "upsample", "defocus_um", "seed"))
    shape, pixel_um = (image_shape[0] * up, image_shape[1] * up), optics.pixel_um / up
    notes: dict[str, Any] = {}
    if sample in SLICES:
        slices, nearest = phantom.blood_slices(shape, pixel_um, SLICES[sample], seed)
        depths = z + arguments["thickness_um"] * np.linspace(-0.5, 0.5, len(slices))
        return _Scene(slices, depths, depths[nearest])
    if sample == "bars":
        transmission, elements = phantom.bars(shape, pixel_um)
        notes["elements"] = [dataclasses.asdict(element) for element in elements]
    elif sample == "siemens":
        transmission = phantom.siemens_star(shape, pixel_um)
        notes["spokes"] = phantom.SPOKES
    else:
        transmission = phantom.blood_smear(shape, pixel_um, seed)
        if sample == "phase":
            transmission = np.exp(1j * np.angle(transmission))
    tilt = tilt_um if sample == "tilted" else 0.0
    depth = np.broadcast_to(column_depths_um(shape[1], z, tilt), shape)
    return _Scene(transmission.astype(np.complex64)[None], np.array([float(z)]), depth, tilt, notes)


def _images(
    scene: _Scene, optics: Optics, na: NDArray[np.float64], image_shape: Shape, aberrations: dict[str, float]
) -> NDArray[np.float64]:
    aberration = zernike_phase(optics, aberrations) if aberrations else None
    if len(scene.slices) > 1:
        return multislice_intensities(scene.slices, scene.z_um, optics, na, image_shape, aberration=aberration)
    return image_intensities(
        scene.slices[0],
        optics,
        na,
        image_shape,
        defocus_um=float(scene.z_um[0]),
        tilt_um=scene.tilt_um,
        aberration=aberration,
    )


def _misalign(na: NDArray[np.float64], by: float, seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng([seed, 2])
    direction = rng.uniform(0, 2 * np.pi)
    return np.asarray(na + by * np.array([np.cos(direction), np.sin(direction)]) + by / 3 * rng.normal(size=na.shape))


def _aberrations(rms_rad: float, seed: int) -> dict[str, float]:
    rng = np.random.default_rng([seed, 3])
    sizes = rng.normal(size=5)
    sizes *= rms_rad / np.linalg.norm(sizes)
    names = ("astigmatism_0", "astigmatism_45", "coma_x", "coma_y", "spherical")
    return dict(zip(names, sizes.tolist(), strict=True))


def _expose(
    intensities: NDArray[np.float64], bright: NDArray[np.bool_], photons: float, read_noise: float, seed: int
) -> NDArray[np.float64]:
    """Photon and read noise, back in the units of ``intensities``."""
    if not bright.any():
        raise DataError("simulate: photons counts bright-field light, and every LED is dark field; add a bright one")
    rng = np.random.default_rng([seed, 1])
    scale = photons / intensities[bright].mean()
    counts = rng.poisson(intensities * scale) + read_noise * rng.standard_normal(intensities.shape)
    return np.asarray(counts / scale)


def _check(arguments: Mapping[str, Any]) -> None:
    """Refuse values out of range."""
    expect(arguments["sample"], str, "simulate: sample", f"one of {', '.join(SAMPLES)}")
    if arguments["sample"] not in SAMPLES:
        raise unknown("sample", str(arguments["sample"]), SAMPLES)
    for name in (
        "tilt_um",
        "thickness_um",
        "defocus_um",
        "aberration_rad",
        "misaligned_na",
        "vignetting",
        "read_noise",
    ):
        expect(arguments[name], numbers.Real, f"simulate: {name}", "a number")
    photons, read_noise, shape = arguments["photons"], arguments["read_noise"], arguments["image_shape"]
    expect(photons, (numbers.Real, type(None)), "simulate: photons", "a number, or None")
    if len(shape) != 2 or min(shape) < 8:
        raise OptionError(f"simulate: image_shape must be (y, x), at least 8 × 8, got {shape}")
    for name, least in (("upsample", 1), ("surround", 1), ("seed", 0)):
        if not isinstance(arguments[name], int | np.integer) or arguments[name] < least:
            raise OptionError(f"simulate: {name} must be a whole number of at least {least}, got {arguments[name]}")
    for name in ("tilt_um", "defocus_um"):
        if not math.isfinite(arguments[name]):
            raise OptionError(f"simulate: {name} must be a finite number of µm, got {arguments[name]}")
    most = {"thickness_um": 1e4, "aberration_rad": 100.0, "misaligned_na": 0.5, "vignetting": 0.95}
    for name, limit in most.items():
        if not 0 <= arguments[name] <= limit:
            raise OptionError(f"simulate: {name} must lie in 0 … {limit:g}, got {arguments[name]}")
    if photons is not None and not 0 < photons <= 1e15:
        raise OptionError(f"simulate: photons must be positive and at most 1e15, got {photons:g}")
    if not 0 <= read_noise < math.inf or (read_noise and photons is None):
        raise OptionError(f"simulate: read_noise is in photons, at least 0, and needs photons; got {read_noise:g}")


def _system(optics: Optics | Mapping[str, float] | None) -> Optics:
    if isinstance(optics, Optics):
        return optics
    expect(optics or {}, Mapping, "simulate: optics", "an Optics, or some of its numbers by name")
    return Optics.of({**OPTICS.to_dict(), **(optics or {})})


def _directions(leds: str | ArrayLike, optics: Optics, upsample: int) -> NDArray[np.float64]:
    """Direction sines [led, (x, y)] that the medium lets through and the truth's pixels can hold."""
    if isinstance(leds, str):
        if leds not in PATTERNS:
            raise unknown("LED pattern", leds, PATTERNS)
        na = direction_sines(PATTERNS[leds], LED_HEIGHT_MM)
    else:
        try:
            na = np.array(leds, dtype=np.float64)
        except (TypeError, ValueError):
            raise OptionError(
                f"simulate: leds must be one of {', '.join(PATTERNS)}, or numbers [led, (x, y)]"
            ) from None
    if na.ndim != 2 or na.shape[1] != 2 or len(na) == 0:
        raise DataError(f"simulate: leds must be direction sines [led, (x, y)], got an array of shape {na.shape}")
    if not (np.linalg.norm(na, axis=1) < optics.medium_index).all():
        raise DataError(
            f"simulate: every LED's |NA| must be below the medium's index {optics.medium_index:g}, and finite"
        )
    steepest = optics.synthetic_na(na)
    needed = 2 * steepest * optics.pixel_um / optics.wavelength_um
    if upsample < needed * (1 - 1e-9):
        raise OptionError(
            f"simulate: upsample {upsample} is too small for synthetic NA {steepest:.3g}: use {math.ceil(needed)}"
        )
    return na
