"""A stack of low rank: the object's spectrum O(k, z) = Σ u_r(z) V_r(k), in few bytes, at any z.

A depth tells little that the others do not, so a few components V_r are all of a stack. In a basis of orthonormal u_r
the components are uncorrelated over z, and one rounding step for all of them is the cheapest; those that it rounds away
are the ones that the stack does without. See docs/stacks.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from fpmtools import coding, storage
from fpmtools.display import depths
from fpmtools.optics import Shape, to_field, to_spectrum
from fpmtools.reconstruction import Grid, PlaneStack, Reconstruction

PART_SAMPLES = 1 << 18  # of each component's spectrum, that are in work at once


class LowRankStack(Reconstruction):
    """Spectra O(k, z) = Σ u_r(z) V_r(k), of which V is rounded; between its depths u is a cubic spline.

    Parameters
    ----------
    levels
        V [component, y, x, (re, im)] int32, centred spectra in units of the rounding step.
    basis
        u [z, component] complex64 at the depths ``z_um``, times the step.
    """

    kind: ClassVar[str] = "low-rank"

    def __init__(
        self,
        levels: NDArray[np.int32],
        basis: NDArray[np.complex64],
        z_um: tuple[float, ...],
        grid: Grid,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(grid, metadata)
        self.levels, self.basis, self.z_um = levels, basis, z_um

    @property
    def rank(self) -> int:
        """Number of components."""
        return len(self.levels)

    @classmethod
    def of(
        cls,
        spectra: NDArray[np.complexfloating[Any, Any]],
        weights: NDArray[np.complexfloating[Any, Any]],
        z_um: tuple[float, ...],
        grid: Grid,
        error: float,
    ) -> LowRankStack:
        """Code O(k, z) = Σ ``weights[z, i] spectra[i, y, x]``, for as many depths as spectra or more.

        A constant field c has the spectrum c · y x at DC. ``error``: about the rms error that the field of a plane will
        have, at most. OverflowError where it is too small for 32 bits.
        """
        if not error > 0:
            raise OverflowError("nothing may be lost")
        count, *shape = spectra.shape
        flat = spectra.reshape(count, math.prod(shape))
        orthonormal, mixing = np.linalg.qr(weights.astype(np.complex128))
        gram = sum((part @ part.conj().T for _, part in _parts(flat)), np.zeros((count, count), np.complex128))
        _, turn = np.linalg.eigh(mixing @ gram @ mixing.conj().T)
        turn = turn[:, ::-1]  # the strongest component first
        # Rounding a complex number by a step has a variance of step² / 6; a plane's spectrum is not normalised.
        step = math.sqrt(6 * flat.shape[1]) * error
        components = turn.conj().T @ mixing / step
        levels = np.zeros((count, flat.shape[1], 2), np.int32)
        for where, part in _parts(flat):
            values = components @ part
            levels[:, where] = coding.rounded(np.stack([values.real, values.imag], -1))
        used = levels.any(axis=(1, 2))
        basis = (orthonormal @ turn[:, used] * step).astype(np.complex64)
        return cls(levels[used].reshape(-1, *shape, 2), basis, z_um, grid)

    @classmethod
    def of_planes(cls, stack: PlaneStack, error: float) -> LowRankStack:
        """Code a stack of planes, which stays as it is; see :meth:`of`."""
        spectra = storage.scratch(stack.planes.shape, np.complex64)
        for spectrum, plane in zip(storage.slices(spectra), storage.slices(stack.planes), strict=True):
            spectrum[...] = to_spectrum(plane)
        coded = cls.of(spectra, np.eye(len(spectra), dtype=np.complex128), stack.z_um, stack.grid, error)
        coded.metadata, coded.calibration = dict(stack.metadata), stack.calibration
        return coded

    def _depths(self) -> str:
        return depths(self.z_um)

    @property
    def planes_um(self) -> tuple[float, ...]:
        """The z of the planes that it was made of."""
        return self.z_um

    @cached_property
    def _spectra(self) -> NDArray[np.complex64]:
        """V [component, y · x]."""
        return np.ascontiguousarray(self.levels, np.float32).view(np.complex64).reshape(self.rank, -1)

    def native_field(self, z_um: float) -> NDArray[np.complex64]:
        """Exact on the depths that were coded; between them u(z) is a cubic spline, and so is the field."""
        weights = self.basis[0] if len(self.z_um) == 1 else CubicSpline(self.z_um, self.basis)(z_um)
        spectrum = weights.astype(np.complex64) @ self._spectra
        return np.asarray(to_field(spectrum.reshape(self.levels.shape[1:3])), dtype=np.complex64)

    @cached_property
    def _packed(self) -> NDArray[np.uint8]:
        shape = self.levels.shape[1:3]
        return coding.pack(self.levels.reshape(self.rank, math.prod(shape), 2)[:, _by_frequency(shape)])

    def dump(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """V entropy-coded, low frequencies first; u as float32 [z, component, (re, im)]."""
        basis = self.basis.view(np.float32).reshape(*self.basis.shape, 2)
        config = {"z_um": list(self.z_um), "native_shape": list(self.levels.shape[1:3])}
        return {"components": self._packed, "basis": basis}, config

    @classmethod
    def restore(cls, grid: Grid, tensors: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> LowRankStack:
        """Inverse of :meth:`dump`."""
        basis = np.ascontiguousarray(tensors["basis"], dtype=np.float32).view(np.complex64)[..., 0]
        y, x = (int(n) for n in config["native_shape"])
        z_um = tuple(float(z) for z in config["z_um"])
        if len(z_um) != len(basis):
            raise ValueError(f"{len(z_um)} depths, but weights for {len(basis)}")
        ordered = coding.unpack(tensors["components"], (basis.shape[1], y * x, 2))
        levels = np.empty_like(ordered)
        levels[:, _by_frequency((y, x))] = ordered
        return cls(levels.reshape(-1, y, x, 2), basis, z_um, grid)


def _parts(flat: NDArray[Any]) -> Iterator[tuple[slice, NDArray[np.complex128]]]:
    """Samples of spectra [component, sample], a part of all components at a time."""
    for first in range(0, flat.shape[1], PART_SAMPLES):
        where = slice(first, min(first + PART_SAMPLES, flat.shape[1]))
        yield where, flat[:, where].astype(np.complex128)
    storage.release(flat)


def _by_frequency(shape: Shape) -> NDArray[np.intp]:
    """Order of a flattened centred spectrum [y, x] from low to high frequency; integers, so the same everywhere."""
    height, width = shape
    y, x = (np.arange(height) - height // 2)[:, None] * width, (np.arange(width) - width // 2) * height
    return np.argsort((y * y + x * x).ravel(), kind="stable")
