"""What a simulated sample is, without its images: what a comparison keeps so that its results can be judged again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools import storage
from fpmtools.calibration import Calibration
from fpmtools.dataset import Dataset, Truth
from fpmtools.errors import DataError
from fpmtools.optics import Optics, Shape

KIND = "truth"
CALIBRATION = "calibration."  # before the names of its tensors


@dataclass(frozen=True)
class KnownSample:
    """A data set's name, truth, microscope, nominal calibration and image shape; not its images."""

    name: str
    truth: Truth
    optics: Optics
    calibration: Calibration
    image_shape: Shape

    @property
    def na(self) -> NDArray[np.float64]:
        """Direction sines, [led, (x, y)]."""
        return self.calibration.na

    @property
    def n_images(self) -> int:
        """Number of images that there were."""
        return self.calibration.images


def save(dataset: Dataset, path: str | Path) -> Path | None:
    """Write what ``dataset`` knows of its sample; where it knows nothing an older file goes, and None is returned."""
    truth, path = dataset.truth, Path(path)
    if truth is None:
        path.unlink(missing_ok=True)
        return None
    field = np.ascontiguousarray(truth.field, dtype=np.complex64).view(np.float32).reshape(*truth.field.shape, 2)
    known, about = dataset.calibration.dump()
    tensors: dict[str, NDArray[Any]] = {"field": field, "depth_um": truth.depth_um.astype(np.float32)}
    tensors |= {CALIBRATION + name: values for name, values in known.items()}
    header = {
        "data": dataset.name,
        "optics": dataset.optics.to_dict(),
        "image_shape": dataset.image_shape,
        "calibration": about,
    }
    return storage.write_tensors(path, tensors, KIND, header)


def read(path: str | Path) -> KnownSample:
    """What :func:`save` wrote; :class:`DataError` when the file is damaged or incomplete."""
    tensors, header = storage.read_tensors(path, KIND)
    try:
        field = np.ascontiguousarray(tensors["field"], dtype=np.float32).view(np.complex64)[..., 0]
        height, width = (int(n) for n in header["image_shape"])
        truth = Truth(field, tensors["depth_um"])
        known = {k.removeprefix(CALIBRATION): v for k, v in tensors.items() if k.startswith(CALIBRATION)}
        calibration = Calibration.restore(known, header["calibration"])
        return KnownSample(str(header["data"]), truth, Optics(**header["optics"]), calibration, (height, width))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(f"{path}: not a complete truth ({error!r})") from error
