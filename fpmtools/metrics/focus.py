"""One sharp image of a sample with depth, and the depth of each pixel, from a reconstruction alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, uniform_filter

from fpmtools.errors import OptionError
from fpmtools.reconstruction import Reconstruction

Method = Literal["normal-variance", "light-field"]


@dataclass(frozen=True)
class AllInFocus:
    """``amplitude`` [y, x] float32, and ``depth_um`` [y, x] float32: the z that each pixel was taken from."""

    amplitude: NDArray[np.float32]
    depth_um: NDArray[np.float32]


def all_in_focus(
    reconstruction: Reconstruction,
    z_um: Sequence[float],
    *,
    method: Method = "normal-variance",
    window_um: float = 3.0,
    clip: bool = False,
) -> AllInFocus:
    """Fuse the amplitudes at the planes ``z_um`` into one image in which every part is in focus.

    Parameters
    ----------
    method
        ``"normal-variance"``: each pixel from the plane where the variance over the mean, in a square of
        ``window_um`` around it, is largest (Groen et al., Cytometry 6, 81, 1985). ``"light-field"``: the mean over all
        planes, weighted by the local energy of the fine detail, as for the focal stack of a light field: the square
        of what a Gaussian of σ = ``window_um`` / 6 takes away, smoothed by one of σ = ``window_um`` / 2.
    clip
        Judge the focus, and take the image, from amplitudes cut off at the most frequent value of the stack if that
        is above 0.1, as the published script does; here on a copy.

    Notes
    -----
    One plane is in memory at a time. A part without any detail gets a depth by chance.
    """
    if method not in ("normal-variance", "light-field"):
        raise OptionError(f"method must be 'normal-variance' or 'light-field', got {method!r}")
    if not z_um or not window_um > 0:
        raise OptionError(f"all_in_focus needs at least one z and a window above 0 µm, got {len(z_um)} and {window_um}")
    ceiling = _mode(reconstruction, z_um) if clip else np.inf
    window = tuple(window_um / pixel for pixel in reconstruction.grid.pixel_um)
    shape = reconstruction.grid.shape
    image, depth, total = (np.zeros(shape) for _ in range(3))
    if method == "normal-variance":
        total -= 1
    for z in z_um:
        amplitude = np.minimum(_amplitude(reconstruction, z), ceiling)
        if method == "normal-variance":
            measure = _normal_variance(amplitude, window)
            sharper = measure > total
            for kept, new in ((image, amplitude), (depth, z), (total, measure)):
                np.copyto(kept, new, where=sharper)
        else:
            weight = _detail_energy(amplitude, window)
            image += weight * amplitude
            depth += weight * z
            total += weight
    if method == "light-field":
        image, depth = image / total, depth / total
    return AllInFocus(image.astype(np.float32), depth.astype(np.float32))


def _amplitude(reconstruction: Reconstruction, z_um: float) -> NDArray[np.float64]:
    return np.abs(reconstruction.field(float(z_um))).astype(np.float64)


def _normal_variance(image: NDArray[np.float64], window: tuple[float, ...]) -> NDArray[np.float64]:
    size = [2 * max(1, round(n / 2)) + 1 for n in window]
    mean = uniform_filter(image, size)
    variance = np.maximum(uniform_filter(image**2, size) - mean**2, 0)
    return np.asarray(variance / np.maximum(mean, np.finfo(float).tiny))


def _detail_energy(image: NDArray[np.float64], window: tuple[float, ...]) -> NDArray[np.float64]:
    detail = image - gaussian_filter(image, [n / 6 for n in window])
    return np.asarray(gaussian_filter(detail**2, [n / 2 for n in window]) + np.finfo(float).tiny)


def _mode(reconstruction: Reconstruction, z_um: Sequence[float]) -> float:
    """The middle of the fullest of 256 bins between 0 and the largest amplitude, or infinity if it is 0.1 or less."""
    highest = max(float(_amplitude(reconstruction, z).max()) for z in z_um)
    counts = sum(np.histogram(_amplitude(reconstruction, z), 256, (0, highest))[0] for z in z_um)
    mode = (int(np.argmax(counts)) + 0.5) * highest / 256
    return mode if mode > 0.1 else np.inf
