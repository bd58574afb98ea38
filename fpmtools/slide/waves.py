"""How LEDs near a slide light a block of it, and how the block is imaged: waves are spherical, not plane.

An LED at p over the middle of the frame, at height h, lights the sample at r with exp(ikR), R = √(|p - r|² + h²), of
equal strength everywhere. Around the middle c of a block that is the plane wave of the direction sines na = (p - c)/R,
which moves the spectrum as everywhere in fpmtools, times the smooth phase k(R(r) - R(c) + na·(r - c)).
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from fpmtools.imaging import zernike_phase
from fpmtools.optics import Optics

NODES = 8  # along each axis, by which the smooth phase is known: what is beyond its seventh power is below 1e-6 rad

Floats = NDArray[np.float64]


class Block:
    """A square block of a sample, [y, x] complex64, faded out at its borders, with a pupil and a depth of its own.

    ``side`` camera pixels along each axis; ``middle_um`` (x, y) is that of the block from the middle of the frame.
    """

    def __init__(
        self,
        wave: NDArray[np.complex64],
        side: int,
        optics: Optics,
        middle_um: tuple[float, float],
        depth_um: float,
        aberrations_rad: dict[str, float],
    ) -> None:
        self.wave, self.side, self.optics = wave, side, optics
        self.middle_um, self.depth_um = np.array(middle_um), depth_um
        self.aberration = zernike_phase(optics, aberrations_rad)
        self.extent_um = side * optics.pixel_um
        # Truth pixels along an axis, from the middle, and polynomials through the nodes at which the phase is known.
        along = (np.arange(len(wave)) / len(wave) - 0.5) * self.extent_um
        self.nodes = np.cos(np.pi * (np.arange(NODES) + 0.5) / NODES) * self.extent_um / 2
        powers = np.polynomial.chebyshev.chebvander(2 * along / self.extent_um, NODES - 1)
        known = np.polynomial.chebyshev.chebvander(2 * self.nodes / self.extent_um, NODES - 1)
        self.between = (powers @ np.linalg.inv(known)).astype(np.float32)

    def intensity(self, led_um: tuple[float, float, float]) -> NDArray[np.float32]:
        """The image [y, x] by an LED at (x, y, height) over the middle of the frame, 1 where the block is clear."""
        across = np.array(led_um[:2]) - self.middle_um
        distance = float(np.sqrt(across @ across + led_um[2] ** 2))
        na, k = across / distance, 2 * np.pi / self.optics.wavelength_um
        sx, sy = self.nodes[None, :], self.nodes[:, None]
        reach = np.sqrt((across[0] - sx) ** 2 + (across[1] - sy) ** 2 + led_um[2] ** 2)
        smooth = (k * (reach - distance + na[0] * sx + na[1] * sy)).astype(np.float32)
        phase = self.between @ smooth @ self.between.T
        lit = np.empty_like(self.wave)
        np.cos(phase, out=lit.real)
        np.sin(phase, out=lit.imag)
        lit *= self.wave
        spectrum = scipy.fft.fft2(lit, axes=(-2, -1), norm="forward", overwrite_x=True)
        return self._image(np.asarray(spectrum), na)

    def _image(self, spectrum: NDArray[np.complex64], na: Floats) -> NDArray[np.float32]:
        n, radius = len(spectrum), self.optics.cutoff * self.extent_um
        shift = na / self.optics.wavelength_um * self.extent_um  # in samples of the spectrum, (x, y)
        mx, my = (np.arange(int(np.ceil(s - radius)), int(np.floor(s + radius)) + 1) for s in shift)
        fx, fy = (mx - shift[0])[None, :] / self.extent_um, (my - shift[1])[:, None] / self.extent_um
        fy, fx = np.broadcast_arrays(fy, fx)
        passed = np.hypot(fy, fx) <= self.optics.cutoff
        phase = np.where(passed, self.optics.axial_wavenumber(fy, fx) * self.depth_um + self.aberration(fy, fx), 0)
        pupil = np.where(passed, np.exp(1j * phase), 0).astype(np.complex64)
        field = np.zeros((self.side, self.side), np.complex64)
        at = (my - round(shift[1])) % self.side, (mx - round(shift[0])) % self.side
        field[np.ix_(*at)] = spectrum[np.ix_(my % n, mx % n)] * pupil
        field = np.asarray(scipy.fft.ifft2(field, axes=(-2, -1), norm="forward", overwrite_x=True))
        return np.asarray(field.real**2 + field.imag**2, dtype=np.float32)
