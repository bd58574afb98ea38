"""A reconstruction against a simulated data set's truth, at each pixel's own depth and inside the recoverable band."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fpmtools.dataset import Dataset
from fpmtools.errors import DataError
from fpmtools.known import KnownSample
from fpmtools.metrics.images import (
    DataRange,
    align,
    complex_nrmse,
    phase_rmse_rad,
    quality,
    structural_similarity,
)
from fpmtools.metrics.prediction import as_used
from fpmtools.optics import Optics, synthetic_support, to_field, to_spectrum
from fpmtools.reconstruction import Reconstruction


def composite(
    reconstruction: Reconstruction, depth_um: NDArray[np.floating], *, planes: int = 65
) -> NDArray[np.complex64]:
    """Field [y, x] of which each pixel is taken from the plane at that pixel's own depth.

    Every distinct depth is rendered when there are at most ``planes``, which is exact; otherwise ``planes`` evenly
    spaced ones, each pixel from the nearest. A depth outside the reconstructed range takes the end of the range.
    """
    depth = np.clip(depth_um.astype(np.float64), *reconstruction.grid.z_range)
    rendered = np.unique(depth)
    if len(rendered) > planes:
        rendered = np.linspace(rendered[0], rendered[-1], planes)
    nearest = np.searchsorted((rendered[:-1] + rendered[1:]) / 2, depth)
    out = np.empty(depth.shape, np.complex64)
    for i, z in enumerate(rendered):
        chosen = nearest == i
        if chosen.any():
            out[chosen] = reconstruction.field(float(z), depth.shape)[chosen]
    return out


def band_limit(field: NDArray[Any], optics: Optics, na: ArrayLike, pixel_um: float) -> NDArray[Any]:
    """What of a complex field [y, x] with pixels of ``pixel_um`` lies in the band that the LEDs ``na`` cover."""
    return to_field(to_spectrum(field) * synthetic_support(optics, na, field.shape, pixel_um))


@dataclass(frozen=True)
class Match:
    """A truth and a reconstruction at the truth's sampling, [y, x] complex128.

    ``truth`` is band-limited to what the LEDs can show; ``field`` is the :func:`composite` at the truth's depths,
    ``in_band`` what of it lies in that band; ``gain`` (:func:`align`) brings ``in_band`` to the truth.
    ``depth_covered`` is the share of the truth's pixels whose depth lies inside the reconstructed range.
    """

    truth: NDArray[np.complex128]
    field: NDArray[np.complex128]
    in_band: NDArray[np.complex128]
    gain: complex
    depth_covered: float
    pixel_um: float


def match(reconstruction: Reconstruction, dataset: Dataset | KnownSample) -> Match:
    """Bring a reconstruction and a data set's truth together.

    Raises :class:`DataError` when the data set has no truth, or the truth's pixels are not square.
    """
    if dataset.truth is None:
        raise DataError(f"{dataset.name}: no truth to score against; only simulated data have one")
    known, dataset = dataset.truth, as_used(reconstruction, dataset)
    depth = known.depth_um
    pixels = np.array(dataset.image_shape) * dataset.optics.pixel_um / depth.shape
    if not np.isclose(*pixels):
        raise DataError(f"{dataset.name}: the truth's pixels must be square, they are {pixels[0]:g} × {pixels[1]:g} µm")
    pixel_um = float(pixels[0])
    truth = band_limit(known.field.astype(np.complex128), dataset.optics, dataset.na, pixel_um)
    field = composite(reconstruction, depth).astype(np.complex128)
    in_band = band_limit(field, dataset.optics, dataset.na, pixel_um)
    low, high = reconstruction.grid.z_range
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    covered = float(np.mean((depth >= low - slack) & (depth <= high + slack)))
    return Match(truth, field, in_band, align(truth, in_band), covered, pixel_um)


def score(
    reconstruction: Reconstruction,
    dataset: Dataset | KnownSample,
    *,
    data_range: DataRange = "truth",
    matched: Match | None = None,
) -> dict[str, Any]:
    """Compare a reconstruction with a simulated data set's truth, at the truth's sampling.

    Both the gain and ``in_band_db`` are computed inside the recoverable band; the other numbers are of the field as it
    is. ``matched`` is :func:`match` of the same two, if it is at hand.

    Returns
    -------
    dict
        ``psnr``, ``ssim``, ``rmse``, ``relative_l2``, ``data_range``: :func:`quality` of the amplitude;
        ``ssim_gaussian``: its :func:`structural_similarity` in Gaussian windows; ``complex_nrmse``,
        ``phase_rmse_rad`` and both without a linear phase, ``complex_nrmse_detilted``, ``phase_rmse_detilted_rad``;
        ``in_band_db`` = 10 log10(Σ|t|² / Σ|t − g f|²), infinite if equal;
        ``alignment``: "one complex gain"; ``gain``: its modulus; ``depth_covered``: share of the truth's pixels whose
        depth lies inside the reconstructed range.

    Raises
    ------
    DataError
        The data set has no truth, or the truth's pixels are not square.
    """
    found = matched or match(reconstruction, dataset)
    truth, field, gain = found.truth, found.field, found.gain
    error = float(np.sum(np.abs(truth - gain * found.in_band) ** 2))
    images = np.abs(truth), np.abs(gain * field)
    return {
        **quality(*images, data_range=data_range),
        "ssim_gaussian": structural_similarity(*images, data_range=data_range, window="gaussian"),
        "complex_nrmse": complex_nrmse(truth, field),
        "complex_nrmse_detilted": complex_nrmse(truth, field, remove_tilt=True),
        "phase_rmse_rad": phase_rmse_rad(truth, field),
        "phase_rmse_detilted_rad": phase_rmse_rad(truth, field, remove_tilt=True),
        "in_band_db": 10 * math.log10(float(np.sum(np.abs(truth) ** 2)) / error) if error else math.inf,
        "alignment": "one complex gain",
        "gain": abs(gain),
        "depth_covered": found.depth_covered,
    }
