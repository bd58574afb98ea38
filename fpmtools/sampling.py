"""The grids a reconstruction is computed on, and the intensity that counts as 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fpmtools.calibration import Calibration
from fpmtools.dataset import Dataset
from fpmtools.errors import OpticsError, OptionError
from fpmtools.optics import Optics, Shape, fast_length, resample
from fpmtools.pixels import BadPixels

# Without noise the band of the intensities is all there is. With photon noise, amplitudes carry some of the signal
# beyond it: at 500 photons per pixel, solving on the band alone costs 0.2 dB in bright field, 1.4 dB with dark field.
OVERSAMPLING = 1.5
MENDED = 1.0  # pixels, standard deviation of the mean over what surrounds a bad one
# Lengths λ/2NA of a margin, for a pupil's sharp edge throws light far: at 500 photons 13 of them cost 1.1 dB of the
# amplitude and 1.0 of the phase, 17 about half of that, and 25 or 30 gain no more.
RESOLVED = 20.0
MOST_MARGIN = 256  # camera pixels
REPEATS = 2.0  # square of the step across the border over that between neighbours: 1 for these, 3.4 to 80 for others


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

    ``extent_um`` (y, x) is what the first two grids cover: the camera's field of view and, where a sample does not
    repeat, ``margin_um`` (y, x) more on each side, so that light that crosses the border has somewhere to come from.
    """

    image_shape: Shape
    object_shape: Shape
    output_shape: Shape
    extent_um: tuple[float, float]
    scale: float = 1.0
    margin_um: tuple[float, float] = (0.0, 0.0)

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
        margin: int = 0,
        room: float = 0.0,
    ) -> SamplingPlan:
        """Plan for a data set, seen as ``calibration`` does (default: the nominal one).

        ``upsample``: output pixels per camera pixel (default: the smallest whole number that samples the intensity of
        the result at Nyquist). ``critical=False`` keeps the camera's pixels and solves on the output grid, as
        published scripts do. Raises :class:`DataError` when an LED then falls off that grid. ``margin``: camera pixels
        beyond each border. ``room``: direction sines that LEDs can move by on the object grid.
        """
        calibration = dataset.calibration if calibration is None else calibration
        optics, (h, w), extent = dataset.optics, dataset.image_shape, dataset.extent_um
        na, scale = calibration.selected().na, intensity_scale(dataset, calibration)
        if upsample is None:
            upsample = suggested_upsample(optics, na)
        if not 0 < upsample <= 64:
            raise OptionError(f"upsample must lie in (0, 64], got {upsample:g}")
        output = (max(8, round(h * upsample)), max(8, round(w * upsample)))
        if not 0 <= margin <= MOST_MARGIN:
            raise OptionError(f"margin must be 0 to {MOST_MARGIN} camera pixels, got {margin}")
        margin_um = (margin * optics.pixel_um, margin * optics.pixel_um)
        extent = (extent[0] + 2 * margin_um[0], extent[1] + 2 * margin_um[1])
        pixels = (h + 2 * margin, w + 2 * margin)
        if not critical:
            objects = (round(output[0] * pixels[0] / h), round(output[1] * pixels[1] / w))
            return cls(pixels, objects, output, extent, scale, margin_um)
        band = [OVERSAMPLING * (2 * math.floor(2 * optics.cutoff * e) + 1) for e in extent]
        pixels = (fast_length(pixels[0]), fast_length(pixels[1])) if margin else pixels
        image = (min(pixels[0], fast_length(band[0])), min(pixels[1], fast_length(band[1])))
        box = pupil_box(optics, extent, image, subpixel=True, margin=calibration.pupil.reach)
        shift = np.rint(led_shifts(optics, na, extent)).astype(int)
        more = [math.ceil(room * e / optics.wavelength_um) for e in extent]
        reach = [int(max(shift[:, a].max() + box[a][-1], -shift[:, a].min() - box[a][0])) + more[a] for a in (0, 1)]
        objects = (fast_length(2 * reach[0] + 2), fast_length(2 * reach[1] + 2))
        return cls(image, objects, output, extent, scale, margin_um)

    def amplitudes(self, dataset: Dataset, dtype: torch.dtype, bad: BadPixels | None = None) -> torch.Tensor:
        """Measured amplitudes [image, y, x] on ``image_shape``: √(intensity / scale), one image at a time.

        The intensity is resampled inside its band, which also removes noise that no light can have caused; what noise
        then leaves below zero counts as zero. In the margins it is what lies nearest inside. What is ``bad`` becomes
        what is around it, lest it spoil its neighbours.
        """
        out = torch.empty(dataset.n_images, *self.image_shape, dtype=dtype)
        precision = np.float64 if dtype == torch.float64 else np.float32
        margin = round(self.margin_um[0] / dataset.optics.pixel_um)
        for i, image in enumerate(dataset.images):
            values = np.asarray(image, dtype=precision)
            if bad:
                values = mended(values, bad)
            small = resample(continued(values, margin), self.image_shape)
            out[i] = torch.from_numpy(np.sqrt(np.maximum(small / self.scale, 0)))
        return out

    def mask(self, dataset: Dataset, bad: BadPixels) -> torch.Tensor | None:
        """[image or 1, y, x] bool on ``image_shape``, False where a ``bad`` pixel has a part; None where there is none.

        On the camera's own grid these are the bad pixels; on another one all samples nearer than a pixel of the coarser
        of the two grids.
        """
        if not bad:
            return None
        axes = zip(self.camera_pixels(dataset.optics.pixel_um), dataset.image_shape, strict=True)
        near = [np.abs(at[:, None] - np.arange(n)) < max(at[1] - at[0], 1) * (1 - 1e-9) for at, n in axes]
        rows, columns = (part.astype(np.float32) for part in near)
        stacks = dataset.images if bad.saturated.any() else [np.zeros(dataset.image_shape)]
        touched = [rows @ bad.of(image).astype(np.float32) @ columns.T > 0 for image in stacks]
        return torch.from_numpy(~np.stack(touched))

    def camera_pixels(self, pixel_um: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where the rows and columns of ``image_shape`` lie, in camera pixels of ``pixel_um`` from the first one on."""
        axes = zip(self.image_shape, self.extent_um, self.margin_um, strict=True)
        y, x = ((np.arange(n) * extent / n - margin) / pixel_um for n, extent, margin in axes)
        return y, x

    def window(self, dtype: torch.dtype) -> torch.Tensor | None:
        """[y, x] on ``image_shape``, 1 where the camera has measured and 0 in the margins; None without margins."""
        if not any(self.margin_um):
            return None
        sides = []
        for n, extent, margin in zip(self.image_shape, self.extent_um, self.margin_um, strict=True):
            at = np.arange(n) * extent / n
            sides.append(torch.from_numpy((at > margin - extent / n / 2) & (at < extent - margin)).to(dtype))
        return sides[0][:, None] * sides[1]


def mended(image: NDArray[Any], bad: BadPixels) -> NDArray[Any]:
    """``image`` [y, x] with the mean of what surrounds them in place of bad pixels; saturated ones are at least so."""
    from scipy.ndimage import gaussian_filter

    wrong = bad.of(image)
    if not wrong.any():
        return image
    good = (~wrong).astype(image.dtype)
    share = gaussian_filter(good, MENDED, mode="nearest")
    around = gaussian_filter(image * good, MENDED, mode="nearest") / np.maximum(share, 1e-6)
    around = np.where(image >= bad.top, np.maximum(around, image), around)
    return np.asarray(np.where(wrong, around, image), dtype=image.dtype)


def continued(image: NDArray[Any], margin: int) -> NDArray[Any]:
    """``image`` [y, x] with ``margin`` pixels more on each side: mirrored at the border, and both ends run together."""
    if not margin:
        return image
    for _ in (0, 1):
        n = len(image)
        at = np.arange(1, 2 * margin + 1)
        after, before = image[np.maximum(n - 1 - at, 0)], image[np.minimum(2 * margin + 1 - at, n - 1)]
        share = ((1 - np.cos(np.pi * (at - 0.5) / (2 * margin))) / 2)[:, None].astype(image.dtype)
        between = after + share * (before - after)
        image = np.concatenate([between[margin:], image, between[:margin]]).T
    return image


def repeats(dataset: Dataset) -> bool:
    """Whether the images go on at their other side, as simulated ones do: then nothing crosses a border unseen.

    Along one axis is enough, for no measured field does that: a simulated sample that is tilted jumps in depth along
    the other.
    """
    brightest = np.argsort(dataset.images.means)[::-1][:5]
    across, inside = np.zeros(2), np.zeros(2)
    for i in brightest:
        image = np.asarray(dataset.images[i], dtype=np.float64)
        for axis, turned in enumerate((image, image.T)):
            across[axis] += np.square(turned[0] - turned[-1]).mean()
            inside[axis] += (np.square(turned[1] - turned[0]).mean() + np.square(turned[-1] - turned[-2]).mean()) / 2
    return bool((across <= REPEATS * inside).any())


def suggested_upsample(optics: Optics, na: NDArray[np.float64]) -> int:
    """Output pixels per camera pixel that sample the intensity of what LEDs at ``na`` [led, (x, y)] show at Nyquist."""
    return max(1, math.ceil(4 * optics.synthetic_na(na) * optics.pixel_um / optics.wavelength_um))


def suggested_margin(dataset: Dataset, z_um: Sequence[float], resolved: float = RESOLVED) -> int:
    """Camera pixels beyond each border that light comes from: ``resolved`` lengths, and what defocus moves it by.

    0 where the images repeat.
    """
    if repeats(dataset):
        return 0
    reach = margin_for(dataset.optics, dataset.optics.synthetic_na(dataset.na), z_um, resolved)
    return min(reach, min(dataset.image_shape) // 2)


def margin_for(optics: Optics, sine: float, z_um: Sequence[float], resolved: float = RESOLVED) -> int:
    """Camera pixels that light crosses a border from, at angles up to ``sine`` and depths ``z_um``."""
    reach_um = resolved * optics.wavelength_um / (2 * optics.na) + max(map(abs, z_um)) * sine
    return min(math.ceil(reach_um / optics.pixel_um), MOST_MARGIN)


def intensity_scale(dataset: Dataset, calibration: Calibration) -> float:
    """The intensity that counts as 1: the mean of the bright-field images (of the brightest, if all are dark field).

    Of those that are used, without their background.
    """
    means = np.maximum(dataset.images.means - calibration.added(dataset.image_shape), 0)
    means = np.where(calibration.used, means, 0)
    bright = calibration.bright_field(dataset.optics) & calibration.used
    scale = float(means[bright].mean()) if bright.any() else 0.0
    return scale or float(means.max()) or 1.0
