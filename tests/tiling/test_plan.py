"""Tiles cover their field, and their windows add up to one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fpmtools.errors import OptionError
from fpmtools.optics import Optics, fast_length
from fpmtools.tiling.plan import Plan, choose, fast_length_down, suggested_overlap, suggested_size

OPTICS = Optics(wavelength_um=0.523, na=0.1, magnification=4, camera_pixel_um=4)
NA = np.array([(0.0, 0.0), (0.3, 0.1)])


@pytest.mark.parametrize(
    ("frame", "size", "overlap"),
    [((97, 121), 48, 12), ((96, 120), 48, 16), ((48, 49), 48, 8), ((200, 31), 64, 30), ((131, 90), 40, 25)],
)
def test_tiles_of_one_size_cover_the_frame(frame: tuple[int, int], size: int, overlap: int) -> None:
    plan = Plan.of(frame, size, overlap)
    assert plan.size == (min(size, frame[0]), min(size, frame[1]))
    for starts, length, whole in zip((plan.rows, plan.columns), plan.size, frame, strict=True):
        assert starts[0] == 0
        assert starts[-1] + length == whole
        assert all(b - a <= length - overlap for a, b in itertools.pairwise(starts))
    assert len({tile.name for tile in plan.tiles}) == len(plan.tiles) == len(plan.rows) * len(plan.columns)


@pytest.mark.parametrize(("size", "overlap", "factor"), [(48, 12, 1), (48, 12, 3), (40, 8, 2)])
def test_windows_add_up_to_one(size: int, overlap: int, factor: int) -> None:
    plan = Plan.of((97, 121), size, overlap)
    for starts, windows, whole in zip((plan.rows, plan.columns), plan.windows(factor), plan.frame, strict=True):
        total = np.zeros(whole * factor)
        for start, window in zip(starts, windows, strict=True):
            total[start * factor : (start + size) * factor] += window
        np.testing.assert_allclose(total, 1, atol=1e-12)
        assert windows[1][0] == 0, "a tile's border is not shown where another tile has its inside"


def test_neighbours_are_side_by_side() -> None:
    plan = Plan.of((97, 121), 48, 12)
    count = len(plan.columns)
    for first, second in plan.neighbours():
        (row, column), (below, right) = divmod(first, count), divmod(second, count)
        assert (below - row, right - column) in {(0, 1), (1, 0)}
    assert len(plan.neighbours()) == 3 * (count - 1) + 2 * count


def test_the_optics_choose_size_and_overlap() -> None:
    sharp, deep = (suggested_overlap(OPTICS, [z]) for z in (0.0, -200.0))
    assert sharp == 2 * np.ceil(16 * 0.523 / 0.2 / 2)
    assert deep - sharp == pytest.approx(200 * 0.1 / np.sqrt(1 - 0.01), abs=2)
    assert suggested_size(OPTICS, NA, None) == 256
    near, far = (suggested_size(OPTICS, NA, height_um) for height_um in (20e3, 40e3))
    assert near < far < 256
    assert fast_length(near) == near
    plan = choose((512, 700), OPTICS, NA, [0.0])
    assert plan.size == (270, 270), "three tiles fill 700 pixels, and the length is fast to transform"
    assert choose((512, 700), OPTICS, NA, [-900.0]).overlap == 64, "a quarter of a tile at most"
    assert choose((512, 700), OPTICS, NA, [0.0], size=64, overlap=10).overlap == 10


def test_fast_lengths_below() -> None:
    for n in (2, 7, 31, 97, 210, 255.5):
        length = fast_length_down(n)
        assert length <= n
        assert fast_length(length) == length


@pytest.mark.parametrize(
    ("size", "overlap", "words"), [(12, 4, "too small"), (48, 48, "larger than that"), (48, 4, "cannot be joined")]
)
def test_tiles_that_cannot_be(size: int, overlap: int, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        Plan.of((96, 120), size, overlap)


def test_a_tile_larger_than_the_frame_is_the_frame() -> None:
    plan = Plan.of((96, 120), 256, 32)
    assert [tile.box for tile in plan.tiles] == [(0, 0, 96, 120)]
    assert plan.neighbours() == []
