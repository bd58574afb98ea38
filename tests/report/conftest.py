"""A comparison with results that look like something, never square."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fpmtools import columns, known, registry, storage
from fpmtools.comparison.spec import slug
from fpmtools.dataset import Dataset
from fpmtools.leds import direction_sines, raster
from fpmtools.metrics import match, ring_correlation
from fpmtools.reconstruction import Grid, PlaneStack
from fpmtools.report import html_folder, rendering
from fpmtools.simulation import simulate

Make = Callable[..., NDArray[np.complex64]]


@pytest.fixture(scope="package")
def dataset() -> Dataset:
    """9 LEDs, 18 × 25 pixels, on a tilted plane of ±2 µm, with its truth of 36 × 50."""
    return simulate("tilted", image_shape=(18, 25), leds=direction_sines(raster(3, 3, 9.0), 74.0), tilt_um=2.0)


@pytest.fixture
def comparison_folder(compared: Path, tmp_path: Path) -> Path:
    """What a comparison leaves: a good solver, one that is off by noise and a global phase, and one that failed."""
    return Path(shutil.copytree(compared, tmp_path / "comparison"))


@pytest.fixture(scope="package")
def compared(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, not to be changed."""
    folder = tmp_path_factory.mktemp("compared") / "comparison"
    assert dataset.truth is not None
    truth, z_um = dataset.truth.field, (-2.0, -1.0, 0.0, 1.0, 2.0)
    grid = Grid(truth.shape, (18 * dataset.optics.pixel_um, 25 * dataset.optics.pixel_um), (z_um[0], z_um[-1]))
    rng = np.random.default_rng(0)
    rows, runs = [], []
    for k, (solver, noise) in enumerate({"good": 0.0, "noisy:step=2": 0.1}.items()):
        field = truth * np.exp(0.7j * k) + noise * (rng.normal(size=truth.shape) + 1j * rng.normal(size=truth.shape))
        result, place = (
            PlaneStack(np.stack([field.astype(np.complex64)] * 5), z_um, grid),
            folder / "runs" / slug(solver),
        )
        rendering.render(result, z_um, dataset.truth).save(place)
        storage.write_json(place / "run.json", {})
        found = match(result, dataset)
        rings = ring_correlation(found.truth, found.field, (found.pixel_um, found.pixel_um))
        numbers = {"seconds": 1.5 + k, "stored_bytes": 1000.0 * (k + 1), "psnr": 30.0 - 9 * k, "ssim": 0.9 - 0.2 * k}
        rows.append({"solver": solver, "status": "done", "reason": "", "repeats": 1, **numbers})
        runs.append(
            {
                "label": solver,
                "status": "done",
                "data": {"name": dataset.name, "digest": "c0ffee"},
                "z_um": list(z_um),
                "history": [[step, 0.1 * step, 1 / step] for step in range(1, 9)],
                "quality_over_time": [{"seconds": 0.2 * step, "psnr": 10.0 + step, "ssim": None} for step in (1, 2, 3)],
                "ring_correlation": {
                    "frequency": rings.frequency,
                    "correlation": rings.correlation,
                    "threshold": 0.5 + 0 * rings.frequency,
                    "of": "truth",
                },
                "versions": {"fpmtools": "0.1.0"},
                "options": {"step": 2},
            }
        )
    rows.append({"solver": "bad", "status": "failed", "reason": "killed by SIGSEGV", "repeats": 1})
    runs.append({"label": "bad", "status": "failed", "reason": "killed by SIGSEGV"})
    command = ["fpmtools", "compare", "--data", "my file.mat"]
    shown = columns.of(supplied.record for supplied in registry.built_in_metrics())
    about = {key: column.to_dict() for key, column in shown.items()}
    document = {
        "data": {"name": dataset.name}, "columns": about, "rows": rows, "runs": runs, "command": command,
    }  # fmt: skip
    storage.write_json(folder / "results.json", document)
    known.save(dataset, folder / html_folder.TRUTH_FOLDER / "tilted.safetensors")
    return folder
