"""How a microscope images a known sample, in NumPy float64: tilted planes, many slices, aberrations, vignetting.

Written without :class:`fpmtools.forward.ForwardModel`, so that testing one against the other means something. Unlike
there, the pupil and not the spectrum is shifted, by exact sub-pixel amounts, and a sample may have depth.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from fpmtools.optics import Optics, Shape

Array = NDArray[np.float64]
Phase = Callable[[Array, Array], Array]  # of the pupil in rad, at the frequencies fy, fx


def column_depths_um(width: int, defocus_um: float, tilt_um: float) -> Array:
    """Depth z of each of ``width`` columns, µm: evenly from ``defocus_um − tilt_um`` to ``defocus_um + tilt_um``."""
    return np.linspace(defocus_um - tilt_um, defocus_um + tilt_um, width)


def image_intensities(
    field: NDArray[np.complexfloating],
    optics: Optics,
    na: Array,
    image_shape: Shape,
    *,
    defocus_um: float = 0.0,
    tilt_um: float = 0.0,
    aberration: Phase | None = None,
) -> Array:
    """Noiseless intensities [led, y, x] of a plane sample that repeats, and keeps sloping, outside the field of view.

    Parameters
    ----------
    field
        Transmission [Y, X] over the field of view of the images; column x lies at :func:`column_depths_um`.
    optics, na
        The microscope and the direction sines [led, (x, y)].
    image_shape
        Shape (y, x) of the images.
    aberration
        Phase of the pupil, see :func:`zernike_phase`.

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
    columns = field.shape[1]
    orders = np.asarray(scipy.fft.fft2(field.astype(np.complex128), axes=(-2, -1), norm="forward"))
    z = column_depths_um(columns, defocus_um, tilt_um)
    slope = float(z[-1] - z[0]) / (image_shape[1] * optics.pixel_um * (columns - 1) / columns)
    shifts = na / optics.wavelength_um
    return np.stack([_image(orders, optics, s, image_shape, float(z[0]), slope, aberration) for s in shifts])


def multislice_intensities(
    slices: NDArray[np.complexfloating],
    depths_um: Array,
    optics: Optics,
    na: Array,
    image_shape: Shape,
    *,
    aberration: Phase | None = None,
) -> Array:
    """Noiseless intensities [led, y, x] of thin slices one behind the other; they repeat outside the field of view.

    Parameters
    ----------
    slices
        Transmissions [slice, Y, X] over the field of view of the images.
    depths_um
        Depth z of each slice. Light meets the greatest z first: a positive z is that much farther from the objective.

    Notes
    -----
    Coherent multislice: the wave is multiplied by a slice's transmission and propagated to the next by the exact
    angular spectrum, waves that do not propagate being dropped; what leaves the last slice is refocused to z = 0.
    Forward scattering only (Cowley & Moodie, Acta Cryst. 10, 609, 1957). One slice gives :func:`image_intensities`.
    """
    order = np.argsort(depths_um)[::-1]
    rows, columns = slices.shape[1:]
    pixel_y, pixel_x = image_shape[0] * optics.pixel_um / rows, image_shape[1] * optics.pixel_um / columns
    qy, qx = np.fft.fftfreq(rows, pixel_y)[:, None], np.fft.fftfreq(columns, pixel_x)[None, :]
    images = []
    for shift in na / optics.wavelength_um:
        # The illuminating plane wave is left out of the wave, and comes back as a shift of its frequencies.
        axial = optics.axial_wavenumber(qy - shift[1], qx - shift[0])
        wave = slices[order[0]].astype(np.complex128)
        for here, there in itertools.pairwise(order):
            step = np.where(axial > 0, np.exp(1j * axial * (depths_um[here] - depths_um[there])), 0)
            spectrum = scipy.fft.fft2(wave, axes=(-2, -1)) * step
            wave = np.asarray(scipy.fft.ifft2(spectrum, axes=(-2, -1))) * slices[there]
        orders = np.asarray(scipy.fft.fft2(wave, axes=(-2, -1), norm="forward"))
        images.append(_image(orders, optics, shift, image_shape, float(depths_um[order[-1]]), 0.0, aberration))
    return np.stack(images)


def zernike_phase(optics: Optics, coefficients_rad: dict[str, float]) -> Phase:
    """Phase of an aberrated pupil: a sum of Zernike polynomials, each coefficient its rms over the pupil in rad.

    Names: astigmatism_0, astigmatism_45, coma_x, coma_y, spherical (Noll, JOSA 66, 207, 1976, Z6, Z5, Z8, Z7, Z11).
    """

    def phase(fy: Array, fx: Array) -> Array:
        rho, angle = np.hypot(fy, fx) / optics.cutoff, np.arctan2(fy, fx)
        modes = {
            "astigmatism_0": math.sqrt(6) * rho**2 * np.cos(2 * angle),
            "astigmatism_45": math.sqrt(6) * rho**2 * np.sin(2 * angle),
            "coma_x": math.sqrt(8) * (3 * rho**3 - 2 * rho) * np.cos(angle),
            "coma_y": math.sqrt(8) * (3 * rho**3 - 2 * rho) * np.sin(angle),
            "spherical": math.sqrt(5) * (6 * rho**4 - 6 * rho**2 + 1),
        }
        return np.asarray(sum(size * modes[name] for name, size in coefficients_rad.items()), dtype=np.float64)

    return phase


