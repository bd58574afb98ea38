"""What the solvers are for: pupils, vignetting, noise, stacks."""

from __future__ import annotations

import numpy as np
import pytest

from fpmtools import engine
from fpmtools.metrics import score
from fpmtools.simulation import simulate

NOLL = {"astigmatism_45": 4, "astigmatism_0": 5, "coma_y": 6, "coma_x": 7, "spherical": 10}  # from 0


def in_band(data, solver, **arguments):
    return score(engine.reconstruct(data, solver, device="cpu", **arguments), data)["in_band_db"]


@pytest.mark.parametrize(
    ("solver", "expected"), [("mpie", 100), ("lbfgs:tv=0", 100), ("lbfgs", 45), ("admm", 60), ("fd", 25)]
)
def test_without_noise(solver, expected):
    name, *options = solver.split(":")
    data = simulate("thin", image_shape=(40, 48))
    assert in_band(data, name, options=dict(option.split("=") for option in options)) > expected


def test_epry_finds_the_pupil_and_keeps_it_in_its_result():
    data = simulate("thin", image_shape=(40, 48), aberration_rad=0.7, photons=500)
    result = engine.reconstruct(data, "epry", device="cpu")
    assert score(result, data)["in_band_db"] > 25 > 20 > in_band(data, "ap")
    truth = np.zeros(21)
    for name, size in data.provenance["actual"]["aberrations_rad"].items():
        truth[NOLL[name]] = size
    assert np.abs(result.calibration.pupil.zernike_rad - truth).max() < 0.1
    assert data.calibration.pupil.ideal


def test_fd_forgives_vignetting():
    data = simulate("thin", image_shape=(48, 60), vignetting=0.6, photons=500)
    assert in_band(data, "fd") > in_band(data, "ap") + 5


def test_total_variation_and_denoisers_help_with_noise():
    data = simulate("bars", image_shape=(40, 48), photons=100)
    plain = in_band(data, "lbfgs", options={"tv": 0})
    assert in_band(data, "lbfgs", options={"tv": 1e-4}) > plain + 0.3


@pytest.mark.parametrize(("loss", "expected"), [("poisson", 30), ("feature", 20)])  # the latter has corners
def test_lbfgs_takes_any_loss(loss, expected):
    data = simulate("thin", image_shape=(40, 48), photons=500)
    assert in_band(data, "lbfgs", loss=loss) > expected


@pytest.mark.parametrize("solver", ["mpie", "lbfgs"])
def test_a_plane_is_the_same_alone_and_in_a_stack(solver):
    data = simulate("tilted", image_shape=(24, 30), tilt_um=3)
    how = {"options": {"sweeps": 8}, "device": "cpu", "exact": True}
    stack = engine.reconstruct(data, solver, z_um=[-2.0, 0.0, 2.0], **how)
    alone = engine.reconstruct(data, solver, z_um=0.0, **how)
    first, second = (result.field(0.0) for result in (stack, alone))
    second = second * np.vdot(second, first) / np.vdot(second, second)
    assert np.abs(first - second).max() < 1e-3
