"""A feature plane in few bytes: uncorrelated features, cosine transform, one rounding step, entropy coding.

This is transform coding (Goyal, IEEE Signal Process. Mag. 18(5), 9, 2001). A change δ of one pixel's features changes
the field by δᵀ S δ, S being the network's sensitivity. In a basis in which S is the identity and the features are
uncorrelated, the same rounding step everywhere costs the fewest bits for a given error of the field.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from fpmtools import coding


@dataclass(frozen=True)
class CodedPlane:
    """``levels`` [mixture, y, x] int32: cosine coefficients of mixed features; ``basis`` [mixture, feature] float32.

    Mixtures that would be zero everywhere are left out.
    """

    levels: NDArray[np.int32]
    basis: NDArray[np.float32]

    @classmethod
    def encode(cls, plane: NDArray[np.float32], sensitivity: NDArray[np.float64], step: float) -> CodedPlane:
        """Code a finite ``plane`` [y, x, feature].

        ``sensitivity`` [feature, feature] is S above; ``step`` is the rounding step in units of the field, and about
        the rms error that the field will have.
        """
        forward, inverse = _uncorrelated(plane.reshape(-1, plane.shape[-1]), sensitivity)
        mixed = np.moveaxis(plane @ (forward / step).astype(np.float32), -1, 0)
        coefficients = scipy.fft.dctn(mixed, axes=(1, 2), norm="ortho", overwrite_x=True)
        levels = coding.rounded(coefficients)
        used = levels.any(axis=(1, 2))
        return cls(levels[used], (inverse[used] * step).astype(np.float32))

    def plane(self) -> NDArray[np.float32]:
        """The plane [y, x, feature] that is stored."""
        mixed = scipy.fft.idctn(self.levels.astype(np.float32), axes=(1, 2), norm="ortho", overwrite_x=True)
        return np.ascontiguousarray(np.moveaxis(mixed, 0, -1) @ self.basis)

    @cached_property
    def packed(self) -> NDArray[np.uint8]:
        """``levels`` entropy-coded, low frequencies first."""
        count, *shape = self.levels.shape
        return coding.pack(self.levels.reshape(count, math.prod(shape))[:, _by_frequency(*shape)])

    @classmethod
    def unpack(cls, packed: NDArray[np.uint8], basis: NDArray[np.float32], plane_shape: tuple[int, int]) -> CodedPlane:
        """Inverse of :attr:`packed`. Raises :class:`ValueError` when the bytes hold no plane of that size."""
        ordered = coding.unpack(packed, (len(basis), math.prod(plane_shape)))
        levels = np.empty_like(ordered)
        levels[:, _by_frequency(*plane_shape)] = ordered
        return cls(levels.reshape(len(basis), *plane_shape), basis)


def _uncorrelated(
    features: NDArray[np.float32], sensitivity: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Matrices to and from a basis: ``sensitivity`` is the identity in it, features [pixel, feature] uncorrelated.

    Directions to which the field does not answer are kept as if it answered a thousandth as strongly as to others.
    """
    strength, directions = np.linalg.eigh(sensitivity)
    scale = np.sqrt(np.maximum(strength, 1e-6 * strength[-1] + 1e-24))
    whiten, colour = directions * scale, directions / scale
    second_moments = (features.T @ features).astype(np.float64)
    _, rotation = np.linalg.eigh(whiten.T @ second_moments @ whiten)
    return whiten @ rotation[:, ::-1], rotation[:, ::-1].T @ colour.T


def _by_frequency(height: int, width: int) -> NDArray[np.intp]:
    """Order of flattened cosine coefficients [y, x] from low to high frequency; integers, so the same everywhere."""
    y, x = np.arange(height)[:, None] * width, np.arange(width) * height
    return np.argsort((y * y + x * x).ravel(), kind="stable")
