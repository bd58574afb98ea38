"""What multiplies the cropped spectrum of each LED: pupil, defocus and light, on the box that holds the pupil.

Everything is computed in torch, on the device, from a few numbers of the calibration, so that it can be updated between
two steps of a solve and has gradients with respect to these numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fpmtools.optics import Optics
from fpmtools.pupil import Pupil, zernike_monomials


@dataclass
class Parameters:
    """The numbers that a kernel is made of, float64 on the device; those that require a gradient get one.

    ``offset`` [led or 1, (y, x)]: what is left of each LED's shift after the crop, in samples. ``gain`` [led] or None:
    intensity. ``zernike`` [mode] in rad; ``residual`` [y, x] complex or None, the pupil's map.
    """

    offset: torch.Tensor
    gain: torch.Tensor | None
    zernike: torch.Tensor
    residual: torch.Tensor | None

    def of(self, leds: Sequence[int] | None) -> Parameters:
        """The numbers of some LEDs."""
        if leds is None:
            return self
        index = list(leds)
        offset = self.offset if len(self.offset) == 1 else self.offset[index]
        return Parameters(offset, None if self.gain is None else self.gain[index], self.zernike, self.residual)


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
        self.axial = torch.empty(0)

    def parameters(self, pupil: Pupil, offset: NDArray[Any], gain: NDArray[Any] | None) -> Parameters:
        """The numbers of a calibration, on the device; ``offset`` in samples, ``gain`` None where all are 1."""

        def put(values: NDArray[Any]) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(self.ky.device)

        residual = None if pupil.residual is None else put(pupil.residual)
        return Parameters(put(offset), None if gain is None else put(gain), put(pupil.zernike_rad), residual)

    def update(self, pupil: Pupil, numbers: Parameters) -> None:
        """Take these numbers from now on."""
        with torch.no_grad():
            transmission, axial = self.evaluate(pupil, numbers, self.real_dtype)
            self.transmission, self.axial = transmission.to(self.dtype), axial.to(self.real_dtype)

    def at(self, z: torch.Tensor, transmission: torch.Tensor, axial: torch.Tensor) -> torch.Tensor:
        """The kernel [z, led or 1, box y, box x] at depths ``z`` [z]."""
        phase = axial * z[:, None, None, None]
        # Twice as fast on a CPU as ``torch.polar``.
        return torch.complex(torch.cos(phase), torch.sin(phase)) * transmission

    def evaluate(
        self, pupil: Pupil, numbers: Parameters, precision: torch.dtype = torch.float64
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """:attr:`transmission` complex and :attr:`axial` float64, differentiable in ``numbers``.

        ``precision``: of the transmission.
        """
        optics = self.optics
        fy = (self.ky - numbers.offset[:, :1]) / self.extent_um[0]
        fx = (self.kx - numbers.offset[:, 1:]) / self.extent_um[1]
        square = fy.square()[:, :, None] + fx.square()[:, None, :]
        waves = (optics.medium_index / optics.wavelength_um) ** 2
        axial = 2 * math.pi * (waves - square).clamp_min(0).sqrt() - self.piston
        size = self._edge(square, pupil.softness).to(precision) * self.scale
        if numbers.gain is not None:
            size = size * numbers.gain.to(precision).sqrt()[:, None, None]
        transmission = size
        if numbers.zernike.numel():
            phase = self._phase(numbers.zernike, fy / optics.cutoff, fx / optics.cutoff).to(precision)
            transmission = torch.complex(torch.cos(phase) * size, torch.sin(phase) * size)
        if numbers.residual is not None:
            at = (fy / pupil.step[0]).to(precision), (fx / pupil.step[1]).to(precision)
            transmission = transmission * _interpolate(numbers.residual, *at)
        return transmission, axial

    def _edge(self, square: torch.Tensor, softness: float) -> torch.Tensor:
        cutoff = self.optics.cutoff
        if softness == 0:
            return (square <= (cutoff * (1 + 1e-12)) ** 2).double()
        width = softness / math.sqrt(self.extent_um[0] * self.extent_um[1])
        return torch.sigmoid((cutoff - (square + 1e-12 * cutoff**2).sqrt()) / width)

    @staticmethod
    def _phase(zernike: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Σ c_j Z_j: a polynomial in y and x, so two matrix products instead of a sum over modes."""
        table = torch.from_numpy(zernike_monomials(len(zernike))).to(zernike.device)
        factors = torch.tensordot(zernike, table, dims=1)
        powers_y = torch.stack([y**n for n in range(factors.shape[0])], dim=-1)
        powers_x = torch.stack([x**n for n in range(factors.shape[1])], dim=-1)
        phase: torch.Tensor = powers_y @ factors @ powers_x.mT
        return phase


def _interpolate(values: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A centred grid [y, x] at rows ``y`` [led, y] and columns ``x`` [led, x] in samples, cubic; its rim goes on."""
    rows, columns = (_weights(at, n) for at, n in zip((y, x), values.shape, strict=True))
    parts = [rows @ part.to(rows.dtype) @ columns.mT for part in (values.real, values.imag)]
    return torch.complex(*parts)


def _weights(at: torch.Tensor, count: int) -> torch.Tensor:
    """Cubic convolution as a matrix [led, position, sample]: from ``count`` centred samples to positions ``at``.

    R. Keys, IEEE Trans. ASSP 29, 1153 (1981), with a = −1/2.
    """
    at = at + count // 2
    base = at.detach().floor()
    t = at - base
    taps = [
        -0.5 * t * (1 - t).square(),
        1 - t.square() * (2.5 - 1.5 * t),
        1 - (1 - t).square() * (1 + 1.5 * t),
        -0.5 * (1 - t) * t.square(),
    ]
    matrix = torch.zeros(*at.shape, count, dtype=at.dtype, device=at.device)
    for i, tap in enumerate(taps):
        index = (base.long() + i - 1).clamp(0, count - 1)
        matrix = matrix.scatter_add(-1, index[..., None], tap[..., None])
    return matrix
