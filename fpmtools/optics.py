"""The microscope: what it passes, on which frequency grid, and what can be recovered with it.

All frequencies are in cycles per µm on the object side. Grids are ``[y, x]`` and centred: the zero frequency of an
axis of n samples sits at index n // 2, for even and odd n alike. This file alone knows about even and odd.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray

from fpmtools.errors import OpticsError, expect, unknown

Shape = tuple[int, int]
Box = tuple[int, int, int, int]  # (y, x, height, width) in camera pixels of the whole frame
NUMBERS = ("wavelength_um", "na", "magnification", "camera_pixel_um", "medium_index")


@dataclass(frozen=True, kw_only=True)
class Optics:
    """A microscope objective, its camera and the light.

    Parameters
    ----------
    wavelength_um
        Vacuum wavelength of the light in µm.
    na
        Numerical aperture of the objective.
    magnification
        Total magnification from object to camera.
    camera_pixel_um
        Pitch of the camera pixels in µm (on the camera, not on the object).
    medium_index
        Refractive index of the medium that the sample is in.

    Raises
    ------
    OpticsError
        When a number is not finite and positive, or ``na`` is not below ``medium_index``.

    Examples
    --------
    >>> optics = fpmtools.Optics(wavelength_um=0.523, na=0.1, magnification=4, camera_pixel_um=4)
    >>> optics.pixel_um, round(optics.depth_of_field_um, 1)
    (1.0, 52.3)
    """

    wavelength_um: float
    na: float
    magnification: float
    camera_pixel_um: float
    medium_index: float = 1.0

    def __post_init__(self) -> None:
        for name in NUMBERS:
            expect(getattr(self, name), numbers.Real, f"optics: {name}", "a number")
            value = float(getattr(self, name))
            if not (math.isfinite(value) and value > 0):
                raise OpticsError(f"optics: {name} must be a positive number, got {value:g}")
            object.__setattr__(self, name, value)
        if self.na >= self.medium_index:
            raise OpticsError(f"optics: na {self.na:g} must be below medium_index {self.medium_index:g}")
        if not 0.05 <= self.wavelength_um <= 20:
            raise OpticsError(
                f"optics: wavelength_um {self.wavelength_um:g} is not a light wavelength in µm (0.05 to 20); "
                "give it in µm, for example 0.532"
            )

    @classmethod
    def of(cls, values: Optics | Mapping[str, float]) -> Optics:
        """The microscope itself, or that with these numbers; :class:`OpticsError` where one is missing."""
        if isinstance(values, Optics):
            return values
        expect(values, Mapping, "optics", "an Optics, or numbers by name such as {'wavelength_um': 0.53, …}")
        for name in values:
            if name not in NUMBERS:
                raise unknown("optics value", str(name), NUMBERS)
        if missing := [name for name in NUMBERS[:4] if name not in values]:
            raise OpticsError(f"optics: {', '.join(missing)} missing")
        return cls(**values)

    @property
    def pixel_um(self) -> float:
        """Camera pixel on the object side, µm."""
        return self.camera_pixel_um / self.magnification

    @property
    def cutoff(self) -> float:
        """Radius of the pupil NA / λ, cycles per µm."""
        return self.na / self.wavelength_um

    @property
    def depth_of_field_um(self) -> float:
        """Diffraction-limited depth of field n λ / NA², µm."""
        return self.medium_index * self.wavelength_um / self.na**2

    def synthetic_na(self, na_led: ArrayLike) -> float:
        """NA of the synthetic aperture: the objective's plus that of the steepest LED of ``na_led`` [led, (x, y)]."""
        return self.na + float(np.linalg.norm(np.asarray(na_led, float).reshape(-1, 2), axis=1).max())

    def recovered_depth_of_field_um(self, na_led: ArrayLike) -> float:
        """Depth of field n λ / NA² at the synthetic NA, µm."""
        return self.medium_index * self.wavelength_um / self.synthetic_na(na_led) ** 2

    def curvature(self, height_um: float) -> float:
        """Of the light of LEDs that far away: the rate k/2h, rad/µm², of its phase k|s|²/2h."""
        return math.pi / self.wavelength_um / height_um

    def axial_wavenumber(self, fy: NDArray[np.floating], fx: NDArray[np.floating]) -> NDArray[np.float64]:
        """k_z = 2π sqrt((n/λ)² − fx² − fy²) in rad/µm; 0 where the wave is evanescent.

        Multiplying a spectrum by exp(+i k_z z) is the exact angular-spectrum defocus by ``z`` µm.
        (Goodman, Introduction to Fourier Optics, 3rd ed., eq. 3-74.)
        """
        squared = (self.medium_index / self.wavelength_um) ** 2 - np.square(fx) - np.square(fy)
        return np.asarray(2 * np.pi * np.sqrt(np.maximum(squared, 0.0)), dtype=np.float64)

    def pupil(self, shape: Shape, pixel_um: float | None = None) -> NDArray[np.float64]:
        """The ideal pupil: 1 where |f| ≤ NA / λ, 0 elsewhere, on a centred ``[y, x]`` grid of ``shape``."""
        fy, fx = frequency_axes(shape, self.pixel_um if pixel_um is None else pixel_um)
        return (np.hypot(fy[:, None], fx[None, :]) <= self.cutoff * (1 + 1e-12)).astype(np.float64)

    def check(self, na_led: ArrayLike, image_shape: Shape, *, upsample: float | None = None) -> list[str]:
        """Say in plain words what cannot work, or will not work well, with these LEDs.

        Parameters
        ----------
        na_led
            Illumination direction sines, [led, (x, y)].
        image_shape
            Shape of one low-resolution image, (y, x).
        upsample
            Pixels of the reconstruction per camera pixel along each axis, if it is fixed.

        Returns
        -------
        list of str
            One sentence per problem; empty when all is well.
        """
        led = np.asarray(na_led, float).reshape(-1, 2)
        radius = np.linalg.norm(led, axis=1)
        warnings = []
        finest_um = self.wavelength_um / (2 * self.na)
        if self.pixel_um > finest_um:
            warnings.append(
                f"the camera is under-sampled: a pixel is {self.pixel_um:.3g} µm on the object, and the field of this "
                f"objective needs at most λ/(2 NA) = {finest_um:.3g} µm"
            )
        if upsample is not None:
            needed = self.synthetic_na(led) * 2 * self.pixel_um / self.wavelength_um
            if upsample < needed * (1 - 1e-9):
                warnings.append(
                    f"upsample {upsample:g} is too small for the synthetic NA {self.synthetic_na(led):.3g}: "
                    f"at least {needed:.2f} is needed, or fine detail is lost"
                )
        overlap = aperture_overlap(led, self.na)
        if len(led) == 1:
            warnings.append("a single LED gives no overlap in Fourier space, so the phase cannot be recovered")
        elif overlap < 0.3:
            warnings.append(
                f"neighbouring LEDs share only {overlap:.0%} of the pupil; phase retrieval needs about 35 % or more "
                "(use a finer LED pitch, a longer distance, or an objective with a larger NA)"
            )
        if len(led) > 1 and radius.min() > self.na * 1.05:
            warnings.append("all LEDs are dark field (|NA| of every LED exceeds the objective's), so the mean is lost")
        if radius.max() >= self.medium_index:
            warnings.append(f"an LED at |NA| {radius.max():.3g} lies beyond the horizon of the medium")
        fov_um = max(image_shape) * self.pixel_um
        if fov_um * self.cutoff < 4:
            warnings.append(f"the field of view ({fov_um:.3g} µm) is only a few resolution cells wide")
        return warnings

    def to_dict(self) -> dict[str, float]:
        """The constructor's arguments."""
        return {name: getattr(self, name) for name in NUMBERS}


