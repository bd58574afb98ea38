"""Photons per unit and read noise are found from the images alone."""

from __future__ import annotations

import numpy as np
import pytest

from fpmtools import noise
from fpmtools.simulation import simulate


@pytest.mark.parametrize(("photons", "read"), [(50, 0.0), (500, 10.0), (2e4, 50.0)])
def test_photons_and_read_noise(photons: float, read: float) -> None:
    data = simulate("thin", image_shape=(72, 90), leds="grid", upsample=4, photons=photons, read_noise=read, seed=3)
    unit = photons / data.images.means[data.bright_field].mean()  # photons per unit, of the simulation
    found = noise.measure(data)
    assert found.one_law
    assert found.scatter < 0.2
    assert found.photons_per_unit[0] == pytest.approx(unit, rel=0.06)
    assert found.read_noise[0] == pytest.approx(read / unit, rel=0.1, abs=0.1 / unit)


def test_exposures_of_different_length_have_their_own_law() -> None:
    """Dark field exposed 30 times longer and divided by it again: 30 times the photons per unit."""
    data = simulate("thin", image_shape=(72, 90), leds="grid", upsample=4, photons=500, seed=3)
    long = simulate("thin", image_shape=(72, 90), leds="grid", upsample=4, photons=15000, seed=3)
    bright = data.bright_field
    found = noise.measure(data.with_images(np.where(bright[:, None, None], data.intensities, long.intensities)))
    assert not found.one_law
    ratio = np.median(found.photons_per_unit[~bright]) / np.median(found.photons_per_unit[bright])
    assert ratio == pytest.approx(30, rel=0.35)


def test_the_exponent_tells_amplitudes_and_squares_from_intensities() -> None:
    data = simulate("thin", image_shape=(72, 90), leds="grid", upsample=4, photons=500, seed=3)
    exponents = [noise.measure(data.with_images(data.intensities**power)).exponent for power in (0.5, 1, 2)]
    assert exponents == pytest.approx([0, 1, 1.5], abs=0.2)


def test_the_variance_is_the_stated_one() -> None:
    rng = np.random.default_rng(0)
    flat = rng.poisson(200.0, (3, 64, 64)) + rng.normal(0, 5, (3, 64, 64))
    data = simulate("thin", image_shape=(64, 64), leds=[[0, 0], [0.01, 0], [0, 0.01]]).with_images(flat)
    found = noise.measure(data)
    assert found.variance(1, np.array(200.0)) == pytest.approx(225, rel=0.1)
