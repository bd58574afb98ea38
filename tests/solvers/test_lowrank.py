"""The explicit model of few terms over z: what it is, that it fits, and what it renders between its depths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fpmtools_lowrank.solver import LowRank

from fpmtools import engine
from fpmtools.low_rank import LowRankStack
from fpmtools.metrics import score
from fpmtools.options import make_options
from fpmtools.problem import prepare
from fpmtools.simulation import simulate

Z = (-6.0, 0.0, 6.0)


@pytest.fixture(scope="module")
def tilted():
    return simulate("tilted", image_shape=(40, 48), tilt_um=6)


def solver(**options):
    return LowRank(make_options(LowRank, options))


@pytest.mark.parametrize("parts", ["polar", "cartesian"])
def test_amplitude_and_phase_or_both_parts_are_a_sum_of_terms(tilted, parts):
    problem = prepare(tilted, z_um=Z)
    one = solver(terms=3, parts=parts, start=0.1, splines=5)
    state = one.start(problem)
    maps, axial, mix, _ = (value.detach() for value in state.unknowns.values())
    field = problem.forward.field(one._spectra(state, [Z[0], Z[-1]]).detach())
    for plane, u in zip(
        field, (axial[0], axial[-1]), strict=True
    ):  # at its ends a spline is its first, its last coefficient
        first, second = torch.einsum("yxt,t,tp->pyx", maps, u, mix)
        expected = torch.polar(1 + first, second) if parts == "polar" else torch.complex(1 + first, second)
        expected = problem.forward.field(problem.forward.spectrum(expected) * state.support)
        torch.testing.assert_close(plane, expected, atol=1e-5, rtol=0)


def test_it_fits_and_renders_between_the_depths_that_were_asked_for(tilted):
    few, many = (
        engine.reconstruct(tilted, "lowrank", z_um=z, options={"steps": 200}) for z in (Z, np.linspace(-6, 6, 13))
    )
    assert isinstance(few, LowRankStack)
    assert score(few, tilted)["psnr"] > 24
    between, there = few.field(-3.0), many.field(-3.0)
    there = there * np.exp(1j * np.angle(np.vdot(there, between)))
    assert np.abs(between - there).max() < 0.05


def test_in_2d_it_is_one_plane():
    data = simulate("thin", image_shape=(40, 48), photons=500)
    found = engine.reconstruct(data, "lowrank", options={"steps": 300})
    assert found.rank == 1
    assert score(found, data)["psnr"] > 30


def test_coarser_maps_are_interpolated(tilted):
    problem = prepare(tilted, z_um=Z)
    one = solver(detail=0.5, start=0.1)
    state = one.start(problem)
    height, width = problem.forward.object_shape
    assert state.unknowns["maps"].shape[:2] == (round(height / 2), round(width / 2))
    with torch.no_grad():
        state.unknowns["maps"][:] = state.unknowns["maps"].mean((0, 1))  # the same everywhere: so is the field
    spectrum = one._spectra(state, [0.0]).detach()[0]
    elsewhere = spectrum.abs().sum() - spectrum[height // 2, width // 2].abs()
    assert float(elsewhere) < 1e-3 * height * width
