"""Runs another package's reconstruction, in that package's own Python, on arrays that ``peers.py`` wrote.

    python opponents.py PACKAGE FOLDER

FOLDER holds ``intensities.npy`` [led, y, x] float64, ``na.npy`` [led, (x, y)], ``job.json``; ``object.npy`` [y, x] and
``done.json`` are written there. Only the reconstruction itself is timed.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def fpm_rs(intensities: Any, na: Any, job: dict[str, Any], folder: Path) -> tuple[Any, float]:
    """fpm-rs, a Rust package (MIT licence)."""
    import fpm_rs

    optics = fpm_rs.Optics(
        wavelength_vacuum_m=1e-6 * job["wavelength_um"],
        objective_na=job["na"],
        magnification=job["magnification"],
        camera_pixel_size=1e-6 * job["camera_pixel_um"],
    )
    vectors = fpm_rs.KVectorList(np.ascontiguousarray(2e6 * np.pi * na / job["wavelength_um"]))
    model = fpm_rs.compile_model(
        optics, fpm_rs.Illumination(vectors), intensities.shape[1:], reconstruction_shape=tuple(job["object_shape"])
    )
    problem = fpm_rs.ReconstructionProblem(intensities, model)
    solver = getattr(fpm_rs, job["solver"])(**job["options"])
    begun = time.perf_counter()
    result = solver.run(problem)
    return result.object, time.perf_counter() - begun


def ptylab(intensities: Any, na: Any, job: dict[str, Any], folder: Path) -> tuple[Any, float]:
    """PtyLab.py (licence for non-commercial use)."""
    import h5py
    import PtyLab

    height_m = 0.1
    file = folder / "ptylab.h5"
    with h5py.File(file, "w") as h5:
        h5["ptychogram"] = intensities
        h5["encoder"] = height_m * na[:, ::-1] / np.sqrt(1 - (na**2).sum(1, keepdims=True))
        h5["wavelength"] = 1e-6 * job["wavelength_um"]
        h5["dxd"] = 1e-6 * job["camera_pixel_um"]
        h5["zled"] = height_m
        h5["magnification"] = job["magnification"]
        h5["NA"] = job["na"]
    _, state, parameters, _, engine, *_ = PtyLab.easyInitialize(
        file, engine=getattr(PtyLab.Engines, job["solver"]), operationMode="FPM", dummyMonitor=True
    )
    parameters.positionOrder = "NA"
    for name, value in job["options"].items():
        setattr(engine, name, value)
    begun = time.perf_counter()
    engine.reconstruct()
    seconds = time.perf_counter() - begun
    spectrum = np.squeeze(np.asarray(state.object))
    # Its images are the forward transforms of its spectra: a common mirror image, undone here.
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(spectrum))), seconds


def main(package: str, folder: Path) -> None:
    """Reconstruct and write the result."""
    job = json.loads((folder / "job.json").read_text())
    intensities, na = np.load(folder / "intensities.npy"), np.load(folder / "na.npy")
    field, seconds = {"fpm-rs": fpm_rs, "ptylab": ptylab}[package](intensities, na, job, folder)
    np.save(folder / "object.npy", np.asarray(field))
    (folder / "done.json").write_text(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
