"""A small field with light across its borders, in a file, and it solved in tiles."""

from __future__ import annotations

from pathlib import Path

import pytest

import fpmtools
from fpmtools.formats import native
from fpmtools.runs import running
from fpmtools.runs.spec import DataSpec, Outputs, RunSpec, TilesSpec

OPTICS = {"wavelength_um": 0.5226, "na": 0.1, "magnification": 4, "camera_pixel_um": 3.45}


@pytest.fixture(scope="session")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """72 × 91 camera pixels of a wider sample, 25 LEDs."""
    leds = [(0.045 * i, 0.045 * j) for i in range(-2, 3) for j in range(-2, 3)]
    data = fpmtools.simulate("thin", image_shape=(72, 91), leds=leds, optics=OPTICS, surround=2, seed=3)
    return native.save(data, tmp_path_factory.mktemp("field") / "field.safetensors")


@pytest.fixture(scope="session")
def spec(field: Path) -> RunSpec:
    """Six tiles of it, quickly solved."""
    return RunSpec(
        DataSpec(str(field)), "ap", {"sweeps": 3}, calibration="nominal", calibrate="none", margin=8, threads=1,
        outputs=Outputs(measures=("psnr", "chi2", "residual"), pictures=()), tiles=TilesSpec(48, 16),
    )  # fmt: skip


@pytest.fixture(scope="session")
def solved(spec: RunSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that run, not to be changed."""
    folder = tmp_path_factory.mktemp("tiled") / "run"
    running.run(spec, folder)
    return folder
