"""Numbers of a tiny problem in double precision, kept: a change of 0.1 % in the optics or in a step size shows.

Each number is a random weighted sum of a result, so that any change of it shows. After a change that is meant, run
``python tests/physics/test_golden.py`` and look at the difference in golden.json before keeping it.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike

from fpmtools import Dataset, ForwardModel, reconstruct, registry, simulate
from fpmtools.options import make_options
from fpmtools.sampling import SamplingPlan

GOLDEN = Path(__file__).with_name("golden.json")
TOLERANCE = 5e-7
# Solver → what makes it short, and its step size, whose default is part of what is kept.
SOLVERS: dict[str, tuple[dict[str, Any], str]] = {
    "ap": ({"sweeps": 1}, "step"),
    "adam": ({"start": 6, "sweeps": 2}, "lr"),
    "inr": ({"steps": 20, "features": 4}, "lr"),
}


def problem() -> Dataset:
    return simulate("thin", image_shape=(20, 27), defocus_um=3.0, photons=2000.0, seed=1)


def fold(values: ArrayLike) -> float:
    """A weighted sum over everything, relative to the size of the values."""
    flat = np.asarray(values).ravel()
    flat = np.concatenate([flat.real, flat.imag]) if np.iscomplexobj(flat) else flat
    weights = np.random.default_rng(7).standard_normal(flat.size)
    return float(weights @ flat / np.linalg.norm(flat))


def images(data: Dataset) -> float:
    """Of the forward model's amplitudes."""
    assert data.truth is not None
    model = ForwardModel(
        data.optics,
        data.calibration,
        SamplingPlan.full(data.optics, data.image_shape, data.truth.field.shape),
        dtype=torch.complex128,
    )
    return fold(model.amplitude(torch.from_numpy(data.truth.field.astype(np.complex128)), 3.0).numpy())


def solved(data: Dataset, name: str, **changes: Any) -> float:
    """Of a short run of a solver."""
    options = SOLVERS[name][0] | changes
    return fold(
        reconstruct(data, name, options=options, device="cpu", dtype="complex128", seed=3, exact=True).field(3.0)
    )


def all_numbers() -> dict[str, float]:
    data = problem()
    return {"simulation": fold(data.intensities), "forward": images(data)} | {n: solved(data, n) for n in SOLVERS}


@pytest.fixture(scope="module")
def golden() -> dict[str, float]:
    numbers: dict[str, float] = json.loads(GOLDEN.read_text())
    return numbers


@pytest.fixture(scope="module")
def data() -> Dataset:
    return problem()


def test_simulation_and_forward_model_give_the_kept_numbers(data: Dataset, golden: dict[str, float]) -> None:
    assert fold(data.intensities) == pytest.approx(golden["simulation"], abs=TOLERANCE)
    assert images(data) == pytest.approx(golden["forward"], abs=TOLERANCE)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_solver_gives_the_kept_number(data: Dataset, golden: dict[str, float], name: str) -> None:
    # complex64 at the very end of a run in double precision rounds to about 1e-7.
    assert solved(data, name) == pytest.approx(golden[name], abs=TOLERANCE)


@pytest.mark.parametrize("name", ["wavelength_um", "na", "camera_pixel_um"])
def test_a_thousandth_more_in_the_optics_is_seen(data: Dataset, golden: dict[str, float], name: str) -> None:
    changed = replace(data, optics=replace(data.optics, **{name: getattr(data.optics, name) * 1.001}))
    for found, kept in ((images(changed), "forward"), (solved(changed, "ap"), "ap")):
        assert abs(found - golden[kept]) > 10 * TOLERANCE, kept


@pytest.mark.parametrize("name", SOLVERS)
def test_a_thousandth_more_in_the_step_size_is_seen(data: Dataset, golden: dict[str, float], name: str) -> None:
    option = SOLVERS[name][1]
    default = getattr(make_options(registry.solver_class(name), {}), option)
    found = solved(data, name, **{option: default * 1.001})
    assert abs(found - golden[name]) > 10 * TOLERANCE


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GOLDEN.write_text(json.dumps(all_numbers(), indent=2) + "\n")
