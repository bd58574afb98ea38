"""The project's own format gives back exactly what was saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fpmtools.dataset import Dataset, Truth
from fpmtools.errors import DataError
from fpmtools.formats import load, native
from fpmtools.optics import Optics
from fpmtools.pupil import Pupil

OPTICS = Optics(wavelength_um=0.5, na=0.2, magnification=10, camera_pixel_um=4, medium_index=1.33)


def make(dtype: str, complete: bool = True) -> Dataset:
    rng = np.random.default_rng(3)
    field = (rng.normal(size=(18, 26)) + 1j * rng.normal(size=(18, 26))).astype(np.complex64)
    pupil = Pupil(rng.normal(size=15), field[:9, :13].astype(np.complex128), (0.01, 0.02), 0.1)
    return Dataset.from_arrays(
        rng.integers(1, 200, (5, 9, 13)).astype(dtype),
        rng.uniform(-0.3, 0.3, (5, 2)),
        OPTICS,
        name="sample",
        pupil=pupil if complete else None,
        defocus_um=-7.5 if complete else None,
        truth=Truth(field, rng.normal(size=(18, 26)).astype(np.float32)) if complete else None,
        provenance={"seed": 3, "note": "µ"},
    )


@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2", "float32", "float64"])
def test_everything_comes_back(dtype: str, tmp_path: Path) -> None:
    saved = make(dtype)
    back = native.read(native.save(saved, tmp_path / "a.safetensors"))
    np.testing.assert_array_equal(back.intensities, saved.intensities)
    assert back.images.stored().dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(back.na, saved.na)
    assert back.truth is not None
    assert saved.truth is not None
    np.testing.assert_array_equal(back.calibration.pupil.residual, saved.calibration.pupil.residual)
    np.testing.assert_array_equal(back.truth.field, saved.truth.field)
    np.testing.assert_array_equal(back.truth.depth_um, saved.truth.depth_um)
    assert (back.optics, back.name, back.defocus_um) == (OPTICS, "sample", -7.5)
    assert back.provenance == saved.provenance
    assert back.digest == saved.digest


def test_load_finds_the_format_whatever_the_file_is_called(tmp_path: Path) -> None:
    saved = make("uint16", complete=False)
    path = native.save(saved, tmp_path / "measurement")
    data = load(path)
    assert (data.calibration.pupil.ideal, data.truth, data.defocus_um) == (True, None, None)
    np.testing.assert_array_equal(data.intensities, saved.intensities)
    assert data.intensities.dtype == np.float32


def test_crop_takes_the_truth_along(tmp_path: Path) -> None:
    saved = make("float32")
    data = load(native.save(saved, tmp_path / "a.safetensors"), roi=(1, 3, 8, 9))
    assert data.truth is not None
    assert saved.truth is not None
    np.testing.assert_array_equal(data.truth.field, saved.truth.field[2:18, 6:24])


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = native.save(make("float32"), tmp_path / "a.safetensors")
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], content[:-3] + b"\0\1\2"):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.safetensors: (not a readable|damaged)"):
            load(path)
