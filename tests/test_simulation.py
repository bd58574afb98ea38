"""The simulation against slower, independent formulas, and its sample, noise and refusals."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq

from fpmtools.errors import FpmError
from fpmtools.forward import ForwardModel
from fpmtools.imaging import column_depths_um, image_intensities
from fpmtools.optics import Optics
from fpmtools.phantom import blood_smear
from fpmtools.sampling import SamplingPlan
from fpmtools.simulation import OPTICS, simulate

LEDS = np.array([[0.0, 0.0], [0.11, -0.06], [-0.17, 0.13], [0.02, 0.29]])
IMMERSED = Optics(wavelength_um=0.6, na=0.3, magnification=8, camera_pixel_um=5.0, medium_index=1.33)


def random_field(shape: tuple[int, int], seed: int = 0) -> NDArray[np.complex128]:
    rng = np.random.default_rng(seed)
    return np.asarray(rng.uniform(0.4, 1, shape) * np.exp(1j * rng.uniform(-1, 1, shape)))


def axial(optics: Optics, fy: Any, fx: Any) -> Any:
    """k_z in cycles per µm."""
    return np.sqrt((optics.medium_index / optics.wavelength_um) ** 2 - fy**2 - fx**2)


@pytest.mark.parametrize("shape", [(15, 22), (16, 21), (33, 12)])
@pytest.mark.parametrize("z", [0.0, -4.5])
def test_on_the_grid_a_thin_sample_gives_crop_times_pupil(shape: tuple[int, int], z: float) -> None:
    (h, w), field = shape, random_field((2 * shape[0], 3 * shape[1]))
    pixel, step = IMMERSED.pixel_um, IMMERSED.wavelength_um / (np.array(shape[::-1]) * IMMERSED.pixel_um)
    orders = np.array([[0, 0], [2, -3], [-1, 2]])
    images = image_intensities(field, IMMERSED, orders * step, shape, defocus_um=z)
    fy, fx = np.fft.fftfreq(h, pixel)[:, None], np.fft.fftfreq(w, pixel)[None, :]
    pupil = (fy**2 + fx**2 <= (IMMERSED.na / IMMERSED.wavelength_um) ** 2) * np.exp(
        2j * np.pi * axial(IMMERSED, fy, fx) * z
    )
    spectrum = np.fft.fft2(field) / field.size
    for image, (kx, ky) in zip(images, orders, strict=True):
        rows, columns = np.rint(fy[:, 0] * h * pixel).astype(int) + ky, np.rint(fx[0] * w * pixel).astype(int) + kx
        crop = spectrum[np.ix_(rows % field.shape[0], columns % field.shape[1])]
        np.testing.assert_allclose(image, np.abs(np.fft.ifft2(crop * pupil) * h * w) ** 2, rtol=1e-9, atol=1e-12)


def mismatch(fx: float, fy: float, order: float, shift: float, slope: float, incident: float) -> float:
    """Along a plane z = slope · x: spatial frequency of a wave less that of a diffraction order of the illumination."""
    return float(fx - slope * axial(OPTICS, fy, fx) - (order - shift - slope * incident))


@pytest.mark.parametrize("tilt", [0.0, 1.4, -1.4])
def test_off_the_grid_every_order_is_one_wave_if_the_pupil_passes_it(tilt: float) -> None:
    (h, w), (rows, columns), z = (12, 10), (24, 30), 3.0
    field = random_field((rows, columns), 1)
    images = image_intensities(field, OPTICS, LEDS, (h, w), defocus_um=z, tilt_um=tilt)
    y, x = np.mgrid[:h, :w] * OPTICS.pixel_um
    (yy, xx), (height, width) = np.mgrid[:rows, :columns], (h * OPTICS.pixel_um, w * OPTICS.pixel_um)
    slope, first = 2 * tilt / (columns - 1) * columns / width, z - tilt
    for image, (sx, sy) in zip(images, LEDS / OPTICS.wavelength_um, strict=True):
        low = np.zeros((h, w), complex)
        for my, mx in itertools.product(range(-rows // 2, rows // 2), range(-columns // 2, columns // 2)):
            fy = my / height - sy

            if abs(fy) < OPTICS.cutoff:
                edge = np.sqrt(OPTICS.cutoff**2 - fy**2)
                known = (fy, mx / width, sx, slope, axial(OPTICS, sy, sx))
                if mismatch(-edge, *known) <= 0 <= mismatch(edge, *known):
                    fx = brentq(mismatch, -edge, edge, args=known, xtol=1e-15)
                    order = np.mean(field * np.exp(-2j * np.pi * (my * yy / rows + mx * xx / columns)))
                    low += order * np.exp(2j * np.pi * (axial(OPTICS, fy, fx) * first + fy * y + fx * x))
        np.testing.assert_allclose(image, np.abs(low) ** 2, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("optics", [OPTICS, IMMERSED])
@pytest.mark.parametrize("width", [121, 124])
def test_tilted_images_are_the_sum_of_what_each_column_sends_from_its_depth(optics: Optics, width: int) -> None:
    """Huygens' sum over the columns of a grain small enough for both pupil and field of view to hold all its light."""
    (h, w), tilt, defocus = (90, width), 9.0, 2.0
    pixel = optics.pixel_um
    y, x = (np.arange(n) * pixel for n in (h, w))
    z = np.linspace(defocus - tilt, defocus + tilt, w)
    away = (y[:, None] - y.mean()) ** 2 + (x[None, :] - 0.4 * x[-1]) ** 2
    grain = (0.5 - 0.4j) * np.exp(-away / (2 * 2.5**2))
    leds = np.array([[0.0, 0.0], [0.08, -0.05], [-0.09, 0.03]])
    images = image_intensities(1 + grain, optics, leds, (h, w), defocus_um=defocus, tilt_um=tilt)
    slope = (z[1] - z[0]) / pixel
    fy, fx = (np.fft.fftfreq(n, pixel) for n in (h, w))
    for image, (sx, sy) in zip(images, leds / optics.wavelength_um, strict=True):
        light = np.exp(-2j * np.pi * (sx * x + sy * y[:, None] + axial(optics, sy, sx) * z))
        by_row = np.fft.fft(grain * light, axis=0)
        seen = np.zeros((h, w), complex)
        for i, j in zip(*np.nonzero(np.hypot(fy[:, None], fx[None, :]) <= optics.cutoff), strict=True):
            kz = axial(optics, fy[i], fx[j])
            column_sum = np.sum(by_row[i] * np.exp(-2j * np.pi * (fx[j] * x - kz * z)))
            obliquity = 1 + slope * fx[j] / kz
            seen[i, j] = column_sum * obliquity
        field = np.exp(-2j * np.pi * (sx * x + sy * y[:, None])) + np.fft.ifft2(seen)
        np.testing.assert_allclose(image, np.abs(field) ** 2, atol=2e-4)
        assert np.ptp(image) > 0.1


