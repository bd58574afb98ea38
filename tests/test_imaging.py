"""Images of thick, aberrated and vignetted samples against independent formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fpmtools.calibration import Calibration
from fpmtools.forward import ForwardModel
from fpmtools.imaging import image_intensities, multislice_intensities, vignetting_gain, zernike_phase
from fpmtools.optics import Optics
from fpmtools.pupil import Pupil
from fpmtools.sampling import SamplingPlan
from fpmtools.simulation import OPTICS

IMMERSED = Optics(wavelength_um=0.6, na=0.3, magnification=8, camera_pixel_um=5.0, medium_index=1.33)
LEDS = np.array([[0.0, 0.0], [0.11, -0.06], [-0.17, 0.13], [0.02, 0.29]])


def random_slices(count: int, shape: tuple[int, int], seed: int = 0) -> NDArray[np.complex128]:
    rng = np.random.default_rng(seed)
    return np.asarray(rng.uniform(0.4, 1, (count, *shape)) * np.exp(1j * rng.uniform(-1, 1, (count, *shape))))


def oracle(
    slices: NDArray[np.complex128], z: list[float], optics: Optics, sine: NDArray[np.float64], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """The whole wave, with the illuminating plane wave in it; light runs from the greatest z to 0."""
    (h, w), (rows, columns) = shape, slices.shape[1:]
    fy = np.fft.fftfreq(rows, h * optics.pixel_um / rows)[:, None]
    fx = np.fft.fftfreq(columns, w * optics.pixel_um / columns)[None, :]
    beyond = (optics.medium_index / optics.wavelength_um) ** 2 - fy**2 - fx**2
    y = np.arange(rows)[:, None] * h * optics.pixel_um / rows
    x = np.arange(columns)[None, :] * w * optics.pixel_um / columns
    wave = np.exp(-2j * np.pi * (sine[0] * x + sine[1] * y) / optics.wavelength_um)
    place = max(z)
    for index in np.argsort(z)[::-1]:
        gap = place - z[index]
        run = np.where(beyond > 0, np.exp(2j * np.pi * np.sqrt(np.abs(beyond)) * gap), 0) if gap else 1.0
        wave = np.fft.ifft2(np.fft.fft2(wave) * run) * slices[index]
        place = z[index]
    focused = np.fft.fft2(wave) / wave.size * np.exp(2j * np.pi * np.sqrt(np.maximum(beyond, 0)) * place)
    focused *= fy**2 + fx**2 <= (optics.na / optics.wavelength_um) ** 2
    low = np.zeros((h, w), complex)
    for i, j in zip(*np.nonzero(focused), strict=True):
        low[(i if i < rows / 2 else i - rows) % h, (j if j < columns / 2 else j - columns) % w] = focused[i, j]
    return np.asarray(np.abs(np.fft.ifft2(low) * h * w) ** 2)


@pytest.mark.parametrize("optics", [OPTICS, IMMERSED])
@pytest.mark.parametrize("shape", [(16, 21), (15, 12)])
def test_multislice_is_the_whole_wave_running_through_all_slices(optics: Optics, shape: tuple[int, int]) -> None:
    (h, w), z = shape, [-2.0, 5.5, 1.0]
    slices = random_slices(3, (4 * h, 4 * w))
    sines = np.array([[0, 0], [2, -1], [-1, 2]]) * optics.wavelength_um / (np.array([w, h]) * optics.pixel_um)
    images = multislice_intensities(slices, np.array(z), optics, sines, shape)
    for image, sine in zip(images, sines, strict=True):
        np.testing.assert_allclose(image, oracle(slices, z, optics, sine, shape), rtol=1e-8, atol=1e-11)


def test_one_slice_among_clear_ones_is_a_thin_sample_at_its_own_depth() -> None:
    (sample,) = random_slices(1, (34, 44))
    # So smooth that no wave is lost on the way: only what the pupil could pass anyway, under any LED.
    spectrum = np.fft.fft2(sample)
    sample = np.fft.ifft2(spectrum * (np.hypot(np.fft.fftfreq(34)[:, None], np.fft.fftfreq(44)) < 0.25))
    clear = np.ones_like(sample)
    for index, z in enumerate((-3.0, 0.5, 4.0)):
        slices = np.stack([sample if i == index else clear for i in range(3)])
        images = multislice_intensities(slices, np.array([-3.0, 0.5, 4.0]), OPTICS, LEDS, (17, 22))
        thin = image_intensities(sample, OPTICS, LEDS, (17, 22), defocus_um=z)
        np.testing.assert_allclose(images, thin, rtol=1e-8, atol=1e-11)


def test_clear_slices_are_one_in_bright_and_zero_in_dark_field() -> None:
    images = multislice_intensities(np.ones((4, 34, 26)), np.linspace(-5, 5, 4), OPTICS, LEDS, (17, 13))
    np.testing.assert_allclose(images[:3], 1, rtol=1e-12)
    np.testing.assert_allclose(images[3], 0, atol=1e-12)


def test_the_aberrations_are_orthonormal_over_the_pupil() -> None:
    n = np.arange(20000) + 0.5
    radius, angle = OPTICS.cutoff * np.sqrt(n / n.size), n * np.pi * (3 - np.sqrt(5))
    names = ("astigmatism_0", "astigmatism_45", "coma_x", "coma_y", "spherical")
    modes = [zernike_phase(OPTICS, {name: 1.0})(radius * np.sin(angle), radius * np.cos(angle)) for name in names]
    np.testing.assert_allclose(np.cov(modes, bias=True), np.eye(5), atol=2e-3)
    np.testing.assert_allclose(np.mean(modes, axis=1), 0, atol=1e-3)


def test_an_aberrated_image_is_the_forward_models_with_that_pupil() -> None:
    shape, sizes = (24, 31), {"astigmatism_45": 0.8, "coma_x": -0.6, "spherical": 0.5}
    (sample,) = random_slices(1, (48, 62))
    step = OPTICS.wavelength_um / (np.array(shape[::-1]) * OPTICS.pixel_um)
    sines = np.array([[0, 0], [2, -1], [-1, 2]]) * step
    phase = zernike_phase(OPTICS, sizes)
    fy, fx = ((np.arange(n) - n // 2) / (n * OPTICS.pixel_um) for n in shape)
    pupil = np.exp(1j * phase(np.broadcast_to(fy[:, None], shape), np.broadcast_to(fx, shape)))
    extent = (shape[0] * OPTICS.pixel_um, shape[1] * OPTICS.pixel_um)
    known = Calibration.nominal(sines, pupil=Pupil.from_map(pupil, OPTICS, extent))
    model = ForwardModel(OPTICS, known, SamplingPlan.full(OPTICS, shape, (48, 62)), dtype=torch.complex128)
    predicted = model.amplitude(torch.from_numpy(sample), 2.0)[0].numpy() ** 2
    images = image_intensities(sample, OPTICS, sines, shape, defocus_um=2.0, aberration=phase)
    np.testing.assert_allclose(images, predicted, rtol=1e-7, atol=1e-9)
    assert np.abs(images - image_intensities(sample, OPTICS, sines, shape, defocus_um=2.0)).max() > 0.05


def test_vignetting_darkens_the_corners_and_follows_the_led() -> None:
    gain = vignetting_gain((21, 31), np.array([[0.0, 0.0], [0.2, 0.0], [0.0, -0.1]]), OPTICS, 0.6)
    assert gain.shape == (3, 21, 31)
    assert gain[0, 10, 15] == 1
    assert gain[0, 0, 0] == gain[0, -1, -1] == pytest.approx(0.4)
    brightest = [np.unravel_index(int(image.argmax()), image.shape) for image in gain]
    assert brightest[0] == (10, 15)
    assert brightest[1][0] == 10
    assert brightest[1][1] == pytest.approx(15 + 15 * 0.2 / 0.256 / 2, abs=0.5)
    assert brightest[2] == (pytest.approx(10 - 10 * 0.1 / 0.256 / 2, abs=0.5), 15)
    assert vignetting_gain((8, 9), LEDS, OPTICS, 0.95).min() > 0
