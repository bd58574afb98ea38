"""How good a reconstruction is: the four image metrics, the phase, the error inside the recoverable band, the residual.

A reconstruction's global phase is arbitrary and its amplitude scale a matter of units, so fields are compared after
one complex gain (:func:`align`); nothing else is fitted.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fpmtools.dataset import Dataset
from fpmtools.errors import DataError, OptionError
from fpmtools.optics import Optics, synthetic_support, to_field, to_spectrum
from fpmtools.reconstruction import Reconstruction

BATCH_PIXELS = 1 << 23  # camera pixels of predicted images that are in memory at once
DataRange = Literal["predicted", "truth"] | float


def quality(observed: ArrayLike, predicted: ArrayLike, *, data_range: DataRange = "predicted") -> dict[str, float]:
    """PSNR, SSIM, RMSE and relative L2 of two real images, as they are: no alignment, no scaling.

    Parameters
    ----------
    observed
        The truth, [y, x] real.
    predicted
        What is judged, of the same shape.
    data_range
        What PSNR and SSIM count as the full range: maximum − minimum of ``predicted`` (the customary choice for
        FPM-INR) or of the ``"truth"``, which does not reward a prediction for its own outliers, or a number.

    Returns
    -------
    dict
        ``psnr`` in dB (infinite for equal images), ``ssim`` (Wang et al., IEEE TIP 13, 600, 2004; 7 × 7 windows),
        ``rmse``, ``relative_l2`` = Σ(o − p)² / Σo² (a ratio of squares, without root), ``data_range`` as used.

    Raises
    ------
    DataError
        Images that are not real and [y, x] of one shape, at least 7 × 7, finite; a range of zero.
    """
    from skimage.metrics import structural_similarity

    truth, image = np.asarray(observed), np.asarray(predicted)
    if truth.shape != image.shape or truth.ndim != 2 or min(truth.shape) < 7:
        raise DataError(
            f"metrics need two [y, x] images of one shape, 7 × 7 at least, got {truth.shape} and {image.shape}"
        )
    if np.iscomplexobj(truth) or np.iscomplexobj(image):
        raise DataError("metrics compare real images: take the amplitude or the phase of a complex field first")
    truth, image = truth.astype(np.float64), image.astype(np.float64)
    if not (np.isfinite(truth).all() and np.isfinite(image).all()):
        raise DataError("metrics need finite images; one of the two has NaN or infinite values")
    if isinstance(data_range, str):
        if data_range not in ("predicted", "truth"):
            raise OptionError(f"data_range must be 'predicted', 'truth' or a number, got {data_range!r}")
        span = float(np.ptp(image if data_range == "predicted" else truth))
    else:
        span = float(data_range)
    if not (math.isfinite(span) and span > 0):
        raise DataError(f"the data range is {span:g}, so PSNR and SSIM mean nothing; give a positive data_range")
    mean_square = float(np.mean((truth - image) ** 2))
    power = float(np.mean(truth**2))
    return {
        "psnr": 10 * math.log10(span**2 / mean_square) if mean_square else math.inf,
        "ssim": float(structural_similarity(truth, image, data_range=span)),  # type: ignore[no-untyped-call]
        "rmse": math.sqrt(mean_square),
        "relative_l2": mean_square / power if power else math.inf,
        "data_range": span,
    }


def align(truth: NDArray[Any], field: NDArray[Any]) -> complex:
    """The complex gain g that minimises Σ|truth − g · field|²; 0 for an empty field."""
    power = float(np.vdot(field, field).real)
    return complex(np.vdot(field, truth)) / power if power else 0j


def phase_rmse_rad(truth: NDArray[Any], field: NDArray[Any], weights: NDArray[np.floating] | None = None) -> float:
    """Root mean square of the wrapped phase difference of two complex fields, rad, after :func:`align`.

    ``weights`` default to the amplitude of ``truth``, because the phase of a dark pixel means little.
    """
    weight = np.abs(truth) if weights is None else weights
    difference = np.angle(truth * np.conj(align(truth, field) * field))
    return float(np.sqrt(np.average(difference**2, weights=weight)))


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


def score(reconstruction: Reconstruction, dataset: Dataset, *, data_range: DataRange = "truth") -> dict[str, Any]:
    """Compare a reconstruction with a simulated data set's truth, at the truth's sampling.

    The field compared is the :func:`composite` at the truth's depths; the truth is band-limited to what the LEDs can
    show. Both the gain and ``in_band_db`` are computed inside that band; the other numbers are of the field as it is.

    Returns
    -------
    dict
        ``psnr``, ``ssim``, ``rmse``, ``relative_l2``, ``data_range``: :func:`quality` of the amplitude;
        ``phase_rmse_rad``: :func:`phase_rmse_rad`; ``in_band_db`` = 10 log10(Σ|t|² / Σ|t − g f|²), infinite if equal;
        ``alignment``: "one complex gain"; ``gain``: its modulus; ``depth_covered``: share of the truth's pixels whose
        depth lies inside the reconstructed range.

    Raises
    ------
    DataError
        The data set has no truth, or the truth's pixels are not square.
    """
    if dataset.truth is None:
        raise DataError(f"{dataset.name}: no truth to score against; only simulated data have one")
    depth = dataset.truth.depth_um
    pixels = np.array(dataset.image_shape) * dataset.optics.pixel_um / depth.shape
    if not np.isclose(*pixels):
        raise DataError(f"{dataset.name}: the truth's pixels must be square, they are {pixels[0]:g} × {pixels[1]:g} µm")
    optics, na, pixel_um = dataset.optics, dataset.na, float(pixels[0])
    truth = band_limit(dataset.truth.field.astype(np.complex128), optics, na, pixel_um)
    field = composite(reconstruction, depth).astype(np.complex128)
    in_band = band_limit(field, optics, na, pixel_um)
    gain = align(truth, in_band)
    error = float(np.sum(np.abs(truth - gain * in_band) ** 2))
    low, high = reconstruction.grid.z_range
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    return {
        **quality(np.abs(truth), np.abs(gain * field), data_range=data_range),
        "phase_rmse_rad": phase_rmse_rad(truth, field),
        "in_band_db": 10 * math.log10(float(np.sum(np.abs(truth) ** 2)) / error) if error else math.inf,
        "alignment": "one complex gain",
        "gain": abs(gain),
        "depth_covered": float(np.mean((depth >= low - slack) & (depth <= high + slack))),
    }


def residual(reconstruction: Reconstruction, dataset: Dataset, *, planes: int = 5) -> dict[str, Any]:
    """How far the images that a reconstruction predicts are from the measured ones; needs no truth.

    For each LED Σ(a − A)² / ΣA² over the camera's pixels, A the measured and a the predicted amplitude, both in the
    reconstruction's units (no gain is fitted), averaged over ``planes`` z spread over the reconstructed range.

    Returns
    -------
    dict
        ``per_led`` [led] float64; its means ``all``, ``bright`` and ``dark`` (None where there are no such LEDs).
    """
    import torch

    from fpmtools.forward import ForwardModel, SamplingPlan

    low, high = reconstruction.grid.z_range
    depths = np.linspace(low, high, planes) if high > low else np.array([low])
    shape, (h, w) = SamplingPlan.choose(dataset).object_shape, dataset.image_shape
    forward = ForwardModel(dataset.optics, dataset.na, (h, w), shape, pupil=dataset.pupil)
    scale = float(reconstruction.metadata.get("intensity_scale", 1.0))
    fields = [torch.from_numpy(np.ascontiguousarray(reconstruction.field(float(z), shape))) for z in depths]
    batch = max(1, BATCH_PIXELS // (h * w))
    per_led = np.zeros(dataset.n_leds)
    for first in range(0, dataset.n_leds, batch):
        leds = range(first, min(first + batch, dataset.n_leds))
        measured = np.sqrt(np.maximum(np.asarray(dataset.intensities[first : leds.stop], dtype=np.float64) / scale, 0))
        power = np.maximum((measured**2).sum(axis=(-2, -1)), np.finfo(float).tiny)
        for z, field in zip(depths, fields, strict=True):
            predicted = forward.amplitude(field, float(z), leds)[0].numpy()
            per_led[first : leds.stop] += ((predicted - measured) ** 2).sum(axis=(-2, -1)) / (power * len(depths))
    bright = dataset.bright_field
    return {
        "all": float(per_led.mean()),
        "bright": float(per_led[bright].mean()) if bright.any() else None,
        "dark": float(per_led[~bright].mean()) if (~bright).any() else None,
        "per_led": per_led,
    }