def aperture_overlap(na_led: ArrayLike, na: float) -> float:
    """Area share of the pupil that a typical LED has in common with its nearest neighbour (median over the LEDs)."""
    led = np.unique(np.asarray(na_led, float).reshape(-1, 2), axis=0)
    if len(led) < 2:
        return 0.0
    nearest = [np.partition(np.linalg.norm(led - one, axis=1), 1)[1] for one in led]
    half = min(float(np.median(nearest)) / (2 * na), 1.0)
    return 2 / math.pi * (math.acos(half) - half * math.sqrt(1 - half * half))


def frequency_axes(shape: Shape, pixel_um: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centred frequencies (fy, fx) in cycles per µm of an image of ``shape`` (y, x) with ``pixel_um`` pixels."""
    h, w = shape
    return (np.arange(h) - h // 2) / (h * pixel_um), (np.arange(w) - w // 2) / (w * pixel_um)


def centred_start(outer: int, inner: int, shift: int = 0) -> int:
    """First index of a window of ``inner`` samples in an axis of ``outer``, its centre ``shift`` samples off DC."""
    return outer // 2 - inner // 2 + shift


def fast_length(n: float) -> int:
    """The smallest even length ≥ n whose prime factors are 2, 3, 5 and 7: fast to Fourier transform."""
    length = max(2, 2 * math.ceil(n / 2))
    while True:
        rest = length
        for factor in (2, 3, 5, 7):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 2


def resize_spectrum(spectrum: NDArray[Any], shape: Shape) -> NDArray[Any]:
    """Crop or zero-pad a centred spectrum [..., y, x] to ``shape``, keeping DC at n // 2."""
    out = np.zeros((*spectrum.shape[:-2], *shape), spectrum.dtype)
    to, take = [], []
    for outer, inner in zip(shape, spectrum.shape[-2:], strict=True):
        size = min(outer, inner)
        to.append(slice(centred_start(outer, size), centred_start(outer, size) + size))
        take.append(slice(centred_start(inner, size), centred_start(inner, size) + size))
    out[..., to[0], to[1]] = spectrum[..., take[0], take[1]]
    return out


def to_spectrum(field: NDArray[Any]) -> NDArray[Any]:
    """Centred spectrum of a field [..., y, x]; a constant field c becomes c · (h w) at DC."""
    return np.fft.fftshift(scipy.fft.fft2(field, axes=(-2, -1)), axes=(-2, -1))


def to_field(spectrum: NDArray[Any]) -> NDArray[Any]:
    """Inverse of :func:`to_spectrum`."""
    return np.asarray(scipy.fft.ifft2(np.fft.ifftshift(spectrum, axes=(-2, -1)), axes=(-2, -1)))


def resample(field: NDArray[Any], shape: Shape) -> NDArray[Any]:
    """Band-limited resampling of a field [..., y, x] to ``shape`` over the same field of view.

    Real input gives real output; the value of a constant field is kept.
    """
    h, w = field.shape[-2:]
    if (h, w) == tuple(shape):
        return field
    out = to_field(resize_spectrum(to_spectrum(field), shape)) * (shape[0] * shape[1] / (h * w))
    return np.asarray(out if np.iscomplexobj(field) else out.real)


def resample_inside(field: NDArray[Any], shape: Shape, margin: tuple[float, float]) -> NDArray[np.complex64]:
    """Band-limited samples [y, x] of the inner part of a complex ``field`` [y, x], at ``shape``.

    ``margin`` (y, x): the share of the field that is left out before the first sample, and as much after the last.
    """
    spectrum = to_spectrum(field) / field.size
    turns = []
    for n, count, share in zip(field.shape, shape, margin, strict=True):
        at = share + (1 - 2 * share) * np.arange(count) / count
        turns.append(np.exp(2j * np.pi * at[:, None] * (np.arange(n) - n // 2)).astype(spectrum.dtype))
    return np.asarray(turns[0] @ spectrum @ turns[1].T, dtype=np.complex64)


def synthetic_support(optics: Optics, na_led: ArrayLike, shape: Shape, pixel_um: float) -> NDArray[np.bool_]:
    """The recoverable band: where the LEDs' pupils, centred at +na/λ, cover the centred object spectrum [y, x]."""
    fy, fx = frequency_axes(shape, pixel_um)
    covered = np.zeros(shape, bool)
    for na_x, na_y in np.asarray(na_led, float).reshape(-1, 2) / optics.wavelength_um:
        rows = np.flatnonzero(np.abs(fy - na_y) <= optics.cutoff)
        cols = np.flatnonzero(np.abs(fx - na_x) <= optics.cutoff)
        if rows.size and cols.size:
            box = np.ix_(rows, cols)
            covered[box] |= np.hypot(fy[rows, None] - na_y, fx[None, cols] - na_x) <= optics.cutoff
    return covered
