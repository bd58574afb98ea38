"""The pictures that a run leaves in its folder; each function returns the names of the files it wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fpmtools.dataset import Dataset
from fpmtools.reconstruction import Reconstruction
from fpmtools.report import rendering

STACK_FILE = "stack.gif"
RESIDUAL_FILE = "residual.png"
FILES = ("amplitude.tiff", "phase.tiff", "amplitude.png", "phase.png", STACK_FILE, "loss.png", RESIDUAL_FILE)


def draw(folder: Path, reconstruction: Reconstruction, dataset: Dataset, document: Mapping[str, Any]) -> list[str]:
    """The pictures of the run that ``document`` (``run.json``) describes, in its folder."""
    from fpmtools.report import figures, residual, tiff, video  # matplotlib, which what a comparison keeps does without
    from fpmtools.report.contrast import z_label

    grid, z_um = reconstruction.grid, document["z_um"]
    stacks = tiff.write_amplitude_phase(
        folder, (reconstruction.field(z) for z in z_um), grid.shape, z_um, grid.pixel_um
    )
    shown = shown_z_um(dataset, z_um)
    field = reconstruction.field(shown)
    name = f"{dataset.name} · {document['solver']}"
    title = f"{name} · {z_label(shown)}"
    history = [(int(step), float(seconds), float(loss)) for step, seconds, loss in document["history"]]
    written = [
        *stacks,
        figures.save(figures.amplitude(field, grid.extent_um, title=title), folder / "amplitude.png"),
        figures.save(figures.phase(field, grid.extent_um, title=title), folder / "phase.png"),
        figures.save(figures.loss_curve(history, title=name), folder / "loss.png"),
    ]
    if len(z_um) > 1:
        amplitude, phase = map(tiff.Stack, stacks)
        written.append(video.write_gif(folder / STACK_FILE, amplitude, phase, z_um, grid.extent_um))
    if left := (document.get("fit") or {}).get("residual"):
        figure = residual.singular_pictures(
            left, dataset.calibration.image_na, dataset.optics.na, dataset.extent_um, title=name
        )
        written.append(figures.save(figure, folder / RESIDUAL_FILE))
    return [path.name for path in written]


def render(folder: Path, reconstruction: Reconstruction, dataset: Dataset, document: Mapping[str, Any]) -> list[str]:
    """What the report of a comparison draws of it."""
    return [rendering.render(reconstruction, document["z_um"], dataset.truth).save(folder).name]


def shown_z_um(dataset: Dataset, z_um: Sequence[float]) -> float:
    """The z of the still pictures: the known defocus where it was reconstructed, else the middle plane."""
    known = dataset.defocus_um
    if known is not None and z_um[0] <= known <= z_um[-1]:
        return known
    return float(z_um[len(z_um) // 2])
