"""The forward model once more, in float64 NumPy, from the formula alone: nothing here is shared with fpmtools.

A plain discrete Fourier sum is evaluated at the exact frequencies the model asks for, so neither grids, shifts nor FFT
order can hide a common mistake.
"""

from __future__ import annotations

import math

import numpy as np


def low_field(
    field,
    pixel_um,
    na_led,
    wavelength_um,
    na,
    z_um,
    image_shape,
    *,
    medium_index=1.0,
    pupil=None,
    edge=0,
    subpixel=True,
):
    """Complex low-resolution field [h, w] of one LED: object [H, W] over a field of view of H · pixel_um.

    ``pupil(y, x)`` multiplies inside the aperture, y and x in units of its radius; ``edge`` is the width of a soft edge
    in cycles/µm.
    """
    height, width = field.shape
    h, w = image_shape
    extent_y, extent_x = height * pixel_um[0], width * pixel_um[1]
    # r = 0 sits in the first pixel; image pixels are coarser samples of the same field of view.
    y, x = np.arange(height) * pixel_um[0], np.arange(width) * pixel_um[1]
    led_x, led_y = na_led[0] / wavelength_um, na_led[1] / wavelength_um
    near_y, near_x = np.rint(led_y * extent_y) / extent_y, np.rint(led_x * extent_x) / extent_x
    rest_y, rest_x = (led_y - near_y, led_x - near_x) if subpixel else (0.0, 0.0)
    fy = np.array([k - h // 2 for k in range(h)]) / extent_y
    fx = np.array([k - w // 2 for k in range(w)]) / extent_x
    spectrum = (
        np.exp(-2j * np.pi * np.outer(fy + near_y, y)) @ field @ np.exp(-2j * np.pi * np.outer(x, fx + near_x))
    ) / (height * width)
    gy, gx = (fy - rest_y)[:, None], (fx - rest_x)[None, :]
    radius, cutoff = np.sqrt(gy**2 + gx**2), na / wavelength_um
    kz = 2 * np.pi * np.sqrt(np.maximum((medium_index / wavelength_um) ** 2 - gy**2 - gx**2, 0))
    inside = radius <= cutoff * (1 + 1e-12) if edge == 0 else 1 / (1 + np.exp((radius - cutoff) / edge))
    transfer = inside * np.exp(1j * kz * z_um)
    if pupil is not None:
        transfer = transfer * pupil(*np.broadcast_arrays(gy / cutoff, gx / cutoff))
    spectrum = spectrum * transfer
    # Only the image rows and columns that the camera has.
    ry, rx = np.arange(h) * extent_y / h, np.arange(w) * extent_x / w
    return np.exp(2j * np.pi * np.outer(ry, fy)) @ spectrum @ np.exp(2j * np.pi * np.outer(fx, rx))


def amplitudes(fields, gain, patterns, background):
    """Amplitudes [image, h, w] from the fields [led, h, w] of all LEDs; ``background`` [image, h or 1, w or 1]."""
    intensity = np.einsum("il,l,lyx->iyx", patterns, gain, np.abs(fields) ** 2) + background
    return np.sqrt(intensity)


def stray_light(levels, pictures, place, y, x):
    """Σ levels[i, r] · picture r at rows ``y`` and columns ``x`` of the camera: straight between the cells' middles."""
    (top, left, height, width), (_, rows, columns) = place, pictures.shape
    middle_y = top - 0.5 + (np.arange(rows) + 0.5) * height / rows
    middle_x = left - 0.5 + (np.arange(columns) + 0.5) * width / columns
    down = np.array([[np.interp(y, middle_y, column) for column in picture.T] for picture in pictures])
    maps = np.array([[np.interp(x, middle_x, row) for row in picture.T] for picture in down])
    return np.tensordot(levels, maps, axes=1)


# Noll's first fifteen, (n, m): Noll, JOSA 66, 207 (1976), table I; negative m is the sine.
NOLL = [
    (0, 0), (1, 1), (1, -1), (2, 0), (2, -2), (2, 2), (3, -1), (3, 1), (3, -3), (3, 3), (4, 0), (4, 2), (4, -2), (4, 4),
    (4, -4),
]  # fmt: skip


def zernike(coefficients, y, x):
    """Σ c Z of the first Zernike polynomials, in polar coordinates."""
    rho, angle = np.hypot(y, x), np.arctan2(y, x)
    total = np.zeros_like(rho)
    for c, (n, m) in zip(coefficients, NOLL, strict=False):
        radial = sum(
            (-1) ** k * math.factorial(n - k) * rho ** (n - 2 * k)
            / (math.factorial(k) * math.factorial((n + abs(m)) // 2 - k) * math.factorial((n - abs(m)) // 2 - k))
            for k in range((n - abs(m)) // 2 + 1)
        )  # fmt: skip
        turn = np.cos(m * angle) if m >= 0 else np.sin(-m * angle)
        total = total + c * math.sqrt((n + 1) * (2 if m else 1)) * radial * turn
    return total
