"""The built-in metrics as functions of one :class:`fpmtools.evaluation.Case`: what their records point to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fpmtools.metrics.images import align
from fpmtools.metrics.prediction import held_out_error

if TYPE_CHECKING:
    from fpmtools.evaluation import Case
    from fpmtools.metrics.focus import AllInFocus

TRUTH_THRESHOLD = 0.5  # of the correlation with a noise-free truth; of two noisy halves it is the half-bit curve

Measure = Callable[["Case"], float | None]


def _number(part: str, name: str) -> Measure:
    """One number of one of the dictionaries of a case."""
    return lambda case: getattr(case, part)[name]


def _chi2(lights: str) -> Measure:
    """χ² of some LEDs, where there is noise to measure by."""
    return lambda case: None if case.residual["chi2"] is None else case.residual["chi2"][lights]


psnr = _number("scored", "psnr")
ssim = _number("scored", "ssim")
ssim_gaussian = _number("scored", "ssim_gaussian")
rmse = _number("scored", "rmse")
relative_l2 = _number("scored", "relative_l2")
complex_nrmse = _number("scored", "complex_nrmse")
complex_nrmse_detilted = _number("scored", "complex_nrmse_detilted")
phase_rmse_rad = _number("scored", "phase_rmse_rad")
phase_rmse_detilted_rad = _number("scored", "phase_rmse_detilted_rad")
in_band_db = _number("scored", "in_band_db")

chi2 = _chi2("all")
chi2_bright = _chi2("bright")
chi2_dark = _chi2("dark")

residual = _number("residual", "all")
residual_bright = _number("residual", "bright")
residual_dark = _number("residual", "dark")

stored_bytes = _number("stored", "stored_bytes")
bytes_per_plane = _number("stored", "bytes_per_plane")


def focus_mse(case: Case) -> float:
    return _against_truth(case, case.in_focus("normal-variance"))


def focus_light_field_mse(case: Case) -> float:
    return _against_truth(case, case.in_focus("light-field"))


def depth_rmse_um(case: Case) -> float | None:
    """A sample in one plane has no depth to find."""
    return depth_error_um(case, case.in_focus("normal-variance")) if np.ptp(case.truth.depth_um) else None


def depth_error_um(case: Case, found: AllInFocus) -> float:
    """Rms error of a depth map where the sample has detail: pixels count by the truth's local contrast."""
    from scipy.ndimage import gaussian_filter

    depth, amplitude = case.truth.depth_um, np.abs(case.matched.truth)
    contrast = (amplitude - gaussian_filter(amplitude, 1 / case.matched.pixel_um)) ** 2
    error = _like(found.depth_um, depth.shape) - depth
    return float(np.sqrt(np.average(error**2, weights=contrast)))


def held_out(case: Case) -> float:
    return held_out_error(case.dataset, case.solve, z_um=case.planes_um)


def ring_resolution_um(case: Case) -> float:
    return case.rings_of_halves.resolution_um


def truth_resolution_um(case: Case) -> float:
    return case.rings_with_truth.resolution_um_at(TRUTH_THRESHOLD)


def ratio_dense(case: Case) -> float:
    return case.stored["dense_bytes"] / case.stored["stored_bytes"]


def ratio_compressed(case: Case) -> float:
    return case.stored["compressed_bytes"] / case.stored["stored_bytes"]


def ratio_band_limited(case: Case) -> float:
    return case.stored["band_limited_bytes"] / case.stored["stored_bytes"]


def _against_truth(case: Case, found: AllInFocus) -> float:
    """Mean squared error of an all-in-focus amplitude after one real gain."""
    truth = np.abs(case.matched.truth)
    amplitude = _like(found.amplitude, truth.shape)
    return float(np.mean((truth - align(truth, amplitude).real * amplitude) ** 2))


def _like(image: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """An image at another sampling of the same field of view, nearest pixel: an all-in-focus image has sharp seams."""
    rows, columns = ((np.arange(n) + 0.5) * size / n for n, size in zip(shape, image.shape, strict=True))
    return np.asarray(image[np.ix_(rows.astype(int), columns.astype(int))], dtype=np.float64)
