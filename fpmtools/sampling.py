"""The grids a reconstruction is computed on, and the intensity that counts as 1."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fpmtools.calibration import Calibration
from fpmtools.dataset import Dataset
from fpmtools.errors import OpticsError, OptionError
from fpmtools.optics import Optics, Shape, fast_length, resample

# Without noise the band of the intensities is all there is. With photon noise, amplitudes carry some of the signal
# beyond it: at 500 photons per pixel, solving on the band alone costs 0.2 dB in bright field, 1.4 dB with dark field.
OVERSAMPLING = 1.5


def led_shifts(optics: Optics, na: NDArray[np.float64], extent_um: tuple[float, float]) -> NDArray[np.float64]:
    """Shift (y, x) of each LED in samples of the spectrum of a field of view ``extent_um``, [led, (y, x)]."""
    return np.asarray(na[:, ::-1] / optics.wavelength_um * np.asarray(extent_um), dtype=np.float64)


def pupil_box(
    optics: Optics, extent_um: tuple[float, float], image_shape: Shape, subpixel: bool, margin: float = 0.0
) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Frequency indices (rows, columns) of the smallest box that holds the pupil, wherever its centre is in a pixel.

    ``margin``: samples that it holds beyond the pupil's edge, as far as the image has them.
    """
    axes = []
    for n, extent, axis in zip(image_shape, extent_um, "yx", strict=True):
        radius = optics.cutoff * extent
        if radius > n / 2 * (1 + 1e-9):
            raise OpticsError(
                f"the camera is under-sampled along {axis}: {n} pixels over {extent:.4g} µm, and NA {optics.na:g} at "
                f"{optics.wavelength_um:g} µm needs at least {math.ceil(2 * radius)}"
            )
        reach = math.floor(radius + margin + (0.5 if subpixel else 0.0) + 1e-9)
        axes.append(np.arange(max(-reach, -(n // 2)), min(reach, (n - 1) // 2) + 1))
    return axes[0], axes[1]


@dataclass(frozen=True)
class SamplingPlan:
    """The grids a reconstruction is computed on: as small as the optics allow, over the same field of view.

    ``image_shape`` holds the 2 NA/λ band of the measured *intensities* with room to spare (``OVERSAMPLING``),
    ``object_shape`` the synthetic aperture, ``output_shape`` is what is shown: the field zero-padded so that its
    intensity, too, is sampled at Nyquist. ``scale`` is the measured intensity that counts as 1.
    """

    image_shape: Shape
    object_shape: Shape
    output_shape: Shape
    extent_um: tuple[float, float]
    scale: float = 1.0

    @classmethod
    def full(cls, optics: Optics, image_shape: Shape, object_shape: Shape, scale: float = 1.0) -> SamplingPlan:
        """The camera's own pixels, and an object grid of ``object_shape`` over the same field of view."""
        extent = (image_shape[0] * optics.pixel_um, image_shape[1] * optics.pixel_um)
        return cls(image_shape, object_shape, object_shape, extent, scale)

    @classmethod
    def choose(
        cls,
        dataset: Dataset,
        calibration: Calibration | None = None,
        *,
        upsample: float | None = None,
        critical: bool = True,
    ) -> SamplingPlan:
        """Plan for a data set, seen as ``calibration`` does (default: the nominal one).

        ``upsample``: output pixels per camera pixel (default: the smallest whole number that samples the intensity of
        the result at Nyquist). ``critical=False`` keeps the camera's pixels and solves on the output grid, as
        published scripts do. Raises :class:`DataError` when an LED then falls off that grid.
        """
        calibration = dataset.calibration if calibration is None else calibration
        optics, (h, w), extent = dataset.optics, dataset.image_shape, dataset.extent_um
        na, scale = calibration.selected().na, intensity_scale(dataset, calibration)
        if upsample is None:
            upsample = max(1, math.ceil(4 * optics.synthetic_na(na) * optics.pixel_um / optics.wavelength_um))
        if not 0 < upsample <= 64:
            raise OptionError(f"upsample must lie in (0, 64], got {upsample:g}")
        output = (max(8, round(h * upsample)), max(8, round(w * upsample)))
        if not critical:
            return cls.full(optics, (h, w), output, scale)
        band = [OVERSAMPLING * (2 * math.floor(2 * optics.cutoff * e) + 1) for e in extent]
        image = (min(h, fast_length(band[0])), min(w, fast_length(band[1])))
        box = pupil_box(optics, extent, image, subpixel=True, margin=calibration.pupil.reach)
        shift = np.rint(led_shifts(optics, na, extent)).astype(int)
        reach = [int(max(shift[:, a].max() + box[a][-1], -shift[:, a].min() - box[a][0])) for a in (0, 1)]
        return cls(image, (fast_length(2 * reach[0] + 2), fast_length(2 * reach[1] + 2)), output, extent, scale)

    def amplitudes(self, dataset: Dataset, dtype: torch.dtype) -> torch.Tensor:
        """Measured amplitudes [image, y, x] on ``image_shape``: √(intensity / scale), one image at a time.

        The intensity is resampled inside its band, which also removes noise that no light can have caused; what noise
        then leaves below zero counts as zero.
        """
        out = torch.empty(dataset.n_images, *self.image_shape, dtype=dtype)
        precision = np.float64 if dtype == torch.float64 else np.float32
        for i, image in enumerate(dataset.images):
            small = resample(np.asarray(image, dtype=precision), self.image_shape)
            out[i] = torch.from_numpy(np.sqrt(np.maximum(small / self.scale, 0)))
        return out


def intensity_scale(dataset: Dataset, calibration: Calibration) -> float:
    """The intensity that counts as 1: the mean of the bright-field images (of the brightest, if all are dark field).

    Of those that are used, without their background.
    """
    means = np.maximum(dataset.images.means - calibration.background, 0)
    means = np.where(calibration.used, means, 0)
    bright = calibration.bright_field(dataset.optics) & calibration.used
    scale = float(means[bright].mean()) if bright.any() else 0.0
    return scale or float(means.max()) or 1.0
