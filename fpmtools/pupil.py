"""The objective's pupil in few numbers: Zernike polynomials, what they leave of a measured map, how soft its edge is.

A pupil that is known as a map of pixels must not be interpolated across its edge, where it falls to zero: an LED off
the Fourier grid would see a blurred aperture. So the edge is the optics' own, |f| ≤ NA/λ, drawn wherever it is needed,
and a map only says what the pupil is inside: a polynomial takes out its phase, and what is left, which is smooth, goes
on beyond the edge.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fpmtools.errors import DataError
from fpmtools.optics import Optics, frequency_axes

ORDER = 10  # of the polynomials that are fitted to a map's phase: 66 modes
DARK = 1e-3  # of a map's largest modulus: less is no light
SOFT_REACH = 4.0  # widths of a soft edge: e⁻⁴ of the light
FITS = 20  # at most, each to what the last one left
RIM = 1.5  # samples: a map may be cut off by whole pixels this far inside the aperture


def _none() -> NDArray[np.float64]:
    return np.empty(0)


@dataclass(frozen=True, eq=False, repr=False)
class Pupil:
    """Complex transmission of the objective inside its aperture |f| ≤ NA/λ; the default is the ideal one, 1.

    Parameters
    ----------
    zernike_rad
        Phase, [mode] float64: coefficients of the Zernike polynomials in Noll's order from piston on, each the rms over
        the aperture in rad (Noll, JOSA 66, 207, 1976).
    residual
        What multiplies that, [y, x] complex128 on a centred frequency grid, interpolated; None: 1.
    step
        (y, x) of that grid, cycles/µm.
    apodization
        Log of its modulus, [mode] float64: coefficients of the same polynomials; negative where light is lost, towards
        the rim by vignetting. It counts as 1 at most.
    softness
        Width δ of the edge 1 / (1 + exp((|f| − NA/λ) / δ)) in samples of the image's spectrum; 0: a sharp edge. Only
        a soft edge has gradients with respect to LED positions.
    stop
        (x, y, radius, softness) of a second aperture, which vignets: 1 / (1 + exp((|f − (x, y)| − radius) / softness)),
        all in units of NA/λ; None: there is none. It lies off the axis for places away from the middle of the field.
    """

    zernike_rad: NDArray[np.float64] = field(default_factory=_none)
    residual: NDArray[np.complex128] | None = None
    step: tuple[float, float] = (1.0, 1.0)
    softness: float = 0.0
    apodization: NDArray[np.float64] = field(default_factory=_none)
    stop: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        for name in ("zernike_rad", "apodization"):
            coefficients = np.atleast_1d(np.asarray(getattr(self, name), dtype=np.float64))
            if coefficients.ndim != 1 or not np.isfinite(coefficients).all():
                raise DataError(f"pupil: {name} must be finite and [mode], got shape {coefficients.shape}")
            object.__setattr__(self, name, coefficients)
        if self.residual is not None and (self.residual.ndim != 2 or not np.isfinite(self.residual).all()):
            raise DataError(f"pupil: a map must be finite and [y, x], got shape {self.residual.shape}")
        if self.stop is not None and (
            len(self.stop) != 4 or not np.isfinite(self.stop).all() or min(self.stop[2:]) <= 0
        ):
            raise DataError("pupil: a stop must be (x, y, radius, softness), the last two positive")
        if not self.softness >= 0:
            raise DataError(f"pupil: softness must be 0 or a positive number, got {self.softness:g}")

    @property
    def ideal(self) -> bool:
        """Whether it is 1 inside a sharp edge."""
        soft = self.zernike_rad.any() or self.apodization.any() or self.softness
        return not soft and self.residual is None and self.stop is None

    def __repr__(self) -> str:
        return f"Pupil: {self.in_words()}"

    def in_words(self) -> str:
        """What it is, short.

        >>> Pupil().in_words(), Pupil(np.array([0, 0, 0, 0.5])).in_words()
        ('ideal', '0.5 rad rms in 4 Zernike modes')
        """
        if self.ideal:
            return "ideal"
        rms = float(np.linalg.norm(self.zernike_rad[1:]))
        parts = [f"{rms:.3g} rad rms in {len(self.zernike_rad)} Zernike modes"] if len(self.zernike_rad) else []
        parts += ["loses light"] if self.apodization.any() else []
        parts += ["a second aperture"] if self.stop is not None else []
        parts += ["a map"] if self.residual is not None else []
        return ", ".join([*parts, *(["a soft edge"] if self.softness else [])])

    @property
    def reach(self) -> float:
        """How far beyond NA/λ light still passes, in samples of the image's spectrum."""
        return SOFT_REACH * self.softness

    @classmethod
    def from_map(cls, values: ArrayLike, optics: Optics, extent_um: tuple[float, float]) -> Pupil:
        """The pupil of which ``values`` [y, x] complex are samples, on the centred grid of a field of ``extent_um``.

        Values outside the aperture, and zeros along its rim, say nothing about the inside. Raises :class:`DataError`
        when nothing is left.
        """
        given = np.asarray(values, dtype=np.complex128)
        if given.ndim != 2 or not np.isfinite(given).all():
            raise DataError(f"pupil: a map must be finite and [y, x], got shape {given.shape}")
        size, step = np.abs(given), (1 / extent_um[0], 1 / extent_um[1])
        fy = frequency_axes(given.shape, extent_um[0] / given.shape[0])[0][:, None] / optics.cutoff
        fx = frequency_axes(given.shape, extent_um[1] / given.shape[1])[1][None, :] / optics.cutoff
        radius = np.hypot(fy, fx)
        lit = (radius <= 1 + 1e-9) & (size > DARK * size.max())
        if not lit.any():
            raise DataError("pupil: the map is dark inside the aperture")
        coefficients = _fit_phase(given, lit, fy, fx)
        polynomial = np.exp(1j * polynomial_phase(coefficients, fy, fx))
        # A dark place well inside is an obstruction, and stays.
        rim = RIM * max(step) / optics.cutoff
        inside = lit | (radius < 1 - rim)
        residual = _continued(np.where(inside, given * polynomial.conj(), 0), inside)
        if np.allclose(residual, 1, atol=1e-9):
            return cls(coefficients)
        return cls(coefficients, residual, step)

    @staticmethod
    def modes(count: int, fy: ArrayLike, fx: ArrayLike) -> NDArray[np.float64]:
        """The first ``count`` Zernike polynomials [mode, ...] at frequencies in units of the cutoff, broadcast."""
        y, x = np.broadcast_arrays(np.asarray(fy, float), np.asarray(fx, float))
        out = np.empty((count, *y.shape))
        for mode, factors in zip(out, zernike_monomials(count) if count else (), strict=True):
            mode[...] = np.polynomial.polynomial.polyval2d(y, x, factors)
        return out

    def times(self, values: NDArray[np.complex128], step: tuple[float, float]) -> Pupil:
        """This pupil times a smooth map [y, x] on a centred grid of (y, x) ``step``, cycles/µm."""
        from scipy.ndimage import map_coordinates

        if self.residual is not None:
            grids = zip(values.shape, self.residual.shape, step, self.step, strict=True)
            at = [(np.arange(n) - n // 2) * new / old + m // 2 for n, m, new, old in grids]
            here = map_coordinates(self.residual, np.meshgrid(*at, indexing="ij"), order=1, mode="nearest")
            values = values * here
        return replace(self, residual=values, step=step)

    def dump(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Everything in it: named real arrays, and JSON-ready values."""
        known = {"zernike_rad": self.zernike_rad, "apodization": self.apodization}
        tensors: dict[str, NDArray[Any]] = {name: values for name, values in known.items() if values.size}
        if self.residual is not None:
            tensors["residual"] = np.stack([self.residual.real, self.residual.imag], axis=-1)
        stop = {} if self.stop is None else {"stop": [float(value) for value in self.stop]}
        return tensors, {"step": list(self.step), "softness": self.softness, **stop}

    @classmethod
    def restore(cls, tensors: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> Pupil:
        """Inverse of :meth:`dump`."""
        residual = None
        if "residual" in tensors:
            residual = np.asarray(tensors["residual"][..., 0] + 1j * tensors["residual"][..., 1], dtype=np.complex128)
        y, x = about["step"]
        zernike, apodization = (tensors.get(name, _none()) for name in ("zernike_rad", "apodization"))
        stop = about.get("stop")
        if stop is not None:
            centre_x, centre_y, radius, softness = map(float, stop)
            stop = centre_x, centre_y, radius, softness
        return cls(zernike, residual, (float(y), float(x)), float(about["softness"]), apodization, stop)


def polynomial_phase(coefficients: NDArray[np.float64], fy: ArrayLike, fx: ArrayLike) -> NDArray[np.float64]:
    """Σ c_j Z_j at frequencies in units of the cutoff, broadcast; ``coefficients`` [mode]."""
    y, x = np.broadcast_arrays(np.asarray(fy, float), np.asarray(fx, float))
    return np.asarray(np.polynomial.polynomial.polyval2d(y, x, monomials(coefficients)), dtype=np.float64)


def monomials(coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same polynomial as Σ C[a, b] y^a x^b, [degree of y, degree of x]."""
    if not len(coefficients):
        return np.zeros((1, 1))
    return np.asarray(np.tensordot(coefficients, zernike_monomials(len(coefficients)), axes=1))


@functools.cache
def zernike_monomials(count: int) -> NDArray[np.float64]:
    """The first ``count`` Zernike polynomials in Noll's order, C[mode, a, b] of y^a x^b; rms 1 over the unit disc."""
    degree = noll(count)[0] if count else 0
    # Within a degree the order of the modes is not that of their degree in y and x.
    out = np.zeros((count, degree + 1, degree + 1))
    for j in range(1, count + 1):
        n, m = noll(j)
        size = math.sqrt((n + 1) * (2 if m else 1))
        for k in range((n - abs(m)) // 2 + 1):
            radial = (-1) ** k * math.factorial(n - k)
            for part in ((n + abs(m)) // 2 - k, (n - abs(m)) // 2 - k, k):
                radial //= math.factorial(part)
            for (a, b), value in _harmonic(abs(m), m < 0, (n - abs(m)) // 2 - k).items():
                out[j - 1, a, b] += size * radial * value
    return out


def noll(j: int) -> tuple[int, int]:
    """Radial order n and angular order m of Noll's index j ≥ 1; negative m stands for the sine."""
    n = (math.isqrt(8 * j - 7) - 1) // 2
    k = j - n * (n + 1) // 2 - 1
    m = 2 * ((k + 1) // 2) if n % 2 == 0 else 2 * (k // 2) + 1
    return n, m if m == 0 or j % 2 == 0 else -m


def _harmonic(m: int, sine: bool, p: int) -> dict[tuple[int, int], float]:
    """ρ^m cos(mθ), or sin(mθ), times ρ^(2p), as {(a, b): factor of y^a x^b}; θ is measured from x to y."""
    terms: dict[tuple[int, int], float] = {}
    for r in range(m + 1):
        if (r % 2 == 1) != sine and m:
            continue
        turned = math.comb(m, r) * (-1) ** (r // 2)
        for q in range(p + 1):
            power = (r + 2 * q, m - r + 2 * (p - q))
            terms[power] = terms.get(power, 0.0) + turned * math.comb(p, q)
    return terms


def _fit_phase(
    values: NDArray[np.complex128], lit: NDArray[np.bool_], fy: NDArray[np.float64], fx: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Zernike coefficients of the unwrapped phase where ``lit``, as many as the samples can tell."""
    from skimage.restoration import unwrap_phase

    order = min(ORDER, int(math.sqrt(lit.sum() / 8)))
    count = (order + 1) * (order + 2) // 2
    phase = np.ma.masked_array(np.angle(values), ~lit)
    rest = np.asarray(np.ma.getdata(unwrap_phase(phase))[lit])  # type: ignore[no-untyped-call]
    y, x = (np.broadcast_to(f, values.shape)[lit] for f in (fy, fx))
    basis = np.stack([np.polynomial.polynomial.polyval2d(y, x, c) for c in zernike_monomials(count)], axis=1)
    weight = np.abs(values[lit])
    coefficients = np.zeros(count)
    # What unwrapping got wrong by whole turns shows in the wrapped rest, and goes with the next fit.
    for _ in range(FITS):
        change = np.linalg.lstsq(basis * weight[:, None], rest * weight, rcond=None)[0]
        coefficients += change
        rest = np.angle(values[lit] * np.exp(-1j * (basis @ coefficients)))
        if np.abs(change).max() < 1e-12:
            break
    return np.where(np.abs(coefficients) > 1e-9, coefficients, 0.0)


def _continued(values: NDArray[np.complex128], known: NDArray[np.bool_]) -> NDArray[np.complex128]:
    """``values`` where they are ``known``, elsewhere those of the nearest known place."""
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
    return np.asarray(values[tuple(nearest)])
