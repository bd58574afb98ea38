"""χ²: 1 where noise is all that is not explained; what is said where it is not, and where nothing can be said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fpmtools
from fpmtools.dataset import Dataset
from fpmtools.evaluation import Case, evaluate, fit
from fpmtools.metrics import residual
from fpmtools.reconstruction import Grid, PlaneStack
from fpmtools.simulation import simulate


def grid_data(**changes: Any) -> Dataset:
    settings = {"image_shape": (64, 72), "leds": "grid", "upsample": 4, "photons": 500.0, "read_noise": 3.0}
    return simulate("thin", **(settings | changes))


def known(data: Dataset) -> PlaneStack:
    """The truth as a result."""
    assert data.truth is not None
    return PlaneStack(data.truth.field[None], (0.0,), Grid(data.truth.field.shape, data.extent_um, (0.0, 0.0)))


@pytest.mark.parametrize(("photons", "read"), [(30.0, 0.0), (500.0, 3.0), (1e4, 0.0)])
def test_the_truth_has_a_chi2_of_one(photons: float, read: float) -> None:
    data = grid_data(photons=photons, read_noise=read)
    found = evaluate(known(data), data, ["chi2", "chi2_bright", "chi2_dark"])
    for value in found.values():
        assert value == pytest.approx(1, abs=0.12)
    assert fit.judge(Case(known(data), data)) == ""


def test_chi2_is_the_squared_error_over_the_stated_variance() -> None:
    """Predicted by the truth are the images of the same data set without noise."""
    data = grid_data()
    noisy = residual(known(data), data, variance=lambda image, values: np.full_like(values, 0.01))
    clean = grid_data(photons=None, read_noise=0.0)
    error = np.square(data.intensities - clean.intensities).mean(axis=(1, 2)) / 0.01
    np.testing.assert_allclose(noisy["chi2"]["per_led"], error, rtol=1e-3)
    assert noisy["chi2"]["bright"] == pytest.approx(error[data.bright_field].mean(), rel=1e-3)


def test_a_right_model_has_a_chi2_near_one_and_a_wrong_one_far_above() -> None:
    good, bad = (grid_data(image_shape=(48, 56), aberration_rad=rad) for rad in (0.0, 0.8))
    right, wrong = (
        evaluate(fpmtools.reconstruct(data, "ap", options={"sweeps": 20}), data, ["chi2_bright", "chi2_dark"])
        for data in (good, bad)
    )
    assert all(0.7 < value < 1.3 for value in right.values())
    assert wrong["chi2_bright"] > 5


def test_a_bad_fit_is_told_with_what_is_known_to_be_wrong() -> None:
    data = grid_data(aberration_rad=0.8)
    said = fit.judge(Case(known(data), data))
    assert said.startswith("the fit is bad: χ² is ")
    assert "in bright field" in said
    assert "aberrations of the lens" in said
    assert "borders" not in said  # they repeat
    assert "stopped early" in fit.judge(Case(known(data), data), early=True)
    lifted = data.with_images(data.intensities + 0.2)
    assert "dark level" in fit.judge(Case(known(data), lifted))
    images = grid_data().intensities.copy()
    images[60] *= 2.5
    one = grid_data().with_images(images)
    assert "worst in image 60" in fit.judge(Case(known(one), one))


def test_nothing_is_said_without_noise_or_of_a_stack() -> None:
    clean = grid_data(photons=None, read_noise=0.0)
    assert evaluate(known(clean), clean, ["chi2"]) == {}
    assert fit.judge(Case(known(clean), replace(clean, truth=None))) == ""
    noisy = grid_data()
    field = known(noisy).field(0.0)
    stack = PlaneStack(np.stack([field, field]), (0.0, 2.0), Grid(field.shape, noisy.extent_um, (0.0, 2.0)))
    assert evaluate(stack, noisy, ["chi2"]) == {}
