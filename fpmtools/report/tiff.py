"""Amplitude and phase as float32 TIFF that ImageJ opens with the right pixel size and, where it is one, z spacing."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fpmtools import storage
from fpmtools.errors import OutputError
from fpmtools.optics import Shape
from fpmtools.report.contrast import flat_phase, z_label

AMPLITUDE = "amplitude of the transmitted field; the mean bright-field image has intensity 1"
PHASE = "phase in rad, -pi to pi, relative to the mean of its plane"

_CLASSIC_TIFF_BYTES = 2**32 - 2**24  # beyond, offsets need BigTIFF, which ImageJ reads through Bio-Formats only


def write_amplitude_phase(
    folder: str | Path,
    fields: Iterable[NDArray[np.complexfloating[Any, Any]]],
    shape: Shape,
    z_um: Sequence[float],
    pixel_um: tuple[float, float],
) -> tuple[Path, Path]:
    """Write ``amplitude.tiff`` and ``phase.tiff``, one float32 page [y, x] per plane, and return their paths.

    ``fields`` yields one complex [y, x] of ``shape`` per z of ``z_um`` and is gone through once, so that a stack never
    has to be in memory. ``pixel_um`` is (y, x). Both files say in their description what the values are.
    """
    folder = Path(folder)
    try:
        spool = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (the with below closes it)
    except OSError as error:
        raise OutputError.of(error, f"in {folder}") from error
    with spool:

        def amplitudes() -> Iterable[NDArray[np.float32]]:
            for field in fields:
                spool.write(flat_phase(field).tobytes())
                yield np.abs(field).astype(np.float32)

        def phases() -> Iterable[NDArray[np.float32]]:
            spool.seek(0)
            for _ in z_um:
                yield np.frombuffer(spool.read(4 * shape[0] * shape[1]), np.float32).reshape(shape)

        return (
            write_stack(folder / "amplitude.tiff", amplitudes(), shape, z_um, pixel_um, AMPLITUDE),
            write_stack(folder / "phase.tiff", phases(), shape, z_um, pixel_um, PHASE),
        )


def write_stack(
    path: str | Path,
    pages: Iterable[NDArray[np.float32]],
    shape: Shape,
    z_um: Sequence[float],
    pixel_um: tuple[float, float],
    content: str,
) -> Path:
    """Write real pages [y, x] of ``shape``, one per z, as one TIFF, atomically; ``content`` says what the values are.

    Resolution is in pixels per µm; each page is labelled with its z, and ``z_um`` in the description lists them all.
    The spacing, in µm, is said only where the planes are evenly spaced: there is none otherwise.
    """
    metadata: dict[str, Any] = {"axes": "ZYX", "content": content, "z_um": " ".join(f"{z:.9g}" for z in z_um)}
    if (spacing := even_spacing(z_um)) is not None:
        metadata["spacing"] = spacing
    return _write(path, pages, shape, [_plain(z_label(z)) for z in z_um], pixel_um, metadata)


def write_channels(
    path: str | Path, pages: Mapping[str, NDArray[np.floating[Any]]], pixel_um: tuple[float, float], content: str
) -> Path:
    """Write real pages [y, x] of one shape and one z as the channels of one TIFF, each under its name."""
    shape = next(iter(pages.values())).shape
    metadata = {"axes": "CYX", "mode": "grayscale", "content": _plain(content)}
    return _write(path, pages.values(), (shape[0], shape[1]), list(pages), pixel_um, metadata)


def even_spacing(z_um: Sequence[float]) -> float | None:
    """The distance of neighbouring planes; None where it is not the same everywhere, or there is one plane only."""
    steps = np.diff(np.asarray(z_um, dtype=np.float64))
    if not len(steps) or not np.allclose(steps, steps.mean(), rtol=1e-4, atol=0):
        return None
    return float(steps.mean())


def _write(
    path: str | Path,
    pages: Iterable[NDArray[np.floating[Any]]],
    shape: Shape,
    labels: Sequence[str],
    pixel_um: tuple[float, float],
    metadata: dict[str, Any],
) -> Path:
    import tifffile

    classic = 4 * len(labels) * shape[0] * shape[1] < _CLASSIC_TIFF_BYTES
    metadata["unit"] = "um"
    if classic:
        metadata["Labels"] = list(labels)

    def write(file: IO[bytes]) -> None:
        named = tifffile.FileHandle(file, name=Path(path).name)  # a descriptor has no name of its own
        with tifffile.TiffWriter(named, imagej=classic, bigtiff=not classic) as tiff:
            tiff.write(
                (np.asarray(page, dtype=np.float32) for page in pages),
                shape=(len(labels), *shape),
                dtype=np.float32,
                photometric="minisblack",
                resolution=(1 / pixel_um[1], 1 / pixel_um[0]),
                metadata=metadata,
            )

    return storage.write_atomic(path, write)


def _plain(label: str) -> str:
    """In the characters that ImageJ's descriptions have."""
    return label.replace("−", "-").replace("µ", "u")


@dataclass(frozen=True)
class Stack:
    """The pages of a file that :func:`write_stack` wrote: ``stack[k]`` reads page k, float32 [y, x], from disk."""

    path: Path

    def __getitem__(self, page: int) -> NDArray[np.float32]:
        import tifffile

        return np.asarray(tifffile.imread(self.path, key=page))
