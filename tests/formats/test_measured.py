"""The readers on measured data: does the physics agree with the LED positions that they give?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.fft

from fpmtools.dataset import Dataset
from fpmtools.formats import load

pytestmark = pytest.mark.data

Find = Callable[[str], Path]


@pytest.fixture(scope="module")
def loaded() -> dict[str, Dataset]:
    return {}


@pytest.fixture
def measured(
    measured_data: Find, loaded: dict[str, Dataset], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str], Dataset]:
    def find(folder: str, name: str) -> Dataset:
        monkeypatch.setenv("FPMTOOLS_DATA", str(measured_data(folder).parent))
        if name not in loaded:
            loaded[name] = load(name)
        return loaded[name]

    return find


def agreement(data: Dataset) -> float:
    """Share of LEDs whose mean brightness, split at its widest gap, tells bright from dark field as |NA| does."""
    level = np.log(data.intensities.mean(axis=(1, 2)))
    ranked = np.sort(level)
    gap = int(np.argmax(np.diff(ranked)))
    return float(np.mean((level > (ranked[gap] + ranked[gap + 1]) / 2) == data.bright_field))


def image_shifts(data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Shift (x, y) of each bright-field image against the most central one, in pixels: measured, and expected.

    The phase k_z z of defocus has the slope +2π na z where the direct light of an LED passes the pupil, which moves
    the image by −z na. So the signs and the order of na's axes show in the raw images.
    """
    centre = data.calibration.order[0]
    spectra = scipy.fft.fft2(data.intensities[data.bright_field])
    spectra[:, 0, 0] = 0
    reference = scipy.fft.fft2(data.intensities[centre])
    correlation = scipy.fft.fftshift(scipy.fft.ifft2(spectra * reference.conj()).real, axes=(-2, -1))
    peaks = correlation.reshape(len(spectra), -1).argmax(axis=1)
    h, w = data.image_shape
    y, x = np.unravel_index(peaks, (h, w))
    assert data.defocus_um is not None
    expected = -data.defocus_um * (data.na[data.bright_field] - data.na[centre]) / data.optics.pixel_um
    return np.stack([x - w // 2, y - h // 2], axis=1), expected


def test_uconn_red(measured: Callable[[str, str], Dataset]) -> None:
    data = measured("uconn_blood_smear", "uconn_red")
    assert data.intensities.shape == (225, 128, 128)
    assert data.defocus_um == pytest.approx(-55)
    assert data.optics.wavelength_um == pytest.approx(0.63)
    assert data.bright_field[0]
    assert data.bright_field.sum() == 21
    assert agreement(data) == 1
    found, expected = image_shifts(data)
    assert np.abs(found - expected).max() < 1
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.95


def test_uconn_holds_amplitudes(measured: Callable[[str, str], Dataset], measured_data: Find) -> None:
    import scipy.io

    amplitude = scipy.io.loadmat(measured_data("uconn_blood_smear") / "bloodsmear_red.mat")["imlow_HDR"]
    data = measured("uconn_blood_smear", "uconn_red")
    np.testing.assert_allclose(data.intensities[17], np.square(amplitude[:, :, 17]), rtol=1e-6)


def test_uconn_aberration(measured: Callable[[str, str], Dataset]) -> None:
    data = measured("uconn_blood_smear", "uconn_aberration")
    pupil = data.calibration.pupil
    assert not pupil.ideal
    assert np.abs(pupil.zernike_rad[3:]).max() > 0.5
    # The patch is off the axis, so the LEDs are seen from the side; one at the pupil's edge may fall on either side.
    assert agreement(data) > 0.99


def test_thu_phase_target(measured: Callable[[str, str], Dataset]) -> None:
    data = measured("thu_phase_target", "thu_phase_target")
    assert data.n_images == 93
    assert data.optics.pixel_um == 1
    assert data.bright_field.sum() == 9
    assert agreement(data) == 1
    found, expected = image_shifts(data)
    assert np.abs(expected).max() > 10
    assert np.abs(found - expected).max() < 2
