"""NumPy's ``.npy`` and ``.npz``: the complex field itself, written plane by plane."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from fpmtools.formats.volume import Volume


def write_npy(path: Path, volume: Volume) -> list[str]:
    """complex64 [y, x] of one plane, [z, y, x] of several."""
    several = len(volume.z_um) > 1
    with path.open("wb") as file:
        _write_field(file, volume, several)
    return ["a .npy has no room for z and pixel size: a .npz has"] if several else []


def write_npz(path: Path, volume: Volume) -> None:
    """``field`` complex64 [z, y, x], ``z_um`` [z], ``pixel_um`` (y, x), ``wavelength_um`` (NaN: unknown)."""
    known = {"z_um": volume.z_um, "pixel_um": volume.pixel_um, "wavelength_um": volume.wavelength_um or math.nan}
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        with archive.open("field.npy", "w", force_zip64=True) as member:
            _write_field(member, volume, True)
        for name, values in known.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, np.asarray(values, np.float64), allow_pickle=False)


def _write_field(file: IO[bytes], volume: Volume, several: bool) -> None:
    shape = (len(volume.z_um), *volume.shape) if several else volume.shape
    header: dict[str, Any] = {"descr": "<c8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    for plane in volume.planes():
        file.write(np.ascontiguousarray(plane, "<c8").tobytes())
