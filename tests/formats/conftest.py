"""Writers of real files in the layouts that the readers meet; ``write_v73`` is in the folder above."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from fpmtools import Grid, PlaneStack, Volume


@pytest.fixture
def write_v5(tmp_path: Path) -> Callable[..., Path]:
    """``write_v5("a.mat", {"I_low": …})``: as MATLAB's -v7 or, with ``compress=False``, -v6."""

    def write(name: str, variables: dict[str, Any], compress: bool = True) -> Path:
        scipy.io.savemat(tmp_path / name, variables, do_compression=compress)
        return tmp_path / name

    return write


@pytest.fixture
def fpm_inr_variables() -> dict[str, Any]:
    """Variables of a small non-square FPM-INR file: 5 images of 9 × 12, each telling its LED, row and column."""
    led, y, x = np.meshgrid(np.arange(5), np.arange(9), np.arange(12), indexing="ij")
    images = (1000 * led + 20 * y + x + 1.0).astype(np.float64)
    na = np.array([[0.0, 0.0], [0.1, 0.02], [-0.1, 0.0], [0.03, 0.2], [0.0, -0.3]])
    return {
        "I_low": np.moveaxis(images, 0, -1),
        "na_calib": na,
        "na_cal": 0.256,
        "mag": 10.0,
        "dpix_c": 3.45,
    }


@pytest.fixture
def volume(cells: Callable[..., Any]) -> Callable[..., Volume]:
    """``volume(z_um, shape)``: a stack whose planes all differ, with pixels of 0.25 × 0.5 µm, at 0.5 µm wavelength."""

    def make(z_um: tuple[float, ...] = (-1.0, 0.5, 2.0), shape: tuple[int, int] = (30, 43), **how: Any) -> Volume:
        planes = np.stack([cells(*shape, seed=k) * np.exp(0.3j * k) for k in range(len(z_um))]).astype(np.complex64)
        grid = Grid(shape, (0.25 * shape[0], 0.5 * shape[1]), (z_um[0], z_um[-1]))
        return Volume.of(PlaneStack(planes, z_um, grid, {"wavelength_um": 0.5}), z_um, **how)

    return make
