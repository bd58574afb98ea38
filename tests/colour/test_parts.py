"""What a picture in colour is made of: registration, white, mixtures; and the plane that is taken from a phase."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fpmtools import clear
from fpmtools.colour.registration import PAD, Placement, moved, register
from fpmtools.colour.result import mixing, srgb


def blobs(shape: tuple[int, int], place: Placement, seed: int = 0) -> NDArray[np.complex64]:
    """Soft dark spots with a phase, seen where ``place`` puts them: computed at each pixel, not interpolated."""
    rng = np.random.default_rng(seed)
    count = shape[0] * shape[1] // 500
    total, middle = np.zeros(shape), (np.array(shape) - 1) / 2
    for y, x, width in zip(*(rng.uniform(0, n, count) for n in shape), rng.uniform(3, 6, count), strict=True):
        at = middle + (np.array([y, x]) - middle) * (1 + place.scale) + place.shift
        low = np.maximum(np.floor(at - 6 * width).astype(int), 0)
        high = np.minimum(np.ceil(at + 6 * width).astype(int), shape)
        rows, columns = (np.arange(a, b) - c for a, b, c in zip(low, high, at, strict=True))
        total[low[0] : high[0], low[1] : high[1]] += np.exp(
            -(rows[:, None] ** 2 + columns**2) / 2 / (width * (1 + place.scale)) ** 2
        )
    return np.exp(-0.4 * total + 0.5j * total).astype(np.complex64)


@pytest.mark.parametrize(
    ("shape", "shift", "scale"),
    [((120, 151), (1.37, -2.21), 0.0), ((300, 371), (-3.4, 2.6), 0.006), ((300, 280), (5.3, 0.2), 0.0)],
)
def test_shift_and_scale_are_found(shape: tuple[int, int], shift: tuple[float, float], scale: float) -> None:
    there = Placement(shift, scale)
    fixed, other = blobs(shape, Placement()), 0.7 * blobs(shape, there) ** 1.5

    def reader(field: NDArray[np.complex64]) -> object:
        return lambda box: field[box[0] : box[0] + box[2], box[1] : box[1] + box[3]]

    found = register(reader(fixed), reader(other), shape)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.shift, shift, atol=0.05)
    assert found.scale == pytest.approx(scale, abs=1e-4)
    assert found.correlation > 0.9
    box = (PAD + 11, PAD + 14, 61, 50)
    back = moved(reader(blobs(shape, there)), box, there, shape)  # type: ignore[arg-type]
    np.testing.assert_allclose(back, fixed[box[0] : box[0] + 61, box[1] : box[1] + 50], atol=0.01)


def test_what_has_nothing_in_common_is_not_moved() -> None:
    one, other = (np.exp(0.3j * np.random.default_rng(k).normal(size=(130, 140))) for k in (1, 2))
    found = register(
        lambda b: one[b[0] : b[0] + b[2], b[1] : b[1] + b[3]],
        lambda b: other[b[0] : b[0] + b[2], b[1] : b[1] + b[3]],
        (130, 140),
    )
    assert found.correlation < 0.3
    assert not found.moves


def test_white_is_the_clear_field_and_not_the_fringes() -> None:
    rng = np.random.default_rng(0)
    amplitude = np.full((90, 110), 1.3) + rng.normal(0, 0.01, (90, 110))
    amplitude[10:60, 10:80] = rng.uniform(0.3, 1.0, (50, 70))
    amplitude[10, 10:80] = 2.0
    assert clear.level(amplitude) == pytest.approx(1.3, rel=0.005)
    pale = np.where(amplitude < 1.2, 0.9, 0.9) + rng.normal(0, 0.01, amplitude.shape)  # a stain that passes this colour
    levels, share = clear.white([amplitude, pale])
    np.testing.assert_allclose(levels, (1.3, 0.9), rtol=0.005)
    assert share == pytest.approx(np.mean(amplitude > 1.2), abs=0.05)
    assert clear.white([rng.uniform(0, 1, (50, 60)), rng.uniform(0, 1, (50, 60))])[1] < 0.1


@pytest.mark.parametrize(("slope_y", "slope_x"), [(0.0, 0.0), (8.0, -3.0)])
def test_the_clear_field_has_no_phase_and_cells_keep_theirs(slope_y: float, slope_x: float) -> None:
    y, x = np.mgrid[:101, :140] / 100.0
    cells = sum(1.2 * np.exp(-((y - a) ** 2 + (x - b) ** 2) / 0.01) for a, b in ((0.2, 0.3), (0.7, 0.8), (0.4, 1.2)))
    phase = 2.5 + slope_y * y + slope_x * x + cells + np.random.default_rng(0).normal(0, 0.02, y.shape)
    np.testing.assert_allclose(clear.flattened(phase), phase - 2.5 - slope_y * y - slope_x * x, atol=0.02)


def test_mixtures_are_of_what_there_is() -> None:
    np.testing.assert_array_equal(mixing([0.632, 0.53, 0.47]), np.eye(3))
    for waves in ([0.63, 0.5], [0.7, 0.6, 0.5, 0.42], [0.55]):
        np.testing.assert_allclose(mixing(waves).sum(axis=1), 1)
    assert mixing([0.63, 0.45])[0, 0] > 0.8
    assert mixing([0.63, 0.45])[2, 1] > 0.8
    np.testing.assert_allclose(srgb(np.array([0, 0.0031308, 0.2140411, 1, 3])), (0, 0.04045, 0.5, 1, 1), atol=1e-4)
