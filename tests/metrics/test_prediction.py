"""Held-out LEDs: which are chosen, and that their error is the error of what is predicted for them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fpmtools import reconstruct
from fpmtools.dataset import Dataset
from fpmtools.errors import DataError
from fpmtools.metrics import held_out_error, held_out_leds, prediction_error
from fpmtools.reconstruction import PlaneStack, Reconstruction
from fpmtools.simulation import simulate

Stack = Callable[..., PlaneStack]


@pytest.mark.parametrize("leds", ["rings", "grid"])
def test_held_out_leds_are_spread_covered_by_the_rest_and_chosen_by_seed(leds: str) -> None:
    data = simulate("thin", image_shape=(16, 21), leds=leds)
    na = data.na
    apart = np.linalg.norm(na[:, None] - na[None], axis=-1) + 10 * np.eye(len(na))
    for seed in range(4):
        chosen = held_out_leds(data, seed=seed)
        assert len(set(chosen)) == len(chosen) == round(0.1 * len(na))
        assert data.calibration.order[0] not in chosen
        assert apart[np.ix_(chosen, chosen)].min() > 1.4 * np.median(apart.min(axis=1))
        rest = np.delete(na, chosen, axis=0)
        points = np.random.default_rng(0).uniform(-1, 1, (400, 2))
        pupil = points[np.linalg.norm(points, axis=1) < 1] * data.optics.na
        for led in chosen:
            seen = np.linalg.norm((na[led] + pupil)[:, None] - rest[None], axis=-1) <= data.optics.na
            assert seen.any(axis=1).mean() > 0.9
    assert held_out_leds(data, seed=3) == chosen != held_out_leds(data, seed=1)
    assert len(held_out_leds(data, share=0.25)) == round(0.25 * len(na))


def test_too_few_leds_cannot_be_held_out(thin: Dataset) -> None:
    with pytest.raises(DataError, match="at least 5"):
        held_out_leds(thin.select(range(4)))
    with pytest.raises(DataError, match="a share of at most"):
        held_out_leds(thin, share=0.8)


def test_the_error_is_that_of_the_predicted_amplitudes(thin: Dataset, stack: Stack) -> None:
    assert thin.truth is not None
    field = thin.truth.field[None]
    assert prediction_error(stack(field, (4.0,), thin), thin, [3, 30, 60]) < 1e-4
    assert prediction_error(stack(1.1 * field, (4.0,), thin), thin, [3, 30, 60]) == pytest.approx(0.1, rel=1e-3)
    assert prediction_error(stack(field, (9.0,), thin), thin, [3, 30, 60]) > 0.02


def test_a_sample_with_depth_is_predicted_from_the_planes_that_explain_the_other_leds(stack: Stack) -> None:
    data = simulate("tilted", image_shape=(40, 44), tilt_um=8.0)
    assert data.truth is not None
    z = tuple(np.linspace(-8, 8, 9).tolist())
    leds = held_out_leds(data)
    deep = stack(np.repeat(data.truth.field[None], 9, axis=0), z, data)
    flat = stack(data.truth.field[None], (0.0,), data)
    assert prediction_error(deep, data, leds) < 0.6 * prediction_error(flat, data, leds)


def test_the_solver_does_not_see_what_is_held_out(thin: Dataset) -> None:
    seen: list[Dataset] = []

    def solve(part: Dataset) -> Reconstruction:
        seen.append(part)
        return reconstruct(part, "ap", options={"sweeps": 4}, device="cpu")

    leds = held_out_leds(thin)
    error = held_out_error(thin, solve)
    assert seen[0].n_images == thin.n_images - len(leds)
    assert not any((seen[0].na == thin.na[led]).all(axis=1).any() for led in leds)
    worse = held_out_error(
        thin, lambda part: reconstruct(part, "ap", options={"sweeps": 1, "step": 0.05}, device="cpu")
    )
    assert 0 < 3 * error < worse
