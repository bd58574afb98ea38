"""The forward model once more, in float64 NumPy, from the formula alone: nothing here is shared with fpmtools.

A plain discrete Fourier sum is evaluated at the exact frequencies the model asks for, so neither grids, shifts nor FFT
order can hide a common mistake.
"""

from __future__ import annotations

import numpy as np


def low_field(
    field, pixel_um, na_led, wavelength_um, na, z_um, image_shape, *, medium_index=1.0, pupil=None, subpixel=True
):
    """Complex low-resolution field [h, w] of one LED: object [H, W] over a field of view of H · pixel_um."""
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
    inside = gy**2 + gx**2 <= (na / wavelength_um) ** 2 * (1 + 2e-12)
    kz = 2 * np.pi * np.sqrt(np.maximum((medium_index / wavelength_um) ** 2 - gy**2 - gx**2, 0))
    transfer = inside * np.exp(1j * kz * z_um)
    if pupil is not None:
        transfer = transfer * (pupil if not subpixel else _bilinear(pupil, fy, fx, gy, gx))
    spectrum = spectrum * transfer
    # Only the image rows and columns that the camera has.
    ry, rx = np.arange(h) * extent_y / h, np.arange(w) * extent_x / w
    return np.exp(2j * np.pi * np.outer(ry, fy)) @ spectrum @ np.exp(2j * np.pi * np.outer(fx, rx))


def _bilinear(pupil, fy, fx, gy, gx):
    out = np.zeros((gy.size, gx.size), complex)
    step_y, step_x = fy[1] - fy[0], fx[1] - fx[0]
    for i, py in enumerate((gy.ravel() - fy[0]) / step_y):
        for j, px in enumerate((gx.ravel() - fx[0]) / step_x):
            i0, j0 = int(np.floor(py)), int(np.floor(px))
            for di in (0, 1):
                for dj in (0, 1):
                    weight = (1 - abs(py - i0 - di)) * (1 - abs(px - j0 - dj))
                    if 0 <= i0 + di < pupil.shape[0] and 0 <= j0 + dj < pupil.shape[1]:
                        out[i, j] += weight * pupil[i0 + di, j0 + dj]
    return out
