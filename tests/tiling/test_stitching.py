"""Gains, ramps and bends of tiles are found from their overlaps, in double precision to many digits."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from fpmtools.tiling.plan import Plan
from fpmtools.tiling.stitching import KNOWN_BEND, KNOWN_RAMP, Seam, curvature, join, seam, without_curvature

SHAPE = (97, 121)


def sample(seed: int) -> NDArray[np.complex128]:
    rng = np.random.default_rng(seed)
    amplitude, phase = (gaussian_filter(rng.normal(size=SHAPE), 3) for _ in range(2))
    return np.asarray((1 + 2 * amplitude) * np.exp(12j * phase))


def cut(
    field: NDArray[np.complex128], plan: Plan, seed: int, noise: float = 0.0, known: bool = False
) -> tuple[list[NDArray[np.complex128]], NDArray[np.float64], list[Seam]]:
    """Tiles at random gains and phases, the middles of them, and their seams; ``known``: of nearly known angles."""
    rng = np.random.default_rng(seed)
    height, width = plan.size
    y, x = np.arange(height)[:, None] - height / 2, np.arange(width) - width / 2
    tiles, centres = [], []
    for top, left, *_ in (tile.box for tile in plan.tiles):
        ramp, gain = rng.normal(size=2) * 0.1, np.exp(0.2 * rng.normal() + 1j * rng.uniform(-9, 9))
        yy, yx, xx = 0.0, 0.0, 0.0
        if known:
            ramp *= 10 * KNOWN_RAMP / (height / 2)
            yy, yx, xx = KNOWN_BEND * rng.normal(size=3) / (height / 2) ** 2
        slow = ramp[0] * y + ramp[1] * x + yy * y**2 + yx * y * x + xx * x**2
        part = field[top : top + height, left : left + width] * gain * np.exp(1j * slow)
        tiles.append(part + noise * (rng.normal(size=part.shape) + 1j * rng.normal(size=part.shape)))
        centres.append((top + height / 2, left + width / 2))
    found = []
    for a, b in plan.neighbours():
        (ya, xa, *_), (yb, xb, *_) = plan.tiles[a].box, plan.tiles[b].box
        top, left = max(ya, yb), max(xa, xb)
        bottom, right = min(ya, yb) + height, min(xa, xb) + width
        one = tiles[a][top - ya : bottom - ya, left - xa : right - xa]
        other = tiles[b][top - yb : bottom - yb, left - xb : right - xb]
        made = seam(a, b, one, other, np.ones(one.shape), (top, left), 4.0, height / 2)
        assert made is not None
        found.append(made)
    return tiles, np.array(centres), found


def joined(
    plan: Plan,
    tiles: list[NDArray[np.complex128]],
    centres: NDArray[np.float64],
    seams: list[Seam],
    known: bool = False,
) -> NDArray[np.complex128]:
    """The mosaic over the true field's shape, each tile at what was found for it."""
    (height, width), out = plan.size, np.zeros(SHAPE, complex)
    y, x = np.arange(height)[:, None] - height / 2, np.arange(width) - width / 2
    found = join(len(tiles), seams, centres, height / 2, known)
    rows, columns = plan.windows(1)
    for index, (top, left, *_) in enumerate(tile.box for tile in plan.tiles):
        row, column = divmod(index, len(plan.columns))
        phase = found.phase[index] + found.ramp[index, 0] * y + found.ramp[index, 1] * x
        phase = phase + found.bend[index, 0] * y**2 + found.bend[index, 1] * y * x + found.bend[index, 2] * x**2
        turn = np.exp(found.gain[index] + 1j * phase)
        window = rows[row][:, None] * columns[column]
        out[top : top + height, left : left + width] += window * tiles[index] * turn
    return out


def error(found: NDArray[np.complex128], field: NDArray[np.complex128]) -> float:
    """Relative, after one gain and one ramp, which nothing can tell."""
    quotient = found / field
    along = (quotient[1:] * quotient[:-1].conj(), quotient[:, 1:] * quotient[:, :-1].conj())
    steps = [np.angle(product.sum()) for product in along]
    y, x = np.arange(SHAPE[0])[:, None], np.arange(SHAPE[1])
    level = quotient * np.exp(-1j * (steps[0] * y + steps[1] * x))
    return float(level.std() / abs(level.mean()))


@pytest.mark.parametrize(("size", "overlap"), [(48, 12), (40, 9), (33, 16)])
def test_random_gains_and_ramps_are_found(size: int, overlap: int) -> None:
    field, plan = sample(0), Plan.of(SHAPE, size, overlap)
    tiles, centres, seams = cut(field, plan, seed=1)
    assert error(joined(plan, tiles, centres, seams), field) < 1e-6
    flat = joined(plan, tiles, centres, [])
    assert error(flat, field) > 0.3, "without seams nothing is joined"


