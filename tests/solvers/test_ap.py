"""Alternating projections and Adam: what they reach on simulations that share no code with them."""

from __future__ import annotations

import numpy as np
import pytest
from fpmtools_adam import solver as adam
from fpmtools_ap import solver as ap

from fpmtools import engine
from fpmtools.metrics import score
from fpmtools.simulation import simulate
from fpmtools.solver import make_options


def quality(data, solver, **arguments):
    return score(engine.reconstruct(data, solver, **arguments), data)


@pytest.mark.parametrize("shape", [(48, 60), (45, 56), (47, 63)])
@pytest.mark.parametrize("leds", ["rings", "grid"])
def test_ap_is_exact_without_noise_on_the_grid(shape, leds):
    data = simulate("thin", image_shape=shape, leds=leds, on_grid=True)
    assert quality(data, "ap")["in_band_db"] >= 80


def test_ap_is_exact_off_the_grid_too_and_at_a_defocus():
    data = simulate("thin", image_shape=(48, 62), defocus_um=6.5)
    assert quality(data, "ap", z_um=6.5)["in_band_db"] >= 80
    assert quality(data, "ap", z_um=0.0)["in_band_db"] < 20


def test_adam_without_noise():
    data = simulate("thin", image_shape=(48, 60))
    assert quality(data, "adam")["in_band_db"] >= 45
    assert quality(data, "adam", options={"domain": "spectrum", "lr": 0.2})["in_band_db"] >= 30


@pytest.mark.parametrize(("solver", "expected"), [("ap", 38.5), ("adam", 38.5)])
def test_noise_is_averaged(solver, expected):
    data = simulate("thin", image_shape=(64, 72), photons=500)
    assert quality(data, solver)["in_band_db"] >= expected


def test_halving_the_step_pays_with_noise():
    data = simulate("thin", image_shape=(64, 72), photons=500)
    plain = quality(data, "ap", options={"halve_below": 0.0, "sweeps": 15})["in_band_db"]
    assert quality(data, "ap")["in_band_db"] > plain + 1


def test_it_stops_when_there_is_nothing_left_to_gain():
    clean = simulate("thin", image_shape=(48, 60))
    noisy = simulate("thin", image_shape=(48, 60), photons=500)
    sweeps = []
    for data in (clean, noisy):
        visits = []
        problem, solver = engine.prepare(data), ap.AlternatingProjection()
        state = solver.start(problem)
        while not solver.step(state).done:
            visits.append(state.visit)
        sweeps.append(len(visits) / 68)
    assert sweeps[1] < sweeps[0] < 60


def test_the_published_baseline_is_slower():
    data = simulate("thin", image_shape=(48, 60))
    published = quality(data, "ap", preset="paper")["in_band_db"]
    assert 20 < published < quality(data, "ap")["in_band_db"]


@pytest.mark.parametrize("module", [ap, adam])
def test_planes_do_not_depend_on_how_they_are_batched(module, monkeypatch):
    data = simulate("tilted", image_shape=(32, 44), tilt_um=4)
    name = "ap" if module is ap else "adam"
    arguments = {"z_um": [-4.0, -1.0, 2.0, 4.0, 5.0], "options": {"sweeps": 3}}
    together = engine.reconstruct(data, name, **arguments)
    height, width = engine.prepare(data).forward.object_shape
    monkeypatch.setattr(module, "BLOCK_SAMPLES", 2 * height * width)
    apart = engine.reconstruct(data, name, **arguments)
    for z in arguments["z_um"]:
        assert np.allclose(together.field(z), apart.field(z), atol=2e-5)


def test_nothing_is_claimed_outside_the_synthetic_aperture():
    data = simulate("thin", image_shape=(48, 60), photons=100)
    for name in ("ap", "adam"):
        problem = engine.prepare(data)
        cls = ap.AlternatingProjection if name == "ap" else adam.AdamPixels
        found = engine.solve(problem, cls(make_options(cls, {"sweeps": 4}))).reconstruction
        spectrum = np.fft.fftshift(np.fft.fft2(found.native_field(0.0), axes=(-2, -1)), axes=(-2, -1))
        outside = np.abs(spectrum[~problem.forward.synthetic_support()])
        assert outside.max() < 1e-3 * np.abs(spectrum).mean()
