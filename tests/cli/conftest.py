"""A small simulated data set as a file, a finished run on it, and the command as a real process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fpmtools.cli import main
from fpmtools.dataset import Dataset
from fpmtools.formats import native
from fpmtools.leds import direction_sines, raster
from fpmtools.simulation import simulate

COMMAND = [sys.executable, "-m", "fpmtools"]


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """9 LEDs, one of them dark field, 17 × 22 pixels, on a tilted plane."""
    na = direction_sines(raster(3, 3, 9.0), 74.0)
    na[0] *= 1.6
    assert (np.linalg.norm(na, axis=1) > 0.256).sum() == 1
    return simulate("tilted", image_shape=(17, 22), leds=na, tilt_um=2.0)


@pytest.fixture(scope="session")
def data_file(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return native.save(dataset, tmp_path_factory.mktemp("data") / "small.safetensors")


@pytest.fixture(scope="session")
def finished(data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run over 3 planes."""
    folder = tmp_path_factory.mktemp("run") / "ap"
    arguments = ["--solver", "ap", "-o", "sweeps=4", "--z", "-2:2:3", "--out", str(folder), "--quiet"]
    assert main(["run", "--data", str(data_file), *arguments]) == 0
    return folder


@pytest.fixture
def environment() -> dict[str, str]:
    """One thread: the tests may share their cores."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}


@pytest.fixture
def fpmtools(environment: dict[str, str], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command as its own process in an empty folder."""

    def call(*arguments: object, **extra: str) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, *map(str, arguments)]
        return subprocess.run(
            command, env=environment | extra, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )

    return call
