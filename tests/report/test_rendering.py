"""What of a result is kept for drawing: a few planes, the middle one whole, every pixel at its true depth."""

from __future__ import annotations

import numpy as np
import pytest

from fpmtools.errors import DataError
from fpmtools.metrics import composite
from fpmtools.optics import resample
from fpmtools.reconstruction import Grid, PlaneStack
from fpmtools.report import rendering
from fpmtools.report.rendering import Rendered


def stack(shape, z_um, scale=1.0):
    rng = np.random.default_rng(5)
    planes = scale * (rng.normal(size=(len(z_um), *shape)) + 1j * rng.normal(size=(len(z_um), *shape)))
    return PlaneStack(planes.astype(np.complex64), z_um, Grid(shape, (10.0, 16.0), (z_um[0], z_um[-1])))


def test_it_comes_back_as_it_was(dataset, tmp_path):
    result = stack((36, 50), (-2.0, 0.0, 2.0), scale=3e5)  # beyond what a float16 holds
    rendered = rendering.render(result, (-2.0, 0.0, 1.0, 2.0), dataset.truth)
    rendered.save(tmp_path)
    again = Rendered.load(tmp_path)
    assert again.grid == result.grid
    assert again.z_um == (-2.0, 0.0, 1.0, 2.0)
    np.testing.assert_allclose(again.planes, rendered.planes, atol=1e-3 * np.abs(rendered.planes).max())
    np.testing.assert_array_equal(again.middle, result.field(1.0))
    np.testing.assert_array_equal(again.focus, composite(result, dataset.truth.depth_um))
    np.testing.assert_allclose(rendered.plane(-2.0, (18, 25)), resample(result.field(-2.0), (18, 25)), rtol=1e-5)
    assert again.plane(0.5, (18, 25)) is None


def test_planes_are_few_and_small_and_inside_the_range():
    z_um = tuple(float(z) for z in range(61))
    result = stack((20, 600), z_um[:31])
    rendered = rendering.render(result, z_um, None)
    assert rendered.planes.shape[1:] == (17, 512)
    assert rendered.middle.shape == (20, 600)
    assert rendered.focus is None
    assert len(rendering.shown_planes(z_um)) == rendering.MOST_PLANES
    assert rendered.z_um == tuple(z for z in rendering.shown_planes(z_um) if z <= 30)


@pytest.mark.parametrize("damage", ["gone", "cut", "other"])
def test_a_damaged_file_is_one_clear_line(tmp_path, damage):
    path = rendering.render(stack((9, 12), (0.0,)), (0.0,), None).save(tmp_path)
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-7])
    else:
        stack((9, 12), (0.0,)).save(path)
    with pytest.raises(DataError):
        Rendered.load(tmp_path)
