"""A stained sample in three colours, each with its own place, depth and brightness, as a stranger would have it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from fpmtools.imaging import image_intensities
from fpmtools.optics import Optics, frequency_axes, to_field, to_spectrum
from fpmtools.runs import running
from fpmtools.runs.spec import ChannelSpec, DataSpec, Outputs, RunSpec

SHAPE = (56, 70)
UP = 2
NUMBERS = {"na": 0.1, "magnification": 4.0, "camera_pixel_um": 3.45}
LEDS = np.array([(0.04 * i, 0.04 * j) for i in range(-2, 3) for j in range(-2, 3)])
WAVES = {"r": 0.632, "g": 0.53, "b": 0.47}
SHIFTS = {"r": (0.62, -1.37), "g": (0.0, 0.0), "b": (-0.45, 0.83)}  # (y, x) of what is shown, in pixels of the truth
FOCUS_UM = {"r": 40.0, "g": 0.0, "b": -30.0}
LIGHT = {"r": 0.7, "g": 1.0, "b": 0.4}  # of the lamp
BODY = {"r": 0.03, "g": 0.2, "b": 0.1}  # how much of the amplitude the dyes swallow: a pink one,
NUCLEUS = {"r": 0.35, "g": 0.6, "b": 0.25}  # and a purple one
PATH_UM = 0.05  # that is added by the cells


@dataclass(frozen=True)
class Sample:
    """Transmissions [y, x] of each colour at one place, and the measured frames [led, y, x, colour]."""

    fields: dict[str, NDArray[np.complex128]]
    frames: NDArray[np.uint16]
    clear: NDArray[np.bool_]

    shape, up, numbers, leds, waves, shifts, focus_um = SHAPE, UP, NUMBERS, LEDS, WAVES, SHIFTS, FOCUS_UM

    def moved(self, colour: str, more: tuple[float, float] = (0.0, 0.0)) -> NDArray[np.complex128]:
        """A colour where its images show it, and ``more`` pixels (y, x) further."""
        return moved(self.fields[colour], np.add(SHIFTS[colour], more))

    @staticmethod
    def write(folder: Path, frames: NDArray[Any]) -> Path:
        """One TIFF for each LED, in colour or as the camera's mosaic, and the board beside them."""
        return write_frames(folder, frames)


def cells(shape: tuple[int, int], pixel_um: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How much of cells' bodies, and of nuclei, is at each pixel [y, x], from 0 to 1: discs with soft edges."""
    rng, body, nucleus = np.random.default_rng(5), np.zeros(shape), np.zeros(shape)
    axes = [np.arange(n) * pixel_um for n in shape]
    for _ in range(max(1, round(shape[0] * shape[1] * pixel_um**2 / 420))):
        place = rng.uniform(0, np.array(shape) * pixel_um)
        for found, radius, size in ((body, rng.uniform(4, 7), 1.0), (nucleus, rng.uniform(1.5, 3), 1.0)):
            there = place + (rng.uniform(-1, 1, 2) if found is nucleus else 0)
            y, x = (
                (axis - at + n * pixel_um / 2) % (n * pixel_um) - n * pixel_um / 2
                for axis, at, n in zip(axes, there, shape, strict=True)
            )
            radial = np.hypot(y[:, None], x) - radius
            np.maximum(found, size / (1 + np.exp(4 * radial / 1.2)), out=found)
    return body, nucleus


def moved(field: NDArray[np.complex128], by: NDArray[Any]) -> NDArray[np.complex128]:
    """A field moved by so many of its pixels (y, x)."""
    fy, fx = frequency_axes(field.shape, 1.0)
    return np.asarray(to_field(to_spectrum(field) * np.exp(-2j * np.pi * (fy[:, None] * by[0] + fx * by[1]))))


def made(shape: tuple[int, int] = SHAPE) -> Sample:
    """The sample, in images of ``shape``."""
    pixel_um = NUMBERS["camera_pixel_um"] / NUMBERS["magnification"] / UP
    fine = (shape[0] * UP, shape[1] * UP)
    body, nucleus = cells(fine, pixel_um)
    fields, frames = {}, []
    for colour, wave in WAVES.items():
        optics = Optics(wavelength_um=wave, **NUMBERS)
        dye = BODY[colour] * body + NUCLEUS[colour] * nucleus
        field = np.exp(-dye + 2j * np.pi * PATH_UM * (body + nucleus) / wave)
        fields[colour] = field
        there = moved(field, np.array(SHIFTS[colour]))
        frames.append(LIGHT[colour] * image_intensities(there, optics, LEDS, shape, defocus_um=FOCUS_UM[colour]))
    clear = body + nucleus < 1e-3
    return Sample(fields, np.round(30000 * np.stack(frames, axis=-1)).astype(np.uint16), clear)


def write_frames(folder: Path, frames: NDArray[Any]) -> Path:
    folder.mkdir(parents=True)
    for k, frame in enumerate(frames):
        tifffile.imwrite(folder / f"led{k:03d}.tif", frame, photometric="rgb" if frame.ndim == 3 else "minisblack")
    lines = ["na_x,na_y", *(f"{x:.6f},{y:.6f}" for x, y in LEDS)]
    (folder.parent / "board.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def sample() -> Sample:
    return made()


@pytest.fixture(scope="session")
def frames(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of RGB TIFFs."""
    return write_frames(tmp_path_factory.mktemp("colour") / "frames", sample.frames)


@pytest.fixture(scope="session")
def spec(frames: Path) -> RunSpec:
    """All three of it."""
    data = DataSpec(str(frames), leds=str(frames.parent / "board.csv"), optics=NUMBERS)
    channels = [ChannelSpec(name, wavelength_um=wave) for name, wave in WAVES.items()]
    return RunSpec(
        data, "ap", {"sweeps": 20}, calibration="nominal", calibrate="focus", threads=1, upsample=float(UP),
        outputs=Outputs(measures=("residual",), pictures=("files",)), channels=tuple(channels),
    )  # fmt: skip


@pytest.fixture(scope="session")
def solved(spec: RunSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that run, not to be changed."""
    folder = tmp_path_factory.mktemp("colours") / "run"
    running.run(spec, folder)
    return folder


@pytest.fixture(scope="session")
def quick(spec: RunSpec) -> RunSpec:
    """The same in a second: no focus is looked for."""
    return replace(
        spec, options={"sweeps": 2}, calibrate="none", z_um=(0.0,), outputs=Outputs(measures=(), pictures=("files",))
    )


@pytest.fixture(scope="session")
def done(quick: RunSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that, not to be changed."""
    folder = tmp_path_factory.mktemp("quick") / "run"
    running.run(quick, folder)
    return folder
