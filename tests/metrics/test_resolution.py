"""Ring correlation against a closed form, its threshold, and what two halves of the LEDs make of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fpmtools import catalogue, reconstruct
from fpmtools.dataset import Dataset
from fpmtools.errors import DataError
from fpmtools.metrics import (
    RingCorrelation,
    correlate_halves,
    half_data_correlation,
    interleaved_halves,
    ring_correlation,
)
from fpmtools.optics import synthetic_support, to_field
from fpmtools.reconstruction import Grid, PlaneStack, Reconstruction
from fpmtools.simulation import simulate


@pytest.mark.parametrize("shape", [(24, 31), (33, 20)])
@pytest.mark.parametrize("planes", [None, 3])
def test_a_phase_difference_on_a_ring_lowers_its_correlation_to_the_cosine(
    shape: tuple[int, int], planes: int | None
) -> None:
    pixel, rng = (0.4, 0.3), np.random.default_rng(0)
    full = (planes or 1, *shape)
    ky, kx = (np.arange(n) - n // 2 for n in shape)
    fy, fx = ky[:, None] / (shape[0] * pixel[0]), kx[None, :] / (shape[1] * pixel[1])
    width = 1 / min(shape[0] * pixel[0], shape[1] * pixel[1])
    ring = np.rint(np.hypot(fy, fx) / width).astype(int)
    angle = np.linspace(0, 2.5, ring.max() + 1)[ring]
    one = rng.uniform(0.5, 2, ring.max() + 1)[ring] * np.ones(full) * np.exp(2j * np.pi * rng.uniform(size=full))
    one[:, (ky[:, None] == -shape[0] / 2) | (kx[None, :] == -shape[1] / 2)] = 0  # without a partner at −f
    one[:, ring == 0] = 0
    odd = np.sign(ky[:, None] + 1e-3 * kx[None, :])  # so that the turns cancel, and align() finds none
    other = 3 * one * np.exp(1j * angle * odd)
    fields = [to_field(spectrum if planes else spectrum[0]) for spectrum in (one, other)]
    found = ring_correlation(*fields, pixel, taper=0)
    last = len(found.frequency) - 1
    assert last == int(min(shape[0] // 2 / (shape[0] * pixel[0]), shape[1] // 2 / (shape[1] * pixel[1])) / width)
    np.testing.assert_allclose(
        found.correlation[1:], np.cos(np.linspace(0, 2.5, ring.max() + 1))[1 : last + 1], atol=1e-9
    )
    np.testing.assert_array_equal(found.samples, [np.sum(ring == k) for k in range(last + 1)])
    np.testing.assert_allclose(found.frequency, width * np.arange(last + 1))
    assert len(ring_correlation(*fields, pixel, cutoff=3.5 * width).frequency) == 4


def test_noise_of_known_size_gives_the_known_correlation() -> None:
    rng, shape = np.random.default_rng(2), (160, 190)
    signal, *noise = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape) for _ in range(3))
    found = ring_correlation(signal + 0.5 * noise[0], 2j * (signal + 0.5 * noise[1]), (0.2, 0.2))
    np.testing.assert_allclose(found.correlation[20:], 1 / 1.25, atol=0.1)
    assert found.correlation[20:].mean() == pytest.approx(1 / 1.25, abs=0.01)
    nothing = ring_correlation(noise[0], noise[1], (0.2, 0.2))
    assert abs(nothing.correlation[20:].mean()) < 0.02


def test_the_threshold_is_half_a_bit_and_the_crossing_is_interpolated() -> None:
    samples = np.array([1, 100, 100, 100, 10**12])
    made = RingCorrelation(np.arange(5) * 0.1, np.array([0, 1, 0.9, 0.1, 0]), samples)
    level = (0.2071 + 0.19102) / (1.2071 + 0.09102)
    np.testing.assert_allclose(made.threshold, [1, level, level, level, 0.2071 / 1.2071], rtol=1e-4)
    crossing = 0.2 + 0.1 * (0.9 - level) / 0.8
    assert made.resolution_um == pytest.approx(1 / crossing)
    assert replace(made, correlation=np.ones(5)).resolution_um == pytest.approx(1 / 0.4)
    assert replace(made, correlation=np.zeros(5)).resolution_um == pytest.approx(1 / 0.05)
    late = replace(made, correlation=np.array([0, 0.1, 0.9, 0.1, 0]))  # coarse structure that neither half has seen
    assert late.resolution_um == made.resolution_um
    assert made.resolution_um_at(0.5) == pytest.approx(1 / 0.25)


@pytest.mark.parametrize("leds", ["rings", "grid"])
def test_each_half_of_the_leds_sees_the_whole_aperture(leds: str) -> None:
    data = simulate("thin", image_shape=(16, 21), leds=leds)
    halves = interleaved_halves(data)
    assert sorted(halves[0] + halves[1]) == list(range(data.n_images))
    assert abs(len(halves[0]) - len(halves[1])) <= 1
    whole = synthetic_support(data.optics, data.na, (160, 210), data.optics.pixel_um)
    for half in halves:
        seen = synthetic_support(data.optics, data.na[half], (160, 210), data.optics.pixel_um)
        assert seen.sum() > 0.95 * whole.sum()
        assert np.linalg.norm(data.na[half], axis=1).min() < 0.08
    with pytest.raises(DataError, match="at least 4"):
        interleaved_halves(data.select([0, 1, 2]))


def test_without_noise_the_resolution_is_the_synthetic_apertures_and_with_noise_it_is_coarser() -> None:
    def resolution(photons: float | None) -> float:
        data = catalogue.make("thin@40x52", photons=photons)

        def solve(part: Dataset) -> Reconstruction:
            return reconstruct(part, "ap", options={"sweeps": 5}, device="cpu")

        return half_data_correlation(data, solve).resolution_um

    limit = 0.5226 / (1.98 * 0.256)
    clean, noisy, worse = resolution(None), resolution(4.0), resolution(0.5)
    assert limit < clean < 1.1 * limit
    assert clean < 0.9 * noisy < 0.9 * 0.9 * worse


def test_results_without_a_common_z_cannot_be_compared(thin: Dataset) -> None:
    extent = (9.0, 11.0)
    one, other = (PlaneStack(np.ones((1, 8, 9), np.complex64), (z,), Grid((8, 9), extent, (z, z))) for z in (0.0, 1.0))
    with pytest.raises(DataError, match="no z in common"):
        correlate_halves(one, other)
    with pytest.raises(DataError, match="one shape"):
        ring_correlation(np.ones((8, 9)), np.ones((9, 8)), (1, 1))
