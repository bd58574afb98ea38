"""The metrics against scikit-image, closed forms, and reconstructions whose error is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from fpmtools.dataset import Dataset, Truth
from fpmtools.errors import DataError, FpmError, OptionError
from fpmtools.metrics import align, band_limit, composite, phase_rmse_rad, prediction, quality, residual, score
from fpmtools.optics import resample, synthetic_support, to_spectrum
from fpmtools.reconstruction import Grid, PlaneStack
from fpmtools.simulation import simulate

LEDS = np.array([[0.0, 0.0], [0.1, 0.02], [-0.11, 0.03], [0.02, 0.12], [-0.03, -0.13], [0.18, 0.05], [0.05, -0.29]])


def random_field(shape: tuple[int, int], seed: int = 0) -> NDArray[np.complex128]:
    rng = np.random.default_rng(seed)
    return np.asarray(rng.standard_normal(shape) + 1j * rng.standard_normal(shape))


def truth_of(data: Dataset) -> Truth:
    assert data.truth is not None
    return data.truth


def stack(planes: NDArray[Any], z_um: tuple[float, ...], data: Dataset, scale: float = 1.0) -> PlaneStack:
    extent = (data.image_shape[0] * data.optics.pixel_um, data.image_shape[1] * data.optics.pixel_um)
    shape = (int(planes.shape[1]), int(planes.shape[2]))
    grid = Grid(shape, extent, (z_um[0], z_um[-1]))
    return PlaneStack(planes.astype(np.complex64), z_um, grid, {"intensity_scale": scale})


# ---------------------------------------------------------------- the four


@pytest.mark.parametrize("shape", [(31, 40), (24, 17), (7, 9)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_four_metrics_are_scikit_images_and_the_closed_forms(shape: tuple[int, int], dtype: Any) -> None:
    rng = np.random.default_rng(3)
    observed = rng.uniform(0, 2, shape).astype(dtype)
    predicted = (observed + 0.2 * rng.standard_normal(shape)).astype(dtype)
    o, p = observed.astype(float), predicted.astype(float)
    for choice, span in (("predicted", np.ptp(p)), ("truth", np.ptp(o)), (1.7, 1.7)):
        found = quality(observed, predicted, data_range=choice)  # type: ignore[arg-type]
        assert found == pytest.approx(
            {
                "psnr": peak_signal_noise_ratio(o, p, data_range=span),
                "ssim": structural_similarity(o, p, data_range=span),
                "rmse": np.sqrt(mean_squared_error(o, p)),
                "relative_l2": np.sum((o - p) ** 2) / np.sum(o**2),
                "data_range": span,
            },
            rel=1e-9,
        )
    assert quality(observed, predicted) == quality(observed, predicted, data_range="predicted")


def test_equal_images_are_perfect() -> None:
    image = np.linspace(0, 1, 99).reshape(9, 11)
    assert quality(image, image) == pytest.approx(
        {"psnr": np.inf, "ssim": 1, "rmse": 0, "relative_l2": 0, "data_range": 1}
    )


@pytest.mark.parametrize(
    ("observed", "predicted", "options", "words"),
    [
        (np.ones((9, 8)), np.ones((8, 9)), {}, "one shape"),
        (np.ones((2, 9, 8)), np.ones((2, 9, 8)), {}, r"\[y, x\]"),
        (np.eye(6), np.eye(6), {}, "7 × 7"),
        (np.eye(9), 1j * np.eye(9), {}, "amplitude or the phase"),
        (np.eye(9), np.full((9, 9), np.nan), {}, "NaN"),
        (np.eye(9), np.ones((9, 9)), {}, "data range is 0"),
        (np.eye(9), np.eye(9), {"data_range": -1.0}, "data range is -1"),
        (np.eye(9), np.eye(9), {"data_range": "observed"}, "'predicted', 'truth' or a number"),
    ],
)
def test_images_that_cannot_be_compared(observed: Any, predicted: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(FpmError, match=words):
        quality(observed, predicted, **options)


# ---------------------------------------------------------------- gain and phase


@given(st.integers(0, 10**6), st.floats(0.01, 100), st.floats(-3.1, 3.1))
def test_align_finds_the_gain_and_nothing_does_better(seed: int, modulus: float, phase: float) -> None:
    gain, field = modulus * np.exp(1j * phase), random_field((5, 8), seed)
    assert align(gain * field, field) == pytest.approx(gain, rel=1e-9)
    truth = gain * field + modulus * random_field((5, 8), seed + 1)
    best = align(truth, field)
    error = [np.sum(np.abs(truth - g * field) ** 2) for g in (best, best * 1.001, best * np.exp(0.001j))]
    assert error[0] < min(error[1:])


def test_an_empty_field_has_no_gain() -> None:
    assert align(random_field((4, 5)), np.zeros((4, 5), complex)) == 0


def test_phase_rmse_ignores_the_gain_and_wraps() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.5, 1, (12, 31)) * np.exp(1j * rng.uniform(-3, 3, (12, 31)))
    sign = np.where(np.arange(372).reshape(12, 31) % 2, 1, -1)
    assert phase_rmse_rad(truth, 0.3j * truth) == pytest.approx(0, abs=1e-7)
    unit = truth / np.abs(truth)
    assert phase_rmse_rad(unit, unit * np.exp(0.2j * sign) * 5j) == pytest.approx(0.2, rel=1e-9)


def test_phase_rmse_counts_a_pixel_by_the_amplitude_of_the_truth() -> None:
    truth, field = np.ones((10, 13)) + 0j, np.ones((10, 13)) + 0j
    truth[:, 7:] = 0.25
    field[:, 7:] = np.exp(0.5j)
    shift = np.angle(7 + 6 * 0.25 * np.exp(-0.5j))  # of the gain: Σ truth · conj(field)
    weighted = np.sqrt((7 * shift**2 + 6 * 0.25 * (shift + 0.5) ** 2) / (7 + 6 * 0.25))
    even = np.sqrt((7 * shift**2 + 6 * (shift + 0.5) ** 2) / 13)
    assert phase_rmse_rad(truth, field) == pytest.approx(weighted, rel=1e-9)
    assert phase_rmse_rad(truth, field, np.ones((10, 13))) == pytest.approx(even, rel=1e-9)


# ---------------------------------------------------------------- composite and band


@pytest.fixture(scope="module")
def thin() -> Dataset:
    return simulate("thin", image_shape=(26, 33), leds=LEDS, defocus_um=4.0)


def test_a_composite_takes_each_pixel_from_its_own_depth(thin: Dataset) -> None:
    z = (-2.0, 0.0, 2.0)
    planes = np.stack([np.full((20, 31), value, complex) for value in (1 + 1j, 3, 5j)])
    recon = stack(planes, z, thin)
    depth = np.random.default_rng(1).uniform(-2, 2, (20, 31))
    low = np.clip(depth, -2, 0) / 2 + 1
    high = np.clip(depth, 0, 2) / 2
    expected = np.where(depth < 0, (1 - low) * (1 + 1j) + low * 3, (1 - high) * 3 + high * 5j)
    np.testing.assert_allclose(composite(recon, depth, planes=10_000), expected, atol=1e-5)
    spacing = 4 / 64  # the default's 65 planes over almost −2 … 2
    assert np.abs(composite(recon, depth) - expected).max() < 3 * spacing / 2
    assert np.abs(composite(recon, depth, planes=4) - expected).max() > 0.3


def test_a_composite_is_exact_at_constant_depth_and_clamps_what_lies_outside(thin: Dataset) -> None:
    planes = np.stack([random_field((20, 31), i) for i in range(3)])
    recon = stack(planes, (-2.0, 0.0, 2.0), thin)
    np.testing.assert_array_equal(composite(recon, np.full((20, 31), 1.25)), recon.field(1.25))
    np.testing.assert_array_equal(composite(recon, np.full((20, 31), 7.0)), recon.field(2.0))
    np.testing.assert_array_equal(composite(recon, np.full((41, 64), -0.5)), recon.field(-0.5, (41, 64)))


@pytest.mark.parametrize("shape", [(52, 66), (53, 67)])
def test_band_limit_keeps_the_recoverable_band_and_nothing_else(thin: Dataset, shape: tuple[int, int]) -> None:
    field, pixel = random_field(shape), thin.optics.pixel_um / 2
    inside = synthetic_support(thin.optics, LEDS, shape, pixel)
    limited = band_limit(field, thin.optics, LEDS, pixel)
    np.testing.assert_allclose(to_spectrum(limited)[inside], to_spectrum(field)[inside], rtol=1e-9)
    assert np.abs(to_spectrum(limited)[~inside]).max() < 1e-9
    assert 0.02 < inside.mean() < 0.9


# ---------------------------------------------------------------- score


def test_the_truth_scores_perfectly_whatever_its_gain(thin: Dataset) -> None:
    truth = truth_of(thin)
    limited = band_limit(truth.field.astype(complex), thin.optics, LEDS, thin.optics.pixel_um / 2)
    found = score(stack(limited[None] * 0.5j, (4.0,), thin), thin)
    assert found["in_band_db"] > 120
    assert found["psnr"] > 120
    assert found["ssim"] == pytest.approx(1)
    assert found["phase_rmse_rad"] < 1e-6
    assert found["gain"] == pytest.approx(2, rel=1e-6)
    assert found["data_range"] == pytest.approx(np.ptp(np.abs(limited)))
    assert (found["alignment"], found["depth_covered"]) == ("one complex gain", 1.0)


def test_in_band_error_is_what_was_put_in_and_sees_nothing_outside_the_band(thin: Dataset) -> None:
    truth = truth_of(thin).field.astype(complex)
    pixel = thin.optics.pixel_um / 2
    limited = band_limit(truth, thin.optics, LEDS, pixel)
    noise = random_field(truth.shape)
    inside = band_limit(noise, thin.optics, LEDS, pixel)
    inside -= align(inside, limited) * limited  # orthogonal to the truth, so that the gain is 1
    inside *= 10 ** (-40 / 20) * np.linalg.norm(limited) / np.linalg.norm(inside)
    outside = 0.01 * (noise - band_limit(noise, thin.optics, LEDS, pixel))
    wrong, alias = (score(stack((limited + extra)[None], (4.0,), thin), thin) for extra in (inside, outside))
    assert wrong["in_band_db"] == pytest.approx(40, abs=0.01)
    assert alias["in_band_db"] > 100
    assert alias["psnr"] < 60
    expected = quality(np.abs(limited), np.abs(limited + outside), data_range="truth")
    assert alias["psnr"] == pytest.approx(expected["psnr"], abs=1e-2)


def test_a_tilted_truth_is_scored_at_each_columns_depth() -> None:
    data = simulate(image_shape=(20, 27), leds=LEDS, tilt_um=6.0)
    truth = truth_of(data)
    z = tuple(np.linspace(-6, 6, 54).tolist())
    columns = np.arange(54)
    limited = band_limit(truth.field.astype(complex), data.optics, LEDS, data.optics.pixel_um / 2)
    planes = np.zeros((54, *truth.field.shape), complex)
    planes[columns, :, columns] = limited.T  # each plane holds only the column that is in focus there
    assert score(stack(planes, z, data), data)["in_band_db"] > 100
    one_plane = score(stack(limited[None], (0.0,), data), data)
    assert one_plane["in_band_db"] > 100
    assert one_plane["depth_covered"] == 0.0
    half = score(stack(planes[:27], z[:27], data), data)
    assert half["depth_covered"] == pytest.approx(0.5)
    assert half["in_band_db"] < 10


def test_a_coarser_reconstruction_is_resampled_to_the_truth(thin: Dataset) -> None:
    truth = truth_of(thin)
    limited = band_limit(truth.field.astype(complex), thin.optics, LEDS, thin.optics.pixel_um / 2)
    assert score(stack(resample(limited, (40, 50))[None], (4.0,), thin), thin)["in_band_db"] > 100


def test_only_simulations_with_square_pixels_can_be_scored(thin: Dataset) -> None:
    recon = stack(truth_of(thin).field[None], (4.0,), thin)
    with pytest.raises(DataError, match="no truth"):
        score(recon, replace(thin, truth=None))
    odd = Truth(np.ones((52, 99), np.complex64), np.zeros((52, 99), np.float32))
    with pytest.raises(DataError, match="square"):
        score(recon, replace(thin, truth=odd))
    with pytest.raises(OptionError, match="data_range"):
        score(recon, thin, data_range="best")  # type: ignore[arg-type]


# ---------------------------------------------------------------- residual


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_the_true_field_leaves_no_residual(thin: Dataset, scale: float) -> None:
    found = residual(stack(truth_of(thin).field[None] / np.sqrt(scale), (4.0,), thin, scale), thin)
    assert set(found) == {"all", "bright", "dark", "per_led", "chi2", "pictures"}
    assert found["per_led"].shape == (len(LEDS),)
    assert max(found["all"], found["bright"], found["dark"]) < 1e-10


def test_the_residual_is_the_relative_squared_amplitude_error_of_each_led(thin: Dataset) -> None:
    found = residual(stack(1.1 * truth_of(thin).field[None], (4.0,), thin), thin)
    np.testing.assert_allclose(found["per_led"], 0.01, rtol=1e-4)
    assert found["dark"] == pytest.approx(found["per_led"][-1])
    assert found["all"] == pytest.approx(found["per_led"].mean())
    wrong = residual(stack(truth_of(thin).field[None], (9.0,), thin), thin)
    assert wrong["bright"] > 1e-3


def test_the_residual_of_a_stack_is_the_mean_over_its_range(thin: Dataset) -> None:
    field = truth_of(thin).field
    single = [residual(stack(field[None], (z,), thin), thin)["per_led"] for z in (2.0, 4.0, 6.0)]
    found = residual(stack(np.stack([field, field]), (2.0, 6.0), thin), thin, planes=3)
    np.testing.assert_allclose(found["per_led"], np.mean(single, axis=0), rtol=1e-4)


def test_without_dark_leds_there_is_no_dark_residual(thin: Dataset) -> None:
    bright = thin.select(range(6))
    found = residual(stack(truth_of(thin).field[None], (4.0,), bright), bright)
    assert found["dark"] is None
    assert found["all"] == found["bright"]


def test_leds_in_batches_give_the_same_residual(thin: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    recon = stack(1.05 * truth_of(thin).field[None], (4.5,), thin)
    at_once = residual(recon, thin)["per_led"]
    monkeypatch.setattr(prediction, "BATCH_PIXELS", 3 * 26 * 33)
    np.testing.assert_allclose(residual(recon, thin)["per_led"], at_once, rtol=1e-5)
