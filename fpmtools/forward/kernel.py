"""What multiplies the cropped spectrum of each LED: pupil, defocus and light, on the box that holds the pupil.

Everything is computed in torch, on the device, from a few numbers of the calibration, so that it can be updated between
two steps of a solve. The gradients with respect to these numbers are in :mod:`fpmtools.forward.gradients`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fpmtools.optics import Optics
from fpmtools.pupil import Pupil, zernike_monomials

LARGEST = 1.0  # log modulus of a pupil: beyond its rim, where a soft edge still lets light through, polynomials soar


@dataclass
class Parameters:
    """The numbers that a kernel is made of, float64 on the device.

    ``offset`` [led or 1, (y, x)]: what is left of each LED's shift after the crop, in samples. ``gain`` [led] or None:
    intensity. ``zernike`` [mode] in rad, ``apodization`` [mode]; ``residual`` [y, x] complex or None, the pupil's map.
    """

    offset: torch.Tensor
    gain: torch.Tensor | None
    zernike: torch.Tensor
    apodization: torch.Tensor
    residual: torch.Tensor | None


class Kernels:
    """Pupil · √gain · exp(+i (k_z − 2π n/λ) z) on the rows and columns ``axes`` of a field of ``extent_um``.

    ``scale`` multiplies it all. :attr:`transmission` [led or 1, box y, box x] is what does not depend on z,
    :attr:`axial` [led or 1, box y, box x] k_z without the piston 2π n/λ, which no amplitude sees, so that the phase
    stays small enough for float32.
    """

    def __init__(
        self,
        optics: Optics,
        axes: tuple[torch.Tensor, torch.Tensor],
        extent_um: tuple[float, float],
        scale: float,
        dtype: torch.dtype,
    ) -> None:
        self.optics, self.extent_um, self.scale, self.dtype = optics, extent_um, scale, dtype
        self.ky, self.kx = (axis.double() for axis in axes)
        self.real_dtype = torch.empty(0, dtype=dtype).real.dtype
        self.piston = 2 * math.pi * optics.medium_index / optics.wavelength_um
        self.transmission = torch.empty(0)
        self._offset = torch.empty(0)
        self._axial: torch.Tensor | None = None

    def parameters(self, pupil: Pupil, offset: NDArray[Any], gain: NDArray[Any] | None) -> Parameters:
        """The numbers of a calibration, on the device; ``offset`` in samples, ``gain`` None where all are 1."""

        def put(values: NDArray[Any]) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(self.ky.device)

        residual = None if pupil.residual is None else put(pupil.residual)
        polynomials = put(pupil.zernike_rad), put(pupil.apodization)
        return Parameters(put(offset), None if gain is None else put(gain), *polynomials, residual)

    def update(self, pupil: Pupil, numbers: Parameters) -> None:
        """Take these numbers from now on."""
        self.transmission = self.evaluate(pupil, numbers, self.real_dtype).to(self.dtype)
        self._offset, self._axial = numbers.offset, None
        if self.ky.device.type != "cpu":  # not in the midst of steps, some of which are recorded
            self._axial = self.axial_at(numbers.offset)

    @property
    def axial(self) -> torch.Tensor:
        """See above; on a CPU made when it is first asked for: in the plane z = 0 it is not needed."""
        if self._axial is None:
            self._axial = self.axial_at(self._offset)
        return self._axial

    def axial_at(self, offset: torch.Tensor) -> torch.Tensor:
        """:attr:`axial` of LEDs with these offsets [led or 1, (y, x)]."""
        fy, fx = self._frequencies(offset)
        waves = (self.optics.medium_index / self.optics.wavelength_um) ** 2
        square = fy.square()[:, :, None] + fx.square()[:, None, :]
        return (2 * math.pi * (waves - square).clamp_min(0).sqrt() - self.piston).to(self.real_dtype)

    def _frequencies(self, offset: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the pupil box's rows and columns for each LED, cycles/µm, [led or 1, row] and [led or 1, column]."""
        axes = zip((self.ky, self.kx), offset.T, self.extent_um, strict=True)
        fy, fx = ((k - own[:, None]) / extent for k, own, extent in axes)
        return fy, fx

    def at(self, z: torch.Tensor, transmission: torch.Tensor, axial: torch.Tensor) -> torch.Tensor:
        """The kernel [z, led or 1, box y, box x] at depths ``z`` [z]."""
        phase = axial * z[:, None, None, None]
        # Twice as fast on a CPU as ``torch.polar``.
        return torch.complex(torch.cos(phase), torch.sin(phase)) * transmission

    def evaluate(self, pupil: Pupil, numbers: Parameters, precision: torch.dtype) -> torch.Tensor:
        """:attr:`transmission` in ``precision``, real or complex."""
        optics = self.optics
        fy, fx = self._frequencies(numbers.offset)
        size = self._edge(fy, fx, pupil.softness, precision) * self.scale
        if numbers.gain is not None:
            size = size * numbers.gain.to(precision).sqrt()[:, None, None]
        at = fy / optics.cutoff, fx / optics.cutoff
        if pupil.apodization.any():
            size = size * polynomial(numbers.apodization, *at, precision).clamp_max(LARGEST).exp()
        if pupil.stop is not None:
            size = size * stop_passes(pupil.stop, *at)[0].to(precision)
        transmission = size
        if pupil.zernike_rad.any():
            phase = polynomial(numbers.zernike, *at, precision)
            transmission = torch.complex(torch.cos(phase) * size, torch.sin(phase) * size)
        if numbers.residual is not None:
            on_map = (fy / pupil.step[0]).to(precision), (fx / pupil.step[1]).to(precision)
            rows, columns = (cubic(f, n) for f, n in zip(on_map, numbers.residual.shape, strict=True))
            transmission = transmission * interpolate(numbers.residual, rows, columns)
        return transmission

    def _edge(self, fy: torch.Tensor, fx: torch.Tensor, softness: float, precision: torch.dtype) -> torch.Tensor:
        cutoff = self.optics.cutoff
        exact = torch.float64 if softness == 0 else precision  # whether a sample is within must not hang on rounding
        square = fy.square().to(exact)[:, :, None] + fx.square().to(exact)[:, None, :]
        if softness == 0:
            return (square <= (cutoff * (1 + 1e-12)) ** 2).to(precision)
        width = softness / math.sqrt(self.extent_um[0] * self.extent_um[1])
        return torch.sigmoid((cutoff - (square + 1e-12 * cutoff**2).sqrt()) / width)