@pytest.mark.parametrize("tilt", [0.0, 8.0])
def test_a_clear_sample_is_one_in_bright_and_zero_in_dark_field(tilt: float) -> None:
    images = image_intensities(np.ones((34, 26), complex), OPTICS, LEDS, (17, 13), defocus_um=1.5, tilt_um=tilt)
    np.testing.assert_allclose(images[:3], 1, rtol=1e-12)
    np.testing.assert_allclose(images[3], 0, atol=1e-12)


def test_thin_images_agree_with_the_forward_model() -> None:
    data = simulate("thin", image_shape=(30, 37), defocus_um=6.0, leds="grid")
    assert data.truth is not None
    model = ForwardModel(
        data.optics,
        data.calibration,
        SamplingPlan.full(data.optics, data.image_shape, data.truth.field.shape),
        dtype=torch.complex128,
    )
    predicted = model.amplitude(torch.from_numpy(data.truth.field.astype(np.complex128)), 6.0)[0].numpy()
    np.testing.assert_allclose(predicted**2, data.intensities, rtol=1e-5, atol=1e-7)


def test_the_data_set_says_what_was_simulated() -> None:
    data = simulate(image_shape=(24, 19), upsample=3, tilt_um=5.0, defocus_um=1.0, seed=4)
    assert data.truth is not None
    assert data.intensities.shape == (68, 24, 19)
    assert data.intensities.dtype == np.float32
    assert data.truth.field.shape == (72, 57)
    assert data.truth.depth_um[:, 0] == pytest.approx(np.full(72, -4.0))
    assert data.truth.depth_um[:, -1] == pytest.approx(np.full(72, 6.0))
    assert data.defocus_um is None
    assert data.bright_field.all()
    assert data.optics.check(data.na, (24, 19), upsample=3) == []
    assert np.linalg.norm(data.na, axis=1).max() == pytest.approx(0.98 * 0.256, rel=1e-3)
    recorded = json.loads(json.dumps(data.provenance))["arguments"]
    again = simulate(**recorded)
    assert again.digest == data.digest
    np.testing.assert_array_equal(again.truth.field if again.truth else [], data.truth.field)


def test_a_thin_sample_ignores_the_tilt_and_knows_its_focus() -> None:
    data = simulate("thin", image_shape=(16, 20), tilt_um=5.0, defocus_um=-3.0, leds=LEDS)
    assert data.truth is not None
    assert data.defocus_um == -3.0
    np.testing.assert_array_equal(data.truth.depth_um, np.float32(-3))


def test_on_grid_moves_each_led_to_the_nearest_whole_shift() -> None:
    free, fixed = (simulate(image_shape=(40, 51), leds="grid", on_grid=on) for on in (False, True))
    step = fixed.optics.wavelength_um / (np.array([51, 40]) * fixed.optics.pixel_um)
    np.testing.assert_allclose(fixed.na / step, np.rint(free.na / step), atol=1e-9)


