"""Everything runs on another device than the processor, and with the same numbers, also where there is none."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fpmtools
from fpmtools import engine, registry
from fpmtools.calibration import Calibration
from fpmtools.dataset import Dataset
from fpmtools.forward.gradients import WRT, gradients
from fpmtools.leds import direction_sines, raster
from fpmtools.options import make_options
from fpmtools.problem import prepare
from fpmtools.pupil import Pupil
from fpmtools.simulation import simulate

described = importlib.util.spec_from_file_location("elsewhere", Path(__file__).with_name("elsewhere.py"))
assert described is not None
assert described.loader is not None
elsewhere = importlib.util.module_from_spec(described)
described.loader.exec_module(elsewhere)

SOLVERS = {
    "ap": {"sweeps": 12},
    "epry": {"sweeps": 3},
    "mpie": {"sweeps": 3},
    "fd": {"sweeps": 3},
    "admm": {"sweeps": 8},
    "lbfgs": {"sweeps": 5},
    "adam": {"sweeps": 8},
    "inr": {"steps": 20, "features": 8},
    "lowrank": {"steps": 20, "terms": 8},
}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """25 LEDs, 24 × 30 pixels, with noise; gains, a background and aberrations are known."""
    na = direction_sines(raster(5, 5, 6.0), 74.0)
    made = simulate("thin", image_shape=(24, 30), leds=na, photons=1000.0, seed=3)
    rng = np.random.default_rng(1)
    known = replace(
        Calibration.nominal(na, pupil=Pupil(rng.normal(size=12) * 0.1, softness=0.15)),
        gain=rng.uniform(0.9, 1.1, 25),
        background=np.full(25, 1e-3),
    )
    return replace(made, calibration=known)


def same(here: Any, there: Any) -> bool:
    numbers = there.numbers if isinstance(there, elsewhere.Elsewhere) else there
    return float((here - numbers).norm()) < 1e-3 * float(here.norm()) + 1e-12


def test_tensors_there_and_here_do_not_meet() -> None:
    with pytest.MonkeyPatch.context() as patch, elsewhere.pretended(patch):
        there = torch.arange(6.0, device="cuda").reshape(2, 3)
        assert there.device.type == "cuda"
        assert there[1].sum().item() == 12
        assert (there + 1).cpu().numpy().max() == 6
        with pytest.raises(RuntimeError, match="same device"):
            there + torch.ones(3)
        with pytest.raises(RuntimeError, match="numpy"):
            there.numpy()


@pytest.mark.parametrize("margin", [0, 6])
def test_loss_and_every_gradient(dataset: Dataset, margin: int) -> None:
    wrt = [name for name in WRT if name != "pupil_map"]
    known = dataset.calibration
    dimmed = replace(
        known, pupil=replace(known.pupil, apodization=np.array([0.0, 0.1, -0.1, -0.2]), stop=(0.1, -0.1, 0.9, 0.2))
    )

    def find(device: str) -> Any:
        problem = prepare(dataset, calibration=dimmed, z_um=(-5.0, 5.0), device=device, margin=margin)
        start = problem.first_guess()[None].repeat(2, 1, 1)
        return gradients(problem.forward, start, problem.amplitudes, problem.z_um, wrt=wrt)

    loss, slopes = find("cpu")
    with pytest.MonkeyPatch.context() as patch, elsewhere.pretended(patch):
        found, others = find("cuda")
        assert isinstance(found, elsewhere.Elsewhere)
        assert same(loss, found)
        assert [name for name in wrt if not same(slopes[name], others[name])] == []


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver(dataset: Dataset, solver: str) -> None:
    """And what it keeps for a resume, by which it goes on."""
    cls = registry.solver_class(solver)
    options = make_options(cls, SOLVERS[solver])

    def solve(device: str) -> Any:
        problem = prepare(dataset, cls(options), z_um=(-4.0, 4.0) if solver != "epry" else 0.0, device=device)
        return engine.solve(problem, cls(options)).reconstruction.field(0.0 if solver == "epry" else 4.0)

    here = solve("cpu")
    with pytest.MonkeyPatch.context() as patch, elsewhere.pretended(patch):
        there = solve("cuda")
        assert np.linalg.norm(there - here) < 0.02 * np.linalg.norm(here)
        problem = prepare(dataset, cls(options), z_um=0.0, device="cuda")
        first = cls(options)
        state = first.start(problem)
        first.step(state)
        kept = {name: torch.from_numpy(t.detach().cpu().numpy()).to("cuda") for name, t in first.dump(state).items()}
        second = cls(options)
        second.step(second.restore(problem, kept))


@pytest.mark.slow
def test_images_of_several_leds_and_pixels_that_do_not_count(dataset: Dataset) -> None:
    patterns = np.eye(25) + np.roll(np.eye(25), 7, axis=1)
    lit = np.tensordot(patterns[:18], dataset.intensities, axes=1)
    lit[3, 4:7, 5:9] = lit.max() * 1.01
    pairs = Dataset.from_arrays(lit, dataset.na, dataset.optics, name="pairs", patterns=patterns[:18])
    here = fpmtools.reconstruct(pairs, "ap", z_um=0.0, device="cpu", options={"sweeps": 5}).field(0.0)
    with pytest.MonkeyPatch.context() as patch, elsewhere.pretended(patch):
        there = fpmtools.reconstruct(pairs, "ap", z_um=0.0, device="cuda", options={"sweeps": 5}).field(0.0)
    assert np.linalg.norm(there - here) < 0.02 * np.linalg.norm(here)