@pytest.mark.parametrize(("size", "overlap"), [(48, 12), (40, 9), (33, 16)])
def test_random_gains_and_bends_are_found_where_angles_are_known(size: int, overlap: int) -> None:
    field, plan = sample(0), Plan.of(SHAPE, size, overlap)
    tiles, centres, seams = cut(field, plan, seed=1, known=True)
    quotient = joined(plan, tiles, centres, seams, known=True) / field
    phase = np.angle(quotient / quotient.mean())
    y, x = (a.ravel() for a in np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij"))
    bowl = np.stack([np.ones_like(y), y, x, y * y, y * x, x * x], axis=1)  # of all tiles together, which nothing tells
    left = phase.ravel() - bowl @ np.linalg.lstsq(bowl, phase.ravel(), rcond=None)[0]
    assert np.abs(left).max() < 1e-3
    assert phase.std() < 0.1
    bent = joined(plan, tiles, centres, seams) / field
    assert np.angle(bent / bent.mean()).std() > 1e-2, "ramps alone do not do it"


def test_noise_is_averaged_and_not_summed_along_the_tiles() -> None:
    field, plan = sample(2), Plan.of(SHAPE, 33, 9)
    tiles, centres, seams = cut(field, plan, seed=3, noise=0.05)
    assert error(joined(plan, tiles, centres, seams), field) < 0.09  # the noise itself is 0.07


def test_what_does_not_depend_on_the_order() -> None:
    field, plan = sample(4), Plan.of(SHAPE, 48, 12)
    _, centres, seams = cut(field, plan, seed=5, noise=0.02)
    once, again = (join(len(plan.tiles), seams, centres, 24, known=True) for _ in range(2))
    assert np.array_equal(once.phase, again.phase)
    assert np.array_equal(once.ramp, again.ramp)
    assert np.array_equal(once.bend, again.bend)


def test_parts_that_nothing_connects_and_dark_overlaps() -> None:
    dark = np.zeros((12, 20), complex)
    assert seam(0, 1, dark, dark, np.ones(dark.shape), (0, 0), 4.0, 24) is None
    field, plan = sample(6), Plan.of(SHAPE, 48, 12)
    _, centres, seams = cut(field, plan, seed=7)
    some = [s for s in seams if 0 not in (s.first, s.second)]
    found = join(len(plan.tiles), some, centres, 24, known=False)
    assert np.isfinite(found.phase).all()
    assert found.gain[0] == 0
    assert not found.ramp[0].any()
    assert not found.bend[0].any()


def test_a_curvature_that_all_tiles_have_is_no_ramp_of_each() -> None:
    field, plan = sample(8), Plan.of(SHAPE, 48, 12)
    flat, centres, _ = cut(field, plan, seed=9)
    y, x = np.arange(48)[:, None] - 24, np.arange(48) - 24
    seams = []
    for a, b in plan.neighbours():
        (ya, xa, *_), (yb, xb, *_) = plan.tiles[a].box, plan.tiles[b].box
        top, left, bottom, right = max(ya, yb), max(xa, xb), min(ya, yb) + 48, min(xa, xb) + 48
        parts = []
        for at_y, at_x in ((ya, xa), (yb, xb)):
            tile = field[at_y : at_y + 48, at_x : at_x + 48] * np.exp(4e-3j * (y**2 + x**2))
            parts.append(tile[top - at_y : bottom - at_y, left - at_x : right - at_x])
        made = seam(a, b, parts[0], parts[1], np.ones(parts[0].shape), (top, left), 4.0, 24)
        assert made is not None
        seams.append(made)
    assert curvature(seams, centres, 24, 1.0) == pytest.approx(4e-3, rel=1e-6)
    assert curvature(seams, centres, 24, 1e-3) == 1e-3, "no more than the light has"
    left_over = join(len(flat), without_curvature(seams, centres, 24, 4e-3), centres, 24, known=False)
    assert np.abs(left_over.ramp).max() < 1e-7
    assert np.abs(np.exp(1j * left_over.phase) - np.exp(1j * left_over.phase[0])).max() < 1e-6


def test_what_each_tile_bends_by_is_taken_away_and_does_not_become_a_bowl_where_ramps_are_known() -> None:
    """A slight curve of each tile makes all seams of a row slope the same way."""
    count, half, bend = 9, 64.0, 0.05
    step = 1.7 * half
    centres = np.array([(half, half + k * step) for k in range(count)])
    weight = np.diag([1e4, 1e4, 1e2, 1e3, 1e2, 1e0])  # across a narrow seam little is known
    seams = []
    for k in range(count - 1):
        middle = (centres[k] + centres[k + 1]) / 2
        slope = 2 * bend * step / half  # of bend · |s / half|², from either side
        seams.append(Seam(k, k + 1, middle, np.array([0.0, 0.0, slope, 0.0, 0.0, 0.0]), weight, 0.0, 1.0))
    bowl = np.ptp(join(count, seams, centres, half, known=False).phase)
    flat = join(count, seams, centres, half, known=True)
    assert bowl > 1
    assert np.ptp(flat.phase) < 0.1
    assert np.abs(flat.ramp).max() * half < 0.1
    found = -flat.bend[:, 2] * half**2 / bend
    assert (found[1:-1] > 0.6).all()
    assert (found < 1).all()
