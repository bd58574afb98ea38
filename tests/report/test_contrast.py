from __future__ import annotations

import math

import numpy as np
import pytest

from fpmtools.formats import channels
from fpmtools.reconstruction import without_piston
from fpmtools.report import contrast


def test_global_phase_is_removed(cells):
    field = cells(31, 44)
    turned = (field * np.exp(2.5j)).astype(np.complex64)
    np.testing.assert_allclose(channels.flat_phase(turned), channels.flat_phase(field), atol=1e-5)
    assert abs(np.angle(without_piston(turned).sum())) < 1e-5
    assert channels.flat_phase(turned).dtype == np.float32


def test_relative_phase_is_kept():
    field = np.exp(1j * np.array([[0.0, 0.4, 0.8]] * 2) + 3j)
    np.testing.assert_allclose(np.diff(channels.flat_phase(field), axis=1), 0.4, atol=1e-6)


def test_gray_scale_ignores_stray_pixels_and_is_shared():
    ramp = np.linspace(0.5, 1.0, 30 * 40).reshape(30, 40)
    hot = ramp.copy()
    hot[3, 5] = 1e6
    scale = contrast.gray_scale([hot, ramp - 0.25])
    assert scale.low == pytest.approx(0.25, abs=0.002)
    assert scale.high == pytest.approx(1.0, abs=0.002)


def test_blank_images_stay_blank():
    blank = np.full((7, 9), 2.0) + np.random.default_rng(0).normal(0, 1e-7, (7, 9))
    scale = contrast.gray_scale([blank])
    assert scale.high - scale.low == pytest.approx(0.04, rel=1e-3)
    assert contrast.gray_scale([np.zeros((3, 5))]).high > 0
    phase = contrast.phase_scale([blank.astype(complex)])
    assert phase.high - phase.low == pytest.approx(0.1)


def test_phase_scale_is_cyclic_only_where_phase_wraps(cells):
    weak = without_piston(cells(30, 41, 1.0))
    scale = contrast.phase_scale([weak])
    assert scale.cmap != contrast.FULL_CIRCLE.cmap
    assert scale.high - scale.low == pytest.approx(1.0, abs=0.05)
    ramp = np.exp(1j * np.linspace(-math.pi, math.pi, 41))[None, :].repeat(30, axis=0)
    assert contrast.phase_scale([weak, ramp]) == contrast.FULL_CIRCLE


def test_dark_pixels_have_no_say_in_the_phase_scale():
    field = np.ones((30, 41), complex)
    field[:5] = 0.01 * np.exp(1j * np.random.default_rng(1).uniform(-3.1, 3.1, (5, 41)))
    assert contrast.phase_scale([field]).high < 0.1


@pytest.mark.parametrize(
    ("width", "bar"), [(100.0, 20), (70.0, 20), (66.0, 10), (34.0, 10), (3.4, 1), (1.1, 0.2), (7e3, 2000)]
)
def test_scale_bar_is_round_and_fits(width, bar):
    assert contrast.scale_bar_um(width) == pytest.approx(bar)


def test_labels():
    assert contrast.length_label(0.2) == "200 nm"
    assert contrast.length_label(20.0) == "20 µm"
    assert contrast.z_label(-3.5) == "z = −3.5 µm"
    assert contrast.z_label(-0.0) == contrast.z_label(1e-9) == "z = 0 µm"
