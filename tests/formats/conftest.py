"""Writers of real files in the layouts that the readers meet; ``write_v73`` is in the folder above."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io


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
