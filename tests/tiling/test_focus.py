"""The surface of focus: through a few depths, of no higher order than they ask for, and past what is wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import fpmtools
from fpmtools.optics import Box, Optics
from fpmtools.tiling import focus
from fpmtools.tiling.plan import Plan

OPTICS = Optics(wavelength_um=0.5, na=0.1, magnification=4, camera_pixel_um=4)  # 50 µm depth of field
FRAME = (300, 421)
PLAN = Plan.of(FRAME, 64, 16)
BOXES: list[Box] = [PLAN.tiles[i].box for i in focus.searched(PLAN)]


def places(boxes: list[Box]) -> tuple[np.ndarray, np.ndarray]:
    y, x = (np.array([box[k] + 32 for box in boxes]) / FRAME[k] * 2 - 1 for k in (0, 1))
    return y, x


def test_nine_places_are_spread_over_the_field() -> None:
    assert len(BOXES) == 9
    assert BOXES[0] == PLAN.tiles[0].box
    assert BOXES[-1] == PLAN.tiles[-1].box


@pytest.mark.parametrize(("terms", "sharp"), [(1, (0.0, 0.0, 0.0)), (3, (30.0, -80.0, 0.0)), (6, (30.0, -80.0, 90.0))])
def test_the_order_that_the_depths_ask_for(terms: int, sharp: tuple[float, float, float]) -> None:
    y, x = places(BOXES)
    noise = np.random.default_rng(0).normal(size=9)
    found = focus.fit(BOXES, 7 + sharp[0] * y + sharp[1] * x + sharp[2] * x * x + noise, FRAME, OPTICS)
    assert found.coefficients.shape == (1, terms)
    y, x = places([tile.box for tile in PLAN.tiles])
    true = 7 + sharp[0] * y + sharp[1] * x + sharp[2] * x * x
    assert np.abs(found.at([tile.box for tile in PLAN.tiles])[:, 0] - true).max() < 4


def test_one_place_that_is_wrong_is_passed_by() -> None:
    y, x = places(BOXES)
    depths = 7 + 30 * y - 80 * x + np.random.default_rng(1).normal(size=9)
    depths[4] += 200
    found = focus.fit(BOXES, depths, FRAME, OPTICS)
    assert np.abs(found.at(BOXES)[:, 0] - (7 + 30 * y - 80 * x)).max() < 10


def test_few_places_give_a_constant() -> None:
    assert focus.fit(BOXES[:1], [4.0], FRAME, OPTICS).coefficients == 4.0
    assert focus.fit(BOXES[:3], [1.0, 40.0, 90.0], FRAME, OPTICS).coefficients.shape == (1, 1)


def test_the_depth_of_a_part_of_a_tilted_sample_is_found() -> None:
    leds = [(0.08 * i, 0.08 * j) for i in range(-2, 3) for j in range(-2, 3)]
    whole = fpmtools.simulate("tilted", image_shape=(48, 150), tilt_um=16.0, leds=leds, seed=2)
    region = replace(whole, truth=None).with_calibration(defocus_um=None).crop(0, 96, 48, 48)
    found = focus.depth(region, region.calibration, 0.0)
    assert found == pytest.approx(-16 + 32 * 120 / 150, abs=0.25 * whole.optics.depth_of_field_um)


def test_a_depth_far_below_the_depth_of_field_is_told() -> None:
    """No pupil is fitted at a tile, which would find what is left."""
    sample = fpmtools.simulate("thin", image_shape=(56, 64), leds="grid", surround=2, defocus_um=3.0, seed=4)
    dataset = replace(sample, truth=None)
    assert dataset.optics.depth_of_field_um / 2 > 3.0, "the distance of the depths that are looked at first"
    calibration = replace(dataset.calibration, defocus_um=None)
    assert focus.depth(dataset, calibration, 0.0) == pytest.approx(3.0, abs=0.7)
