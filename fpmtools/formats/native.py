"""The project's own format: one safetensors file that holds all of a data set, with a checksum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools import storage
from fpmtools.dataset import Dataset, Truth
from fpmtools.errors import DataError, printable
from fpmtools.optics import Optics

_KIND = "dataset"


def save(dataset: Dataset, path: str | Path) -> Path:
    """Write ``dataset`` to ``path``, atomically; every number comes back as it is. Returns the path."""
    tensors: dict[str, NDArray[Any]] = {"intensities": np.asarray(dataset.intensities), "na": dataset.na}
    if dataset.pupil is not None:
        tensors["pupil"] = _split(dataset.pupil)
    if dataset.truth is not None:
        tensors["truth_field"] = _split(dataset.truth.field)
        tensors["truth_depth_um"] = dataset.truth.depth_um.astype(np.float32)
    header = {
        "name": dataset.name,
        "optics": dataset.optics.to_dict(),
        "defocus_um": dataset.defocus_um,
        "provenance": dataset.provenance,
    }
    return storage.write_tensors(path, tensors, _KIND, header)


def read(path: str | Path) -> Dataset:
    """The data set that :func:`save` wrote; :class:`DataError` when the file is damaged or incomplete."""
    tensors, header = storage.read_tensors(path, _KIND)
    try:
        truth = None
        if "truth_field" in tensors:
            truth = Truth(_join(tensors["truth_field"]), tensors["truth_depth_um"])
        return Dataset(
            tensors["intensities"],
            tensors["na"].astype(np.float64),
            Optics(**header["optics"]),
            printable(str(header["name"])),
            _join(tensors["pupil"]) if "pupil" in tensors else None,
            None if header["defocus_um"] is None else float(header["defocus_um"]),
            truth,
            dict(header["provenance"]),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(f"{path}: not a complete data set ({error!r})") from error


def _split(values: NDArray[np.complex64]) -> NDArray[np.float32]:
    """Complex values as float32 [..., (re, im)]."""
    return np.stack([values.real, values.imag], axis=-1).astype(np.float32)


def _join(parts: NDArray[Any]) -> NDArray[np.complex64]:
    return np.asarray(parts[..., 0] + 1j * parts[..., 1], dtype=np.complex64)
