"""A tiny data set, in memory and as a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from fpmtools.dataset import Dataset
from fpmtools.formats import native
from fpmtools.leds import direction_sines, raster
from fpmtools.simulation import simulate


@pytest.fixture(scope="package")
def dataset() -> Dataset:
    """9 LEDs, 17 × 22 pixels, on a tilted plane."""
    na = direction_sines(raster(3, 3, 9.0), 74.0)
    return simulate("tilted", image_shape=(17, 22), leds=na, tilt_um=2.0)


@pytest.fixture(scope="package")
def data_file(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return native.save(dataset, tmp_path_factory.mktemp("data") / "small.safetensors")
