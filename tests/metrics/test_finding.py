"""Three-bar elements are found: of a target drawn here, however it is turned; and none where there are none."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

import fpmtools
from fpmtools.metrics.finding import find_bars
from fpmtools.metrics.targets import bar_contrast, usaf_per_mm

SHAPE, PIXEL = (250, 256), 0.5  # µm
FINE = 4  # samples of the drawing in a pixel, along each axis
ELEMENTS = ((7, 1), (7, 3), (7, 5), (8, 1), (8, 3))


@dataclass(frozen=True)
class Drawn:
    x_um: float
    y_um: float
    per_mm: float
    angle_deg: float
    label: str


def target(turn_deg: float = 0.0) -> tuple[NDArray[np.float64], list[Drawn]]:
    """Bars of 1 on 0, each element along both axes of the target; and a square and a ring, which are none."""
    y, x = ((np.arange(n * FINE) + 0.5) / FINE * PIXEL for n in SHAPE)
    middle_x, middle_y = SHAPE[1] * PIXEL / 2, SHAPE[0] * PIXEL / 2
    c, s = math.cos(math.radians(turn_deg)), math.sin(math.radians(turn_deg))
    u = c * (x - middle_x) + s * (y[:, None] - middle_y)
    v = c * (y[:, None] - middle_y) - s * (x - middle_x)
    image, elements, down = np.zeros(u.shape, bool), [], -36.0
    for group, element in ELEMENTS:
        width = 500 / usaf_per_mm(group, element)
        for across, angle in ((-22.0, 0.0), (6.0, 90.0)):
            p, q = (u - across, v - down) if angle == 0 else (v - down, u - across)
            for k in (-2, 0, 2):
                image |= (np.abs(p - k * width) < width / 2) & (np.abs(q) < 2.5 * width)
            place = middle_x + c * across - s * down, middle_y + s * across + c * down
            elements.append(Drawn(*place, 500 / width, angle + turn_deg, f"{group}.{element}"))
        down += 4 * width + 8
    image |= (np.abs(u - 32) < 8) & (np.abs(v) < 8)
    image |= np.abs(np.hypot(u - 32, v - 28) - 6) < 1.5
    return image.reshape(SHAPE[0], FINE, SHAPE[1], FINE).mean((1, 3)), elements


@pytest.mark.parametrize(("turn_deg", "dark"), [(0.0, False), (17.0, True), (-38.0, False)])
def test_every_element_is_found_and_nothing_else(turn_deg: float, dark: bool) -> None:
    image, elements = target(turn_deg)
    seen = gaussian_filter(1 - 0.7 * image if dark else 0.2 + 0.6 * image, 1.0)
    seen += 0.02 * np.random.default_rng(3).standard_normal(SHAPE)
    found = find_bars(seen, (PIXEL, PIXEL))
    assert len(found) == len(elements)
    assert [bars.per_mm for bars in found] == sorted(bars.per_mm for bars in found)
    for drawn in elements:
        near = min(found, key=lambda bars: math.hypot(bars.x_um - drawn.x_um, bars.y_um - drawn.y_um))
        assert math.hypot(near.x_um - drawn.x_um, near.y_um - drawn.y_um) < 0.25 * near.width_um
        assert near.per_mm == pytest.approx(drawn.per_mm, rel=0.03)
        assert abs((near.angle_deg - drawn.angle_deg + 90) % 180 - 90) < 2
        assert near.label == drawn.label
        assert bar_contrast(seen, (PIXEL, PIXEL), near).contrast > 0.25


def test_pixels_that_are_not_square_and_frequencies_that_are_no_usaf_targets() -> None:
    image, elements = target()
    seen = gaussian_filter(image, 1.0)[::2]  # rows twice as far apart
    found = find_bars(seen, (2 * PIXEL, PIXEL))
    assert {bars.label for bars in found} <= {drawn.label for drawn in elements}
    assert len(found) >= 6
    assert found[0].per_mm == pytest.approx(128, rel=0.03)
    other = find_bars(gaussian_filter(image, 1.0), (0.53, 0.53))
    assert other[0].label == "1"
    assert other[0].per_mm == pytest.approx(128 * 0.5 / 0.53, rel=0.03)


@pytest.mark.parametrize("sample", ["thin", "phase", "siemens"])
def test_none_are_found_where_there_are_none(sample: str) -> None:
    data = fpmtools.simulate(sample, image_shape=(64, 80), seed=1)
    assert data.truth is not None
    pixel = data.extent_um[0] / data.truth.field.shape[0]
    for image in (np.abs(data.truth.field), np.angle(data.truth.field)):
        assert find_bars(image, (pixel, pixel)) == []


def test_noise_and_nothing_have_none() -> None:
    rng = np.random.default_rng(5)
    assert find_bars(gaussian_filter(rng.standard_normal((150, 160)), 1.5), (0.5, 0.5)) == []
    assert find_bars(np.ones((40, 40)), (0.5, 0.5)) == []
