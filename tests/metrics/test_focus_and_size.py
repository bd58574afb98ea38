"""All-in-focus images of stacks whose focus is known, and bytes that can be counted by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from fpmtools.dataset import Dataset
from fpmtools.errors import OptionError
from fpmtools.metrics import all_in_focus, planes_needed_um, sizes
from fpmtools.reconstruction import PlaneStack

Stack = Callable[..., PlaneStack]


@pytest.fixture
def focal_stack(thin: Dataset, stack: Stack) -> tuple[PlaneStack, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    """Left half sharp at −3 µm, right half at +3 µm, nothing at 0; and the sharp image."""
    sharp = np.random.default_rng(0).uniform(0.2, 1, (61, 80))
    blurred = gaussian_filter(sharp, 3)
    left = np.arange(80)[None, :] < 40
    planes = np.stack([np.where(left, sharp, blurred), blurred, np.where(left, blurred, sharp)])
    phase = np.exp(1j * np.linspace(0, 3, 80))
    return stack(planes * phase, (-3.0, 0.0, 3.0), thin), sharp


def test_normal_variance_takes_each_pixel_from_its_sharpest_plane(focal_stack: tuple[PlaneStack, object]) -> None:
    recon, sharp = focal_stack
    found = all_in_focus(recon, (-3.0, 0.0, 3.0))
    inside = np.r_[0:34, 46:80]  # without the seam
    np.testing.assert_allclose(found.amplitude[:, inside], np.asarray(sharp)[:, inside], rtol=1e-5)
    np.testing.assert_array_equal(found.depth_um[:, :34], -3)
    np.testing.assert_array_equal(found.depth_um[:, 46:], 3)
    assert found.amplitude.dtype == found.depth_um.dtype == np.float32


def test_light_field_weighting_blends_towards_the_sharp_planes(focal_stack: tuple[PlaneStack, object]) -> None:
    recon, sharp = focal_stack
    found = all_in_focus(recon, (-3.0, 0.0, 3.0), method="light-field")
    assert found.depth_um[:, :30].max() < -1.9
    assert found.depth_um[:, 50:].min() > 1.9
    assert np.abs(found.amplitude - sharp)[:, :30].mean() < 0.03
    one = all_in_focus(recon, (0.0,), method="light-field")
    np.testing.assert_allclose(one.amplitude, np.abs(recon.field(0.0)), rtol=1e-5)


@pytest.mark.parametrize("method", ["normal-variance", "light-field"])
def test_clipping_is_a_choice_and_leaves_the_stack_alone(
    focal_stack: tuple[PlaneStack, object], method: str, stack: Stack, thin: Dataset
) -> None:
    recon, _ = focal_stack
    recon.planes[:, :20] = 0.7  # the background that the histogram finds
    before = recon.planes.copy()
    clipped = all_in_focus(recon, (-3.0, 0.0, 3.0), clip=True, method=method)  # type: ignore[arg-type]
    plain = all_in_focus(recon, (-3.0, 0.0, 3.0), method=method)  # type: ignore[arg-type]
    assert clipped.amplitude.max() == pytest.approx(0.7, abs=0.005)
    assert plain.amplitude.max() > 0.9
    np.testing.assert_array_equal(recon.planes, before)
    dark = stack(0.05 * np.ones((1, 20, 31)), (0.0,), thin)
    dark.planes[0, 3, 4] = 0.9  # a mode of 0.1 or less is no background
    kept = all_in_focus(dark, (0.0,), clip=True, method=method)  # type: ignore[arg-type]
    assert kept.amplitude.max() == pytest.approx(0.9)


def test_what_all_in_focus_cannot_do_is_refused(focal_stack: tuple[PlaneStack, object]) -> None:
    recon, _ = focal_stack
    with pytest.raises(OptionError, match="method must be"):
        all_in_focus(recon, (0.0,), method="laplace")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="at least one z"):
        all_in_focus(recon, ())


def test_the_bytes_are_those_that_can_be_counted(thin: Dataset, stack: Stack) -> None:
    rng = np.random.default_rng(0)
    z = (0.0, 1.0, 2.0, 3.0)
    recon = stack(rng.standard_normal((4, 52, 66)) + 1j, z, thin)
    found = sizes(recon, thin, z)
    assert found["stored_bytes"] == 4 * 52 * 66 * 8
    assert found["bytes_per_plane"] == 52 * 66 * 8
    assert found["dense_bytes"] == 4 * 52 * 66 * 8
    assert 0.5 < found["compressed_bytes"] / found["dense_bytes"] < 1.01
    # Whole cycles over the field of view inside any LED's pupil.
    h, w = 26 * thin.optics.pixel_um, 33 * thin.optics.pixel_um
    ny, nx = np.meshgrid(np.arange(-40, 41), np.arange(-40, 41), indexing="ij")
    f = np.stack([nx / w, ny / h], axis=-1)
    away = np.linalg.norm(f[:, :, None] - thin.na / thin.optics.wavelength_um, axis=-1)
    assert found["band_limited_bytes"] == 4 * 4 * np.sum((away <= thin.optics.cutoff).any(axis=-1))


def test_a_smooth_field_compresses_and_noise_does_not(thin: Dataset, stack: Stack) -> None:
    flat = stack(np.ones((1, 52, 66)), (0.0,), thin)
    assert sizes(flat, thin)["compressed_bytes"] < 0.02 * sizes(flat, thin)["dense_bytes"]


def test_planes_are_at_most_half_a_recovered_depth_of_field_apart(thin: Dataset, stack: Stack) -> None:
    step = 0.5 * thin.optics.wavelength_um / thin.optics.synthetic_na(thin.na) ** 2
    z = planes_needed_um(stack(np.ones((2, 8, 9)), (-5.0, 6.0), thin), thin)
    assert (z[0], z[-1]) == (-5.0, 6.0)
    assert 11 / (len(z) - 1) <= step < 11 / (len(z) - 2)
    assert planes_needed_um(stack(np.ones((1, 8, 9)), (2.0,), thin), thin) == (2.0,)
