"""The built-in solvers on measured data: as good as what was looked at and found crisp."""

from __future__ import annotations

import numpy as np
import pytest

from fpmtools import engine
from fpmtools.formats import load
from fpmtools.metrics import residual

# Mean over LEDs of Σ(a − A)²/ΣA², bright and dark field, with a little room above what was measured.
UCONN_RED = {"ap": (0.038, 0.10), "adam": (0.042, 0.10), "inr": (0.044, 0.113)}


@pytest.mark.data
@pytest.mark.parametrize("solver", UCONN_RED)
def test_uconn_blood_smear(solver, measured_data, monkeypatch):
    monkeypatch.setenv("FPMTOOLS_DATA", str(measured_data("uconn_blood_smear").parent))
    data = load("uconn_red")
    assert data.defocus_um == pytest.approx(-55)
    found = engine.reconstruct(data, solver, upsample=4)
    assert found.grid.shape == (512, 512)
    fit, limit = residual(found, data), UCONN_RED[solver]
    assert fit["bright"] <= limit[0]
    assert fit["dark"] <= limit[1]
    # Dark nuclei on a clear ground.
    amplitude = np.abs(found.field(-55.0))
    assert np.percentile(amplitude, 1) < 0.6 < 0.9 < np.percentile(amplitude, 90)


@pytest.mark.data
def test_at_the_wrong_defocus_the_images_do_not_fit(measured_data, monkeypatch):
    monkeypatch.setenv("FPMTOOLS_DATA", str(measured_data("uconn_blood_smear").parent))
    data = load("uconn_red")
    fits = {z: residual(engine.reconstruct(data, "ap", z_um=z), data)["bright"] for z in (-55.0, 0.0, 55.0)}
    assert fits[-55.0] == min(fits.values())


@pytest.mark.data
def test_thu_phase_target_fits_at_its_defocus(measured_data, monkeypatch):
    monkeypatch.setenv("FPMTOOLS_DATA", str(measured_data("thu_phase_target").parent))
    data = load("thu_phase_target", roi=(120, 96, 192, 224)).select(range(37))
    fits = {z: residual(engine.reconstruct(data, "adam", z_um=z, upsample=3), data)["bright"] for z in (60.0, 180.0)}
    assert fits[180.0] < fits[60.0]
