"""Writers of real files in the layouts that the readers meet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io

CLASSES = {"float64": "double", "float32": "single", "complex128": "double"}


def matlab_group(group: h5py.Group, variables: dict[str, Any]) -> None:
    for name, value in variables.items():
        if isinstance(value, dict):
            inner = group.create_group(name)
            inner.attrs["MATLAB_class"] = np.bytes_("struct")
            matlab_group(inner, value)
            continue
        array = np.atleast_2d(np.asarray(value))
        if array.dtype.kind == "U":
            array, kind = np.atleast_2d([ord(c) for c in str(value)]).astype(np.uint16), "char"
        else:
            kind = CLASSES.get(str(array.dtype), str(array.dtype))
        stored = array.T
        if array.dtype.kind == "c":
            parts = np.zeros(stored.shape, [("real", "f8"), ("imag", "f8")])
            parts["real"], parts["imag"] = stored.real, stored.imag
            stored = parts
        item = group.create_dataset(name, data=stored, compression="gzip" if stored.size > 100 else None)
        item.attrs["MATLAB_class"] = np.bytes_(kind)


def add_userblock(path: Path) -> None:
    text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, HDF5 schema 1.00 .".ljust(124) + b"\x00\x02IM"
    with path.open("r+b") as file:
        file.write(text.ljust(512, b"\0"))


@pytest.fixture
def write_v73(tmp_path: Path) -> Callable[..., Path]:
    """``write_v73("a.mat", {"I_low": …})``: as MATLAB's -v7.3: HDF5 after 512 bytes, axes reversed, classes named."""

    def write(name: str, variables: dict[str, Any]) -> Path:
        path = tmp_path / name
        with h5py.File(path, "w", userblock_size=512) as file:
            matlab_group(file, variables)
        add_userblock(path)
        return path

    return write


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