Stop = tuple[float, float, float, float]


def stop_passes(stop: Stop, y: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What a pupil's second aperture passes, [led, row, column], at frequencies in units of the cutoff.

    And the slopes of its log by the aperture's x, y and radius, [3, led, row, column]; by the frequencies they are
    those by x and y, reversed.
    """
    centre_x, centre_y, radius, softness = stop
    dy, dx = (y - centre_y)[:, :, None], (x - centre_x)[:, None, :]
    away = (dy.square() + dx.square() + 1e-12).sqrt()
    steep = torch.sigmoid((away - radius) / softness) / softness
    return torch.sigmoid((radius - away) / softness), torch.stack([steep * dx / away, steep * dy / away, steep])


def polynomial(
    zernike: torch.Tensor, y: torch.Tensor, x: torch.Tensor, precision: torch.dtype = torch.float64
) -> torch.Tensor:
    """Σ c_j Z_j, [led, row, column] in ``precision``: a polynomial in y and x, so two matrix products instead of a sum
    over modes."""
    factors = torch.tensordot(zernike, polynomials(zernike), dims=1)
    rows, columns = powers(y, len(factors)) @ factors, powers(x, len(factors))
    values: torch.Tensor = rows.to(precision) @ columns.to(precision).mT
    return values


def polynomials(zernike: torch.Tensor) -> torch.Tensor:
    """The Zernike polynomials of these coefficients, [mode, power of y, power of x] float64."""
    return torch.from_numpy(zernike_monomials(len(zernike))).to(zernike.device)


def powers(at: torch.Tensor, count: int) -> torch.Tensor:
    """1, at, at² …, along a new last axis."""
    return torch.stack([at**n for n in range(count)], dim=-1)


def interpolate(values: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """A complex grid [y, x] at the places of two :func:`cubic` matrices, [led, row, column]."""
    parts = [rows @ part.to(rows.dtype) @ columns.mT for part in (values.real, values.imag)]
    return torch.complex(*parts)


def cubic(at: torch.Tensor, count: int, *, slope: bool = False) -> torch.Tensor:
    """Cubic convolution as a matrix [led, position, sample]: from ``count`` centred samples to positions ``at``.

    The outermost samples go on beyond the grid. With ``slope`` its derivative by the positions. R. Keys, IEEE Trans.
    ASSP 29, 1153 (1981), with a = −1/2.
    """
    at = at + count // 2
    base = at.floor()
    t = at - base
    s = 1 - t
    if slope:
        taps = [s * (1.5 * t - 0.5), t * (4.5 * t - 5), -s * (4.5 * s - 5), t * (0.5 - 1.5 * s)]
    else:
        taps = [
            -0.5 * t * s.square(),
            1 - t.square() * (2.5 - 1.5 * t),
            1 - s.square() * (1 + 1.5 * t),
            -0.5 * s * t.square(),
        ]
    matrix = torch.zeros(*at.shape, count, dtype=at.dtype, device=at.device)
    for i, tap in enumerate(taps):
        index = (base.long() + i - 1).clamp(0, count - 1)
        matrix = matrix.scatter_add(-1, index[..., None], tap[..., None])
    return matrix
