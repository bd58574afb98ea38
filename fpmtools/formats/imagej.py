"""Amplitude and phase as float32 TIFF that ImageJ opens with the right pixel size and, where it is one, z spacing."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fpmtools import storage
from fpmtools.errors import OutputError
from fpmtools.formats.channels import AMPLITUDE, PHASE, flat_phase
from fpmtools.formats.volume import Volume, even_spacing
from fpmtools.optics import Shape

_CLASSIC_TIFF_BYTES = 2**32 - 2**24  # beyond, offsets need BigTIFF, which ImageJ reads through Bio-Formats only
_BIG = "larger than 4 GB, and so a BigTIFF: ImageJ opens it through Bio-Formats only, and without its scale"


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
    return _write(path, pages, (len(z_um), *shape), [_label(z) for z in z_um], pixel_um, metadata)


def write(path: Path, volume: Volume) -> list[str]:
    """The channels of a volume as float32 [z, c, y, x] ([c, y, x] where it has one plane)."""
    z_um, names = volume.z_um, [channel.name for channel in volume.channels]
    said = "; ".join(f"channel {k + 1}: {channel.content}" for k, channel in enumerate(volume.channels))
    metadata: dict[str, Any] = {
        "axes": "ZCYX",
        "mode": "composite" if volume.colours else "grayscale",
        "z_um": " ".join(f"{z:.9g}" for z in z_um),
    }
    leading: tuple[int, ...]
    if len(z_um) == 1:
        metadata |= {"axes": "CYX", "content": f"plane at {z_um[0]:.9g} um; {said}"}
        labels, leading = names, (len(names),)
    else:
        metadata |= {"content": said} | ({} if volume.spacing_um is None else {"spacing": volume.spacing_um})
        labels, leading = [f"{name}, {_label(z)}" for z in z_um for name in names], (len(z_um), len(names))
    pages = (channel.of(plane) for plane in volume.planes() for channel in volume.channels)
    shape = (*leading, *volume.shape)
    _write(path, pages, shape, labels, volume.pixel_um, metadata)
    uneven = len(z_um) > 1 and volume.spacing_um is None
    told = ["the planes are not evenly spaced: each is labelled with its z, and there is no spacing"] if uneven else []
    return told + ([_BIG] if _large(shape) else [])


def _write(
    path: str | Path,
    pages: Iterable[NDArray[np.floating[Any]]],
    shape: tuple[int, ...],
    labels: Sequence[str],
    pixel_um: tuple[float, float],
    metadata: dict[str, Any],
) -> Path:
    import tifffile

    classic = not _large(shape)
    metadata["unit"] = "um"
    if classic:
        metadata["Labels"] = list(labels)

    def write(file: IO[bytes]) -> None:
        named = tifffile.FileHandle(file, name=Path(path).name)  # a descriptor has no name of its own
        with tifffile.TiffWriter(named, imagej=classic, bigtiff=not classic) as tiff:
            tiff.write(
                (np.asarray(page, dtype=np.float32) for page in pages),
                shape=shape,
                dtype=np.float32,
                photometric="minisblack",
                resolution=(1 / pixel_um[1], 1 / pixel_um[0]),
                metadata=metadata,
            )

    return storage.write_atomic(path, write)


def _large(shape: tuple[int, ...]) -> bool:
    return 4 * math.prod(shape) >= _CLASSIC_TIFF_BYTES


def _label(z_um: float) -> str:
    """In the characters that ImageJ's descriptions have."""
    return f"z = {0.0 if abs(z_um) < 5e-4 else z_um:.4g} um"


@dataclass(frozen=True)
class Stack:
    """The pages of a file that :func:`write_stack` wrote: ``stack[k]`` reads page k, float32 [y, x], from disk."""

    path: Path

    def __getitem__(self, page: int) -> NDArray[np.float32]:
        import tifffile

        return np.asarray(tifffile.imread(self.path, key=page))
