"""The pictures that a run leaves in its folder; each function returns the names of the files it wrote."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools import storage
from fpmtools.dataset import Dataset
from fpmtools.formats.channels import channel
from fpmtools.formats.volume import Volume
from fpmtools.reconstruction import Reconstruction
from fpmtools.report import rendering

STACK_FILE = "stack.gif"
RESIDUAL_FILE = "residual.png"
COLOUR_FILE = "colour.png"
LARGEST = 4096  # pixels of the longer side; what is larger is drawn smaller, and at full size by render
FILES = ("amplitude.tiff", "phase.tiff", "amplitude.png", "phase.png", STACK_FILE, "loss.png", RESIDUAL_FILE)


def draw(folder: Path, reconstruction: Reconstruction, dataset: Dataset, document: Mapping[str, Any]) -> list[str]:
    """The pictures of the run that ``document`` (``run.json``) describes, in its folder."""
    from fpmtools.formats import imagej
    from fpmtools.report import figures, residual, video  # matplotlib, which what a comparison keeps does without
    from fpmtools.report.contrast import z_label

    grid, z_um = reconstruction.grid, document["z_um"]
    shape = rendering.scaled(grid.shape, LARGEST)
    pixel_um = (grid.extent_um[0] / shape[0], grid.extent_um[1] / shape[1])
    stacks = imagej.write_amplitude_phase(folder, (reconstruction.field(z, shape) for z in z_um), shape, z_um, pixel_um)
    shown = shown_z_um(dataset, z_um)
    field = reconstruction.field(shown, shape)
    name = f"{dataset.name} · {document['solver']}"
    title = f"{name} · {z_label(shown)}"
    history = [(int(step), float(seconds), float(loss)) for step, seconds, loss in document["history"]]
    written = [
        *stacks,
        figures.save(figures.amplitude(field, grid.extent_um, title=title), folder / "amplitude.png"),
        figures.save(figures.phase(field, grid.extent_um, title=title), folder / "phase.png"),
    ]
    if history:
        written.append(figures.save(figures.loss_curve(history, title=name), folder / "loss.png"))
    if len(z_um) > 1:
        amplitude, phase = map(imagej.Stack, stacks)
        written.append(video.write_gif(folder / STACK_FILE, amplitude, phase, z_um, grid.extent_um))
    if left := (document.get("fit") or {}).get("residual"):
        figure = residual.singular_pictures(
            left, dataset.calibration.image_na, dataset.optics.na, dataset.extent_um, title=name
        )
        written.append(figures.save(figure, folder / RESIDUAL_FILE))
    return [path.name for path in written]


def draw_colour(folder: Path, result: Any) -> list[str]:
    """The picture of several colours (:class:`fpmtools.colour.result.ColourReconstruction`), in its run's folder."""
    shape = rendering.scaled(result.grid.shape, LARGEST)
    write_picture(folder / COLOUR_FILE, result.colour(sum(result.grid.z_range) / 2, shape))
    return [COLOUR_FILE]


def write_picture(path: Path, picture: NDArray[np.floating[Any]]) -> None:
    """Colours [y, x, (r, g, b)] from 0 to 1 as a PNG of so many pixels."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(np.rint(255 * picture).astype(np.uint8)).save(content, "png")
    storage.write_bytes(path, content.getvalue())


def render(folder: Path, reconstruction: Reconstruction, dataset: Dataset, document: Mapping[str, Any]) -> list[str]:
    """What the report of a comparison draws of it."""
    return [rendering.render(reconstruction, document["z_um"], dataset.truth, dataset).save(folder).name]


def write_png(path: Path, volume: Volume) -> None:
    """Amplitude and phase of one plane as a figure; of several colours what one sees, pixel by pixel."""
    from fpmtools.report import figures
    from fpmtools.report.contrast import z_label

    (z_um,) = volume.z_um
    if volume.picture is not None:
        write_picture(path, volume.picture(z_um))
        return
    title = z_label(z_um)
    figures.save(figures.amplitude_phase(volume.plane(z_um), volume.extent_um, title=title), path)


def write_gif(path: Path, volume: Volume) -> None:
    """Amplitude and phase of each plane, as a film."""
    from fpmtools.report import video

    video.write_gif(path, *_amplitude_phase(volume), volume.z_um, volume.extent_um)


def write_mp4(path: Path, volume: Volume) -> None:
    """The same film as an MP4."""
    from fpmtools.report import video

    video.write_mp4(path, *_amplitude_phase(volume), volume.z_um, volume.extent_um)


def _amplitude_phase(volume: Volume) -> tuple[_Lazy, _Lazy]:
    """Of each plane, when they are asked for."""
    last: dict[int, NDArray[np.complex64]] = {}

    def plane(k: int) -> NDArray[np.complex64]:
        if k not in last:  # amplitude and phase of a plane are asked for in turn
            last.clear()
            last[k] = volume.plane(volume.z_um[k])
        return last[k]

    return _Lazy(plane, channel("amplitude").of), _Lazy(plane, channel("phase").of)


@dataclass(frozen=True)
class _Lazy:
    """A real number of each plane, made when it is asked for."""

    plane: Callable[[int], NDArray[np.complex64]]
    of: Callable[[NDArray[np.complex64]], NDArray[np.float32]]

    def __getitem__(self, k: int) -> NDArray[np.float32]:
        return self.of(self.plane(k))


def shown_z_um(dataset: Dataset, z_um: Sequence[float]) -> float:
    """The z of the still pictures: the known defocus where it was reconstructed, else the middle plane."""
    known = dataset.defocus_um
    if known is not None and z_um[0] <= known <= z_um[-1]:
        return known
    return float(z_um[len(z_um) // 2])
