"""Surfaces over a field: of no higher order than the places ask for, the same from wherever they are seen."""

from __future__ import annotations

import numpy as np
import pytest

from fpmtools.errors import DataError
from fpmtools.optics import Box
from fpmtools.surfaces import Surface, fit

FRAME = (0.0, 0.0, 300.0, 421.0)
BOXES: list[Box] = [(y, x, 60, 51) for y in (0, 120, 240) for x in (0, 185, 370)]


def places() -> tuple[np.ndarray, np.ndarray]:
    y, x = (np.array([box[k] + box[k + 2] / 2 for box in BOXES]) / FRAME[k + 2] * 2 - 1 for k in (0, 1))
    return y, x


def test_each_number_has_the_order_it_asks_for() -> None:
    y, x = places()
    noise = 0.01 * np.random.default_rng(0).normal(size=(9, 3))
    values = np.stack([0 * y + 2, 0.7 * y - 0.4 * x, 0.2 + x * x], axis=1) + noise
    found = fit(BOXES, values, FRAME, small=0.1)
    assert found.coefficients.shape == (3, 6)
    assert not found.coefficients[0, 1:].any(), "a constant"
    assert found.coefficients[1, 1:3] == pytest.approx([0.7, -0.4], abs=0.03)
    assert np.abs(found.at(BOXES) - values).max() < 0.05
    assert fit(BOXES[:4], values[:4], FRAME).coefficients.shape == (3, 1), "four places tell no plane"
    assert not fit(BOXES, values, FRAME, small=2.5).coefficients[:, 1:].any(), "no change that is too small to matter"


def test_one_wrong_place_is_passed_by() -> None:
    y, x = places()
    values = (0.7 * y - 0.4 * x)[:, None] + 0.005 * np.random.default_rng(1).normal(size=(9, 1))
    values[5] += 3
    assert np.abs(fit(BOXES, values, FRAME).at(BOXES)[:, 0] - (0.7 * y - 0.4 * x)).max() < 0.1


def test_it_keeps_its_place() -> None:
    found = Surface(np.array([[1.0, 0.5, -0.25]]), FRAME)
    moved = found.seen_from(40, 70)
    assert np.allclose(moved.at([(0, 0, 20, 30)]), found.at([(40, 70, 20, 30)]))
    more = found.plus(np.array([0.5, 2.0]))
    assert np.allclose(more.at([(1, 2, 3, 4)]), [[found.at([(1, 2, 3, 4)])[0, 0] + 0.5, 2.0]])


@pytest.mark.parametrize("coefficients", [np.ones((1, 2)), np.ones(3), np.array([[np.nan]])])
def test_what_it_cannot_be(coefficients: np.ndarray) -> None:
    with pytest.raises(DataError, match="coefficients"):
        Surface(coefficients, FRAME)
    with pytest.raises(DataError, match="its place"):
        Surface(np.ones((1, 1)), (0.0, 0.0, 0.0, 4.0))
