"""Images that several LEDs light at once: every solver that says so recovers the object from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fpmtools import engine, registry
from fpmtools.dataset import Dataset
from fpmtools.errors import OptionError
from fpmtools.metrics import score
from fpmtools.problem import prepare
from fpmtools.simulation import simulate

LEDS = np.array([[x, y] for y in range(-3, 4) for x in range(-3, 4)]) * 0.09


@pytest.fixture(scope="module")
def several() -> Dataset:
    """49 LEDs in 50 images, each of two or three, with unequal weights; every LED shines in two of them or more."""
    data, rng = simulate("thin", image_shape=(24, 30), leds=LEDS), np.random.default_rng(5)
    patterns = np.zeros((50, 49))
    for half in (slice(25), slice(25, 50)):
        for i, led in enumerate(rng.permutation(49)):
            patterns[half][i % 25, led] = rng.uniform(0.5, 1.5)
    patterns[rng.permutation(50)[:20], rng.permutation(49)[:20]] = 1
    lit = np.tensordot(patterns, data.intensities, axes=1)
    return Dataset.from_arrays(lit, data.na, data.optics, patterns=patterns, truth=data.truth)


CASES = [
    ("ap", {"sweeps": 40}, 45),
    ("adam", {"sweeps": 40}, 30),
    ("epry", {"sweeps": 12}, 25),
    ("mpie", {"sweeps": 12}, 33),
    ("fd", {}, 40),
    ("admm", {"sweeps": 60}, 30),
    ("lbfgs", {"tv": 0, "sweeps": 80}, 80),
    ("inr", {"steps": 80, "features": 8, "hidden": 16}, 17),
    ("lowrank", {"steps": 200}, 17),
]


@pytest.mark.parametrize(("solver", "options", "expected"), CASES, ids=[case[0] for case in CASES])
def test_the_object_is_recovered(several, solver, options, expected):
    result = engine.reconstruct(several, solver, options=options, device="cpu")
    assert score(result, several)["in_band_db"] > expected


def test_patterns_of_other_images_explain_nothing(several):
    shifted = replace(several.calibration, patterns=np.roll(several.calibration.patterns, 1, axis=0))
    wrong = engine.reconstruct(several, "lbfgs", options={"tv": 0, "sweeps": 80}, calibration=shifted, device="cpu")
    assert score(wrong, several)["in_band_db"] < 10


def test_a_solver_that_cannot_take_them_says_so(several):
    solver = type("OneLedEach", (registry.solver_class("mpie"),), {"handles": frozenset()})()
    with pytest.raises(OptionError, match="OneLedEach takes images lit by one LED each; choose a solver"):
        prepare(several, solver)


@pytest.mark.parametrize("solver", ["ap", "admm", "lbfgs"])
def test_planes_and_images_may_be_batched_as_there_is_room(several, solver, monkeypatch):
    arguments = {"options": {"sweeps": 6}, "z_um": [-2.0, 0.0, 3.0], "device": "cpu"}
    whole = engine.reconstruct(several, solver, **arguments)
    monkeypatch.setattr("fpmtools.forward.model.CPU_BATCH_SAMPLES", 5 * 24 * 30)
    apart = engine.reconstruct(several, solver, **arguments)
    for z in arguments["z_um"]:
        assert np.allclose(whole.field(z), apart.field(z), atol=1e-4)
