"""Simulated measurements with a known truth: a blood-smear-like sample, thin or tilted, LED patterns, photon noise.

Everything here is NumPy float64 and is written without :class:`fpmtools.forward.ForwardModel`, so that testing one
against the other means something. Unlike there, the pupil and not the spectrum is shifted, by exact sub-pixel amounts,
and a sample may have another depth in each column.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray

from fpmtools.dataset import Dataset, Truth
from fpmtools.errors import DataError, OptionError, unknown
from fpmtools.leds import direction_sines, raster, rings
from fpmtools.optics import Optics, Shape
from fpmtools.phantom import blood_smear

SAMPLES = ("tilted", "thin")

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
    defocus_um: float = 0.0,
    on_grid: bool = False,
    photons: float | None = None,
    read_noise: float = 0.0,
    seed: int = 0,
) -> Dataset:
    """Images of a blood-smear-like sample whose complex transmission and depth are known.

    Parameters
    ----------
    sample
        ``"tilted"``: the sample plane is inclined, so that column x of the truth lies at
        z = ``defocus_um`` + linspace(−``tilt_um``, +``tilt_um``); ``"thin"``: all of it lies at ``defocus_um``.
    image_shape
        Shape (y, x) of one image, in camera pixels.
    upsample
        Pixels of the truth per camera pixel along each axis.
    leds
        ``"rings"`` (68 LEDs inside the objective's NA, as published), ``"grid"`` (11 × 11 LEDs of 4 mm pitch, the
        outer ones dark field), or direction sines [led, (x, y)].
    optics
        The microscope, or some numbers that replace those of the published blood-smear system.
    tilt_um, defocus_um
        Depths in µm, see ``sample``. A positive z multiplies the spectrum by exp(+i k_z z).
    on_grid
        Move each LED to the nearest one whose spectrum shift is a whole number of frequency samples.
    photons
        Mean number of photons per camera pixel in the bright-field images; None for noiseless images.
    read_noise
        Standard deviation of the camera's read noise, in photons; needs ``photons``.
    seed
        Chooses the sample and, independently of it, the noise.

    Returns
    -------
    Dataset
        ``intensities`` float32 [led, y, x], 1 where the sample is clear and the light direct; ``na`` the direction
        sines that were used; ``truth`` the sample; ``provenance`` all arguments.

    Raises
    ------
    OptionError
        For an unknown name or a value out of range.
    DataError
        For LEDs or optics that cannot work.
    """
    arguments = {
        "sample": sample,
        "image_shape": [int(n) for n in image_shape],
        "upsample": upsample,
        "leds": leds if isinstance(leds, str) else np.asarray(leds).tolist(),
        "tilt_um": tilt_um,
        "defocus_um": defocus_um,
        "on_grid": on_grid,
        "photons": photons,
        "read_noise": read_noise,
        "seed": seed,
    }
    _check(arguments)
    (h, w), tilt = image_shape, tilt_um if sample == "tilted" else 0.0
    system = _system(optics)
    na = _directions(leds, system, upsample)
    if on_grid:
        step = system.wavelength_um / (np.array([w, h]) * system.pixel_um)
        na = np.rint(na / step) * step
    shape = (h * upsample, w * upsample)
    field = blood_smear(shape, system.pixel_um / upsample, seed).astype(np.complex64)
    intensities = image_intensities(field, system, na, (h, w), defocus_um=defocus_um, tilt_um=tilt)
    if photons is not None:
        bright = np.linalg.norm(na, axis=1) <= system.na
        intensities = _expose(intensities, bright, photons, read_noise, seed)
    depth = np.broadcast_to(column_depths_um(shape[1], defocus_um, tilt), shape).astype(np.float32)
    return Dataset(
        intensities=intensities.astype(np.float32),
        na=na,
        optics=system,
        name=f"sim:{sample}",
        defocus_um=None if tilt else defocus_um,
        truth=Truth(field, depth),
        provenance={"source": "fpmtools.simulate", "arguments": {**arguments, "optics": system.to_dict()}},
    ).validate()


def column_depths_um(width: int, defocus_um: float, tilt_um: float) -> NDArray[np.float64]:
    """Depth z of each of ``width`` columns, µm: evenly from ``defocus_um − tilt_um`` to ``defocus_um + tilt_um``."""
    return np.linspace(defocus_um - tilt_um, defocus_um + tilt_um, width)


def image_intensities(
    field: NDArray[np.complexfloating],
    optics: Optics,
    na: NDArray[np.float64],
    image_shape: Shape,
    *,
    defocus_um: float = 0.0,
    tilt_um: float = 0.0,
) -> NDArray[np.float64]:
    """Noiseless intensities [led, y, x] of a sample that repeats, and keeps sloping, outside the field of view.

    Parameters
    ----------
    field
        Transmission [Y, X] over the field of view of the images; column x lies at :func:`column_depths_um`.
    optics, na
        The microscope and the direction sines [led, (x, y)].
    image_shape
        Shape (y, x) of the images.

    Notes
    -----
    The sample is an inclined plane z(x) = z_0 + s x on which the field is transmission times illumination, exactly.
    Diffraction order q of the periodic sample then is one plane wave, of the pupil frequency f that solves

        f_y = q_y − na_y/λ,   f_x − s k_z(f)/2π = q_x − na_x/λ − s k_zi/2π,

    where k_zi is k_z of the illuminating wave, and it arrives with the phase k_z(f) z_0. The image is the sum of the
    orders that the pupil passes. Without a tilt this is the crop of the spectrum around +na/λ times P exp(i k_z z_0);
    with or without, a clear sample has amplitude 1 in every bright-field image. An image of a tilted sample does not
    repeat itself along x, just as a measured one.
    """
    (rows, columns), (h, w) = field.shape, image_shape
    orders = np.asarray(scipy.fft.fft2(field.astype(np.complex128), axes=(-2, -1), norm="forward"))
    extent = np.array([w, h]) * optics.pixel_um
    z = column_depths_um(columns, defocus_um, tilt_um)
    slope = float(z[-1] - z[0]) / (extent[0] * (columns - 1) / columns)
    intensities = np.empty((len(na), h, w))
    for i, shift in enumerate(na / optics.wavelength_um):
        incident = float(optics.axial_wavenumber(shift[1], shift[0])) / (2 * np.pi)
        steepest = math.sqrt((optics.medium_index / optics.wavelength_um) ** 2 - optics.cutoff**2)
        reach = optics.cutoff + abs(slope) * (optics.medium_index / optics.wavelength_um - min(steepest, incident))
        mx = _orders(shift[0], reach, extent[0], columns)
        my = _orders(shift[1], optics.cutoff, extent[1], rows)
        fy = my[:, None] / extent[1] - shift[1]
        fx = _tilted_frequency(fy, mx[None, :] / extent[0] - shift[0] - slope * incident, slope, optics)
        passed = np.hypot(fy, fx) <= optics.cutoff * (1 + 1e-12)
        fx = np.where(passed, fx, 0)
        defocus = np.exp(1j * optics.axial_wavenumber(fy, fx) * z[0])
        waves = np.where(passed, orders[np.ix_(my % rows, mx % columns)] * defocus, 0)
        lines = np.zeros((h, w), complex)
        # A common plane wave, taken out along both axes, leaves the intensity as it is.
        lines[(my - round(shift[1] * extent[1])) % h] = _plane_waves(waves, (fx + shift[0]) * optics.pixel_um, w)
        intensities[i] = np.abs(np.asarray(scipy.fft.ifft(lines, axis=0, norm="forward"))) ** 2
    return intensities


def _orders(shift: float, reach: float, extent_um: float, samples: int) -> NDArray[np.int_]:
    """Orders of one axis within ``reach`` (cycles per µm) of ``shift`` that a grid of ``samples`` can hold."""
    low = max(math.ceil((shift - reach) * extent_um), -(samples // 2))
    high = min(math.floor((shift + reach) * extent_um), (samples - 1) // 2)
    return np.arange(low, high + 1)


def _tilted_frequency(
    fy: NDArray[np.float64], v: NDArray[np.float64], slope: float, optics: Optics
) -> NDArray[np.float64]:
    """The f_x that solves f_x − slope · sqrt((n/λ)² − f_y² − f_x²) = v; NaN where no wave does."""
    squared = (1 + slope**2) * ((optics.medium_index / optics.wavelength_um) ** 2 - fy**2) - v**2
    with np.errstate(invalid="ignore"):
        return np.asarray((v + slope * np.sqrt(squared)) / (1 + slope**2))


def _plane_waves(waves: NDArray[np.complex128], cycles: NDArray[np.float64], width: int) -> NDArray[np.complex128]:
    """Σ_m waves[k, m] exp(2πi cycles[k, m] x) for x = 0 … ``width`` − 1, as [k, x].

    With x = a + A b each exponential is a product of two short ones, which turns the sum into a matrix product.
    """
    inner = math.isqrt(width - 1) + 1
    outer = -(-width // inner)
    fine = np.exp(2j * np.pi * cycles[..., None] * np.arange(inner))
    coarse = np.exp(2j * np.pi * cycles[..., None] * (inner * np.arange(outer)))
    blocks = (waves[..., None] * coarse).swapaxes(1, 2) @ fine
    return np.asarray(blocks.reshape(len(waves), -1)[:, :width])


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
    if arguments["sample"] not in SAMPLES:
        raise unknown("sample", str(arguments["sample"]), SAMPLES)
    photons, read_noise, shape = arguments["photons"], arguments["read_noise"], arguments["image_shape"]
    if len(shape) != 2 or min(shape) < 8:
        raise OptionError(f"simulate: image_shape must be (y, x), at least 8 × 8, got {shape}")
    for name, least in (("upsample", 1), ("seed", 0)):
        if not isinstance(arguments[name], int | np.integer) or arguments[name] < least:
            raise OptionError(f"simulate: {name} must be a whole number of at least {least}, got {arguments[name]}")
    for name in ("tilt_um", "defocus_um"):
        if not math.isfinite(arguments[name]):
            raise OptionError(f"simulate: {name} must be a finite number of µm, got {arguments[name]}")
    if photons is not None and not 0 < photons <= 1e15:
        raise OptionError(f"simulate: photons must be positive and at most 1e15, got {photons:g}")
    if not 0 <= read_noise < math.inf or (read_noise and photons is None):
        raise OptionError(f"simulate: read_noise is in photons, at least 0, and needs photons; got {read_noise:g}")


def _system(optics: Optics | Mapping[str, float] | None) -> Optics:
    if isinstance(optics, Optics):
        return optics
    numbers = OPTICS.to_dict()
    for name, value in (optics or {}).items():
        if name not in numbers:
            raise unknown("optics value", name, numbers)
        numbers[name] = value
    return Optics(**numbers)


def _directions(leds: str | ArrayLike, optics: Optics, upsample: int) -> NDArray[np.float64]:
    """Direction sines [led, (x, y)] that the medium lets through and the truth's pixels can hold."""
    if isinstance(leds, str):
        if leds not in PATTERNS:
            raise unknown("LED pattern", leds, PATTERNS)
        na = direction_sines(PATTERNS[leds], LED_HEIGHT_MM)
    else:
        na = np.array(leds, dtype=np.float64)
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
