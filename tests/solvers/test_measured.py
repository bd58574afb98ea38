"""The built-in solvers on measured data: as good as what was looked at and found crisp."""

from __future__ import annotations

import numpy as np
import pytest

from fpmtools import engine
from fpmtools.formats import load
from fpmtools.metrics import residual

WHOLE, MIDDLE = (0, 0, 128, 128), (32, 32, 64, 64)
# Mean over LEDs of Σ(a − A)²/ΣA², bright and dark field, with a little room above what was measured there.
UCONN_RED = {"ap": (WHOLE, 0.035, 0.112), "adam": (WHOLE, 0.035, 0.102), "inr": (MIDDLE, 0.033, 0.135)}
EXPOSURE = 0.17  # of its dark field, in units of the bright field's, as calibrate finds it


@pytest.mark.data
@pytest.mark.parametrize("solver", UCONN_RED)
def test_uconn_blood_smear(solver, measured_data, monkeypatch):
    monkeypatch.setenv("FPMTOOLS_DATA", str(measured_data("uconn_blood_smear").parent))
    roi, bright, dark = UCONN_RED[solver]
    data = load("uconn_red", roi=roi)
    assert data.defocus_um == pytest.approx(-55)
    data = data.with_calibration(gain=np.where(data.bright_field, 1.0, EXPOSURE))
    found = engine.reconstruct(data, solver, upsample=4)
    assert found.grid.shape == (4 * roi[2], 4 * roi[3])
    fit = residual(found, data)
    assert fit["bright"] <= bright
    assert fit["dark"] <= dark
    # Dark nuclei on a clear ground.
    amplitude = np.abs(found.field(-55.0))
    assert np.percentile(amplitude, 1) < 0.6 < 0.9 < np.percentile(amplitude, 90)


@pytest.mark.data
def test_at_the_wrong_defocus_the_images_do_not_fit(measured_data, monkeypatch):
    monkeypatch.setenv("FPMTOOLS_DATA", str(measured_data("uconn_blood_smear").parent))
    data = load("uconn_red", roi=MIDDLE)
    fits = {z: residual(engine.reconstruct(data, "ap", z_um=z), data)["bright"] for z in (-55.0, 0.0, 55.0)}
    assert fits[-55.0] == min(fits.values())


@pytest.mark.data
def test_thu_phase_target_fits_at_its_defocus(measured_data, monkeypatch):
    monkeypatch.setenv("FPMTOOLS_DATA", str(measured_data("thu_phase_target").parent))
    data = load("thu_phase_target", roi=(168, 160, 96, 112)).select(range(37))
    fits = {z: residual(engine.reconstruct(data, "adam", z_um=z, upsample=3), data)["bright"] for z in (60.0, 180.0)}
    assert fits[180.0] < fits[60.0]
