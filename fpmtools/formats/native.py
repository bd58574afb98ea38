"""The project's own format: one safetensors file that holds all of a data set, with a checksum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools import storage
from fpmtools.calibration import Calibration
from fpmtools.dataset import Dataset, Truth
from fpmtools.errors import DataError, printable
from fpmtools.formats.raw import RawImages
from fpmtools.formats.recording import Recording, Wanted
from fpmtools.images import Images
from fpmtools.optics import Optics

_KIND, IMAGES = "dataset", "intensities"
KEPT_BYTES = 1 << 28  # of images: no more are read at once


def save(dataset: Dataset, path: str | Path) -> Path:
    """Write ``dataset`` to ``path``, atomically; every number comes back as it is. Returns the path."""
    known, about = dataset.calibration.dump()
    tensors: dict[str, NDArray[Any]] = {IMAGES: dataset.images.stored()}
    tensors |= {f"calibration.{name}": values for name, values in known.items()}
    if dataset.truth is not None:
        tensors["truth_field"] = _split(dataset.truth.field)
        tensors["truth_depth_um"] = dataset.truth.depth_um.astype(np.float32)
    header = {
        "name": dataset.name,
        "optics": dataset.optics.to_dict(),
        "calibration": about,
        "provenance": dataset.provenance,
    }
    return storage.write_tensors(path, tensors, _KIND, header)


def read(path: str | Path) -> Dataset:
    """The data set that :func:`save` wrote; :class:`DataError` when the file is damaged or incomplete."""
    tensors, header, left = storage.read_parts(path, _KIND, _stays)
    try:
        truth = None
        if "truth_field" in tensors:
            truth = Truth(_join(tensors["truth_field"]), tensors["truth_depth_um"])
        name = printable(str(header["name"]))
        optics, prefix = Optics(**header["optics"]), "calibration."
        if "calibration" not in header:  # as version 0.1 wrote it
            return Dataset.from_arrays(
                _in_file(Path(path), left[IMAGES]) if left else tensors[IMAGES],
                tensors["na"],
                optics,
                name=name,
                pupil=_join(tensors["pupil"]) if "pupil" in tensors else None,
                defocus_um=header["defocus_um"],
                truth=truth,
                provenance=dict(header["provenance"]),
            )
        known = {name.removeprefix(prefix): values for name, values in tensors.items() if name.startswith(prefix)}
        calibration = Calibration.restore(known, header["calibration"])
        images = Images.of(_in_file(Path(path), left[IMAGES]) if left else tensors[IMAGES], name)
        return Dataset(images, optics, calibration, name, truth, dict(header["provenance"]))
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise DataError(f"{path}: not a complete data set ({error!r})") from error


def _stays(name: str, size: int) -> bool:
    """Images that are not read at once."""
    return name == IMAGES and size > KEPT_BYTES


def _in_file(path: Path, part: storage.Part) -> RawImages:
    if len(part.shape) != 3:
        raise ValueError(f"images of shape {part.shape}")
    count, height, width = part.shape
    return RawImages.of(path, part.offset, (count, height, width), part.dtype)


def read_recording(path: Path, wanted: Wanted) -> Recording:
    """The same, as a reader gives it."""
    return Recording.of(read(path))


def _split(values: NDArray[np.complex64]) -> NDArray[np.float32]:
    """Complex values as float32 [..., (re, im)]."""
    return np.stack([values.real, values.imag], axis=-1).astype(np.float32)


def _join(parts: NDArray[Any]) -> NDArray[np.complex64]:
    return np.asarray(parts[..., 0] + 1j * parts[..., 1], dtype=np.complex64)