def vignetting_gain(image_shape: Shape, na: Array, optics: Optics, strength: float) -> Array:
    """Share of the light that reaches each camera pixel, [led, y, x].

    1 − ``strength`` · |r − d|² / 2, with r from −1 to 1 across the image, so that the axial LED's corners lose
    ``strength``; each LED's brightest spot d lies off the middle by half of its NA over the objective's.
    """
    y, x = (np.linspace(-1, 1, n) for n in image_shape)
    spot = np.clip(na / optics.na, -1, 1) / 2
    away = (y[:, None] - spot[:, 1, None, None]) ** 2 + (x - spot[:, 0, None, None]) ** 2
    return np.asarray(np.maximum(1 - strength * away / 2, 0.02))


def _image(
    orders: NDArray[np.complex128],
    optics: Optics,
    shift: Array,
    image_shape: Shape,
    first_z_um: float,
    slope: float,
    aberration: Phase | None,
) -> Array:
    """Intensity [y, x] of one LED from the diffraction orders [Y, X] of a sample at z = ``first_z_um`` + slope · x."""
    (rows, columns), (h, w) = orders.shape, image_shape
    extent = np.array([w, h]) * optics.pixel_um
    incident = float(optics.axial_wavenumber(shift[1], shift[0])) / (2 * np.pi)
    steepest = math.sqrt((optics.medium_index / optics.wavelength_um) ** 2 - optics.cutoff**2)
    reach = optics.cutoff + abs(slope) * (optics.medium_index / optics.wavelength_um - min(steepest, incident))
    mx = _orders(shift[0], reach, extent[0], columns)
    my = _orders(shift[1], optics.cutoff, extent[1], rows)
    fy = my[:, None] / extent[1] - shift[1]
    fx = _tilted_frequency(fy, mx[None, :] / extent[0] - shift[0] - slope * incident, slope, optics)
    passed = np.hypot(fy, fx) <= optics.cutoff * (1 + 1e-12)
    fx = np.where(passed, fx, 0)
    phase = optics.axial_wavenumber(fy, fx) * first_z_um
    if aberration is not None:
        phase = phase + aberration(np.broadcast_to(fy, fx.shape), fx)
    waves = np.where(passed, orders[np.ix_(my % rows, mx % columns)] * np.exp(1j * phase), 0)
    lines = np.zeros((h, w), complex)
    # A common plane wave, taken out along both axes, leaves the intensity as it is.
    lines[(my - round(shift[1] * extent[1])) % h] = _plane_waves(waves, (fx + shift[0]) * optics.pixel_um, w)
    return np.asarray(np.abs(np.asarray(scipy.fft.ifft(lines, axis=0, norm="forward"))) ** 2)


def _orders(shift: float, reach: float, extent_um: float, samples: int) -> NDArray[np.int_]:
    """Orders of one axis within ``reach`` (cycles per µm) of ``shift`` that a grid of ``samples`` can hold."""
    low = max(math.ceil((shift - reach) * extent_um), -(samples // 2))
    high = min(math.floor((shift + reach) * extent_um), (samples - 1) // 2)
    return np.arange(low, high + 1)


def _tilted_frequency(fy: Array, v: Array, slope: float, optics: Optics) -> Array:
    """The f_x that solves f_x − slope · sqrt((n/λ)² − f_y² − f_x²) = v; NaN where no wave does."""
    squared = (1 + slope**2) * ((optics.medium_index / optics.wavelength_um) ** 2 - fy**2) - v**2
    with np.errstate(invalid="ignore"):
        return np.asarray((v + slope * np.sqrt(squared)) / (1 + slope**2))


def _plane_waves(waves: NDArray[np.complex128], cycles: Array, width: int) -> NDArray[np.complex128]:
    """Σ_m waves[k, m] exp(2πi cycles[k, m] x) for x = 0 … ``width`` − 1, as [k, x].

    With x = a + A b each exponential is a product of two short ones, which turns the sum into a matrix product.
    """
    inner = math.isqrt(width - 1) + 1
    outer = -(-width // inner)
    fine = np.exp(2j * np.pi * cycles[..., None] * np.arange(inner))
    coarse = np.exp(2j * np.pi * cycles[..., None] * (inner * np.arange(outer)))
    blocks = (waves[..., None] * coarse).swapaxes(1, 2) @ fine
    return np.asarray(blocks.reshape(len(waves), -1)[:, :width])
