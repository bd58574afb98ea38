"""Complex error, phase without a tilt, and similarity in Gaussian windows, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from fpmtools.errors import DataError, OptionError
from fpmtools.metrics import align, complex_nrmse, phase_rmse_rad, structural_similarity


def random_field(shape: tuple[int, int], seed: int = 0) -> NDArray[np.complex128]:
    rng = np.random.default_rng(seed)
    return np.asarray(rng.standard_normal(shape) + 1j * rng.standard_normal(shape))


@given(st.integers(0, 10**6), st.floats(0.001, 10))
def test_the_complex_error_of_orthogonal_noise_has_a_closed_form(seed: int, size: float) -> None:
    truth, noise = random_field((9, 14), seed), random_field((9, 14), seed + 1)
    noise -= align(noise, truth) * truth
    noise *= size * np.linalg.norm(truth) / np.linalg.norm(noise)
    expected = size / np.sqrt(1 + size**2)
    assert complex_nrmse(truth, truth + noise) == pytest.approx(expected, rel=1e-9)
    assert complex_nrmse(truth, (truth + noise) * (0.2 - 3j)) == pytest.approx(expected, rel=1e-9)


def test_the_complex_error_of_nothing_is_one_and_of_no_truth_an_error() -> None:
    truth = random_field((8, 9))
    assert complex_nrmse(truth, 0 * truth) == 1
    with pytest.raises(DataError, match="zero everywhere"):
        complex_nrmse(0 * truth, truth)


@pytest.mark.parametrize("turns", [(0.0, 0.0), (0.3, -0.2), (2.5, -1.25), (-4.1, 6.7)])
@pytest.mark.parametrize("shape", [(40, 51), (37, 24)])
def test_a_tilt_is_no_phase_error_once_it_is_removed(shape: tuple[int, int], turns: tuple[float, float]) -> None:
    h, w = shape
    y, x = np.mgrid[:h, :w]
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.5, 1, shape) * np.exp(1j * rng.uniform(-3, 3, shape))
    tilt = np.exp(2j * np.pi * (turns[0] * y / h + turns[1] * x / w) + 1j)
    sign = np.where((y + x) % 2, 1, -1)
    assert phase_rmse_rad(truth, truth * tilt, remove_tilt=True) == pytest.approx(0, abs=1e-6)
    if turns != (0.0, 0.0):
        assert phase_rmse_rad(truth, truth * tilt) > 0.2
    unit = truth / np.abs(truth)
    wrong = phase_rmse_rad(unit, unit * tilt * np.exp(0.2j * sign), remove_tilt=True)
    assert wrong == pytest.approx(0.2, rel=1e-3)


@given(st.integers(0, 10**6), st.floats(0, 2))
def test_removing_the_tilt_never_makes_it_worse(seed: int, noise: float) -> None:
    truth = random_field((7, 12), seed)
    field = truth + noise * random_field((7, 12), seed + 1)
    assert phase_rmse_rad(truth, field, remove_tilt=True) <= phase_rmse_rad(truth, field) + 1e-7


@pytest.mark.parametrize("shape", [(11, 16), (30, 23)])
def test_similarity_in_gaussian_windows_is_the_formula_of_the_paper(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    one = rng.uniform(0, 2, shape)
    other = one + 0.3 * rng.standard_normal(shape)

    def blur(image: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(gaussian_filter(image, 1.5, radius=5))

    mean, mean_other = blur(one), blur(other)
    variance, variance_other = blur(one**2) - mean**2, blur(other**2) - mean_other**2
    covariance = blur(one * other) - mean * mean_other
    c1, c2 = (0.01 * 1.7) ** 2, (0.03 * 1.7) ** 2
    index = (2 * mean * mean_other + c1) * (2 * covariance + c2)
    index /= (mean**2 + mean_other**2 + c1) * (variance + variance_other + c2)
    expected = index[5:-5, 5:-5].mean()  # windows that lie inside
    found = structural_similarity(one, other, data_range=1.7, window="gaussian")
    assert found == pytest.approx(expected, rel=1e-9)
    assert structural_similarity(one, other, data_range=1.7) != pytest.approx(expected, rel=1e-3)


def test_windows_that_do_not_fit_are_refused() -> None:
    image = np.eye(10)
    with pytest.raises(DataError, match="11 × 11"):
        structural_similarity(image, image, window="gaussian")
    with pytest.raises(OptionError, match="window must be"):
        structural_similarity(image, image, window="round")  # type: ignore[arg-type]