def test_optics_can_be_changed_one_number_at_a_time() -> None:
    data = simulate(image_shape=(16, 20), leds=LEDS, optics={"wavelength_um": 0.63, "medium_index": 1.33})
    assert data.optics.to_dict() == {**OPTICS.to_dict(), "wavelength_um": 0.63, "medium_index": 1.33}
    assert simulate(image_shape=(16, 20), leds=LEDS, optics=IMMERSED).optics == IMMERSED


def test_seed_chooses_the_sample_and_the_noise_leaves_it_alone() -> None:
    size: dict[str, Any] = {"image_shape": (20, 27), "leds": LEDS}
    clean, noisy, again = simulate(**size), simulate(**size, photons=100), simulate(**size, photons=100)
    other = simulate(**size, seed=1)
    assert clean.truth is not None
    for data in (noisy, again):
        assert data.truth is not None
        np.testing.assert_array_equal(data.truth.field, clean.truth.field)
    np.testing.assert_array_equal(noisy.intensities, again.intensities)
    assert not np.array_equal(noisy.intensities, clean.intensities)
    assert other.truth is not None
    assert not np.allclose(other.truth.field, clean.truth.field)


def test_photon_and_read_noise_have_the_variance_they_should() -> None:
    size: dict[str, Any] = {"image_shape": (60, 71), "leds": LEDS}
    clean = simulate(**size).intensities.astype(float)
    scale = 400 / clean[:3].mean()  # three of the four LEDs are bright field
    for read_noise in (0.0, 7.0):
        noise = (simulate(**size, photons=400, read_noise=read_noise).intensities - clean) * scale
        expected = (clean * scale).mean(axis=(1, 2)) + read_noise**2
        np.testing.assert_allclose(noise.var(axis=(1, 2)), expected, rtol=0.12)
        assert np.all(np.abs(noise.mean(axis=(1, 2))) < 5 * np.sqrt(expected / noise[0].size))
    counts = simulate(**size, photons=400).intensities * scale
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-3)


def test_the_blood_smear_has_cells_and_detail_that_only_the_synthetic_aperture_passes() -> None:
    shape, pixel = (140, 187), OPTICS.pixel_um / 2
    field = blood_smear(shape, pixel)
    amplitude, phase = np.abs(field), np.angle(field)
    assert 0.2 < amplitude.min() < 0.65
    assert 0.95 < np.quantile(amplitude, 0.95) < 1.1
    assert 1.2 < phase.max() < np.pi
    assert 0.2 < np.mean(phase > 0.5) < 0.7
    frequency = np.hypot(np.fft.fftfreq(shape[0], pixel)[:, None], np.fft.fftfreq(shape[1], pixel)[None, :])
    power = np.abs(np.fft.fft2(field)) ** 2
    gained = (frequency > OPTICS.cutoff) & (frequency < 1.98 * OPTICS.cutoff)
    assert power[gained].sum() > 0.01 * power[frequency > 0].sum()


def test_depths_run_evenly_from_column_to_column() -> None:
    np.testing.assert_allclose(column_depths_um(5, 1.0, 4.0), [-3, -1, 1, 3, 5])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sample": "titled"}, "did you mean 'tilted'"),
        ({"leds": "ring"}, "did you mean 'rings'"),
        ({"leds": [[0.1, 0.2, 0.3]]}, "direction sines"),
        ({"leds": [[0.1, np.nan]]}, "finite"),
        ({"leds": [[0.9, 0.9]]}, "below the medium's index 1"),
        ({"leds": [[0.0, 0.0], [0.8, 0.0]], "upsample": 1}, "use 2"),
        ({"optics": {"lambda": 0.5}}, "unknown optics value"),
        ({"optics": {"camera_pixel_um": 20.0}, "upsample": 4}, "under-sampled"),
        ({"image_shape": (7, 30)}, "at least 8 × 8"),
        ({"upsample": 1.5}, "whole number"),
        ({"seed": -1}, "whole number of at least 0"),
        ({"tilt_um": np.inf}, "finite"),
        ({"surround": 0}, "surround must be a whole number of at least 1"),
        ({"thickness_um": np.nan}, "thickness_um must lie in 0"),
        ({"aberration_rad": -1.0}, "aberration_rad must lie in 0"),
        ({"misaligned_na": 0.6}, "misaligned_na must lie in 0"),
        ({"vignetting": 1.0}, "vignetting must lie in 0 … 0.95"),
        ({"photons": 0.0}, "photons must be positive"),
        ({"read_noise": 3.0}, "needs photons"),
        ({"leds": [[0.3, 0.0], [0.0, 0.3]], "photons": 50.0}, "every LED is dark field"),
    ],
)
def test_what_cannot_be_simulated_is_refused_in_one_line(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(FpmError, match=words) as caught:
        simulate(**{"image_shape": (20, 27), **arguments})
    assert "\n" not in str(caught.value)
