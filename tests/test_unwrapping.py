"""Unwrapped phases: those of scikit-image, found sooner where there is one answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.restoration import unwrap_phase

import fpmtools
from fpmtools.unwrapping import TURN, continued, is_unique, unwrapped


def smooth(shape, height, seed=0):
    rough = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 9)
    return height * rough / np.abs(rough).max()


def wrapped(phase):
    return np.angle(np.exp(1j * phase)).astype(np.float32)


def reference(phase):
    """What scikit-image makes of it, its median within ±π."""
    found = unwrap_phase(phase, rng=0)
    return found - TURN * np.rint(np.median(found) / TURN)


@pytest.mark.parametrize("shape", [(61, 84), (80, 53), (2, 9), (9, 2)])
@pytest.mark.parametrize("height", [0.5, 20.0])
def test_as_scikit_image_where_there_is_one_answer(shape, height):
    phase = wrapped(smooth(shape, height) + 3.0)
    assert is_unique(phase)
    found = unwrapped(phase)
    assert found.dtype == np.float32
    assert found == pytest.approx(reference(phase), abs=2e-5)
    turns = (found - phase) / TURN
    assert turns == pytest.approx(np.rint(turns), abs=1e-5)


def test_the_answer_of_scikit_image_where_there_are_several():
    """A vortex: around its middle the phase grows by a turn."""
    y, x = np.mgrid[-20:21, -25:26] + 0.3
    phase = wrapped(np.arctan2(y, x) + smooth(y.shape, 9.0))
    assert not is_unique(phase)
    assert unwrapped(phase) == pytest.approx(reference(phase), abs=2e-5)


def test_a_row_and_what_is_no_number():
    ramp = np.linspace(-30, 30, 40)[None]
    assert np.ptp(unwrapped(wrapped(ramp))) == pytest.approx(60, abs=1e-4)
    phase = wrapped(smooth((20, 30), 9.0))
    phase[5, 7] = np.nan
    assert not is_unique(phase)


def test_turns_of_what_is_near():
    truth = smooth((30, 40), 15.0).astype(np.float32)
    rough = truth + np.random.default_rng(1).uniform(-3, 3, truth.shape).astype(np.float32)
    assert continued(wrapped(truth), rough) == pytest.approx(truth, abs=2e-5)


def test_a_measured_phase(measured_data, monkeypatch: pytest.MonkeyPatch):
    """A part of the quantitative target."""
    folder: Path = measured_data("thu_phase_target")
    monkeypatch.setenv("FPMTOOLS_DATA", str(folder.parent))
    data = fpmtools.load("thu_phase_target", roi=(200, 160, 72, 96), leds_use="0-24")
    known = {"calibration": "nominal", "calibrate": "none", "progress": False}
    result = fpmtools.reconstruct(data, "ap", z_um=180.0, options={"sweeps": 3}, **known)
    steep = wrapped(5 * result.phase())  # five times as strong a target wraps
    assert np.ptp(unwrapped(steep)) > TURN
    assert unwrapped(steep) == pytest.approx(reference(steep), abs=2e-5)
