"""Two images, or two complex fields, compared as they are."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fpmtools.errors import DataError, OptionError

DataRange = Literal["predicted", "truth"] | float
Window = Literal["uniform", "gaussian"]


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
        ``psnr`` in dB (infinite for equal images), ``ssim`` (:func:`structural_similarity` in uniform windows),
        ``rmse``, ``relative_l2`` = Σ(o − p)² / Σo² (a ratio of squares, without root), ``data_range`` as used.

    Raises
    ------
    DataError
        Images that are not real and [y, x] of one shape, at least 7 × 7, finite; a range of zero.
    """
    truth, image, span = _checked(observed, predicted, data_range)
    mean_square = float(np.mean((truth - image) ** 2))
    power = float(np.mean(truth**2))
    return {
        "psnr": 10 * math.log10(span**2 / mean_square) if mean_square else math.inf,
        "ssim": structural_similarity(truth, image, data_range=span),
        "rmse": math.sqrt(mean_square),
        "relative_l2": mean_square / power if power else math.inf,
        "data_range": span,
    }


def structural_similarity(
    observed: ArrayLike, predicted: ArrayLike, *, data_range: DataRange = "predicted", window: Window = "uniform"
) -> float:
    """Mean structural similarity (Wang et al., IEEE TIP 13, 600, 2004; K1 = 0.01, K2 = 0.03) of two real images.

    ``window``: ``"uniform"`` is 7 × 7 pixels with sample variances, as scikit-image's default and the seeds';
    ``"gaussian"`` is the paper's, σ = 1.5 pixels cut off at 11 × 11, and needs images of that size. Errors as for
    :func:`quality`.
    """
    from skimage import metrics

    truth, image, span = _checked(observed, predicted, data_range)
    if window not in ("uniform", "gaussian"):
        raise OptionError(f"window must be 'uniform' or 'gaussian', got {window!r}")
    if window == "uniform":
        return float(metrics.structural_similarity(truth, image, data_range=span))  # type: ignore[no-untyped-call]
    if min(truth.shape) < 11:
        raise DataError(f"a Gaussian window needs images of 11 × 11 at least, got {truth.shape}")
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    found = metrics.structural_similarity(truth, image, data_range=span, **options)  # type: ignore[no-untyped-call]
    return float(found)


def align(truth: NDArray[Any], field: NDArray[Any]) -> complex:
    """The complex gain g that minimises Σ|truth − g · field|²; 0 for an empty field."""
    power = float(np.vdot(field, field).real)
    return complex(np.vdot(field, truth)) / power if power else 0j


def complex_nrmse(truth: NDArray[Any], field: NDArray[Any], *, remove_tilt: bool = False) -> float:
    """√(Σ|truth − g · field|² / Σ|truth|²) of two complex fields, g from :func:`align`; between 0 and 1.

    With ``remove_tilt`` a linear phase of the field is taken out first, see :func:`remove_tilt_of`.
    """
    power = float(np.vdot(truth, truth).real)
    if power == 0:
        raise DataError("complex_nrmse: the truth is zero everywhere")
    if remove_tilt:
        field = remove_tilt_of(field, truth)
    return math.sqrt(float(np.sum(np.abs(truth - align(truth, field) * field) ** 2)) / power)


def phase_rmse_rad(
    truth: NDArray[Any],
    field: NDArray[Any],
    weights: NDArray[np.floating] | None = None,
    *,
    remove_tilt: bool = False,
) -> float:
    """Root mean square of the wrapped phase difference of two complex fields [y, x], rad, after :func:`align`.

    ``weights`` default to the amplitude of ``truth``, because the phase of a dark pixel means little. With
    ``remove_tilt`` constant and linear phase are those of :func:`remove_tilt_of` instead.
    """
    weight = np.abs(truth) if weights is None else np.broadcast_to(weights, truth.shape)
    matched = remove_tilt_of(field, truth, weight) if remove_tilt else align(truth, field) * field
    return float(np.sqrt(np.average(np.angle(truth * np.conj(matched)) ** 2, weights=weight)))


def remove_tilt_of(
    field: NDArray[Any], truth: NDArray[Any], weights: NDArray[np.floating] | None = None
) -> NDArray[np.complex128]:
    """``field`` [y, x] times exp(i (a + b y + c x)) such that the wrapped phase difference to ``truth`` is least.

    A linear phase is a mere shift in Fourier space: LEDs that all stand off by the same amount cause one, and no
    measurement tells it. Least squares with ``weights`` (default: the amplitude of ``truth``), begun without a plane
    and at the peak of the spectrum of exp(i difference), which finds planes of many turns.
    """
    weight = np.abs(truth) if weights is None else weights
    h, w = truth.shape
    phase = np.angle(truth * np.conj(align(truth, field) * field))
    y, x = np.meshgrid(np.arange(h) - h // 2, np.arange(w) - w // 2, indexing="ij")
    basis = np.stack([np.ones(phase.size), y.ravel(), x.ravel()], axis=1)
    weighted = basis * weight.reshape(-1, 1)
    spectrum = np.abs(np.fft.fft2(weight * np.exp(1j * phase), s=(2 * h, 2 * w), axes=(-2, -1)))
    ky, kx = np.unravel_index(int(spectrum.argmax()), spectrum.shape)
    peak = 2 * np.pi * np.array([np.fft.fftfreq(2 * h)[ky], np.fft.fftfreq(2 * w)[kx]])
    turns = np.exp(1j * (phase - peak[0] * y - peak[1] * x))
    best, least = phase, np.inf
    for rest in (phase, np.angle(turns * np.conj(np.sum(weight * turns)))):
        for _ in range(8):
            plane = np.linalg.lstsq(weighted.T @ basis, weighted.T @ rest.ravel(), rcond=None)[0]
            rest = np.angle(np.exp(1j * (rest - (basis @ plane).reshape(h, w))))
        if (error := float(np.sum(weight * rest**2))) < least:
            best, least = rest, error
    # What is left of the difference stays, the plane goes.
    return np.asarray(np.abs(field) * np.exp(1j * (np.angle(truth) - best)), dtype=np.complex128)


def _checked(
    observed: ArrayLike, predicted: ArrayLike, data_range: DataRange
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Both images in float64, and the full range."""
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
    return truth, image, span
