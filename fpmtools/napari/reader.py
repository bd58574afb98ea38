"""What napari calls: from a path to a function that gives layers, or None where the path is somebody else's."""

from __future__ import annotations

import contextlib
import functools
import itertools
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fpmtools.dataset import Dataset, Truth
from fpmtools.errors import DataError, FpmError
from fpmtools.formats import native
from fpmtools.napari import layers
from fpmtools.napari.layers import Depths, Layer, Place
from fpmtools.opening import Solved, compared, kind_of

Read = Callable[[str], list[Layer]]


def get_reader(path: str | Sequence[str]) -> Read | None:
    """The function that opens ``path``; None where that is nothing of fpmtools', or several files as one stack.

    A saved result or data set (``.safetensors``), the folder of a run or of a comparison, a field in a ``.npz``.
    """
    if not isinstance(path, str):
        return get_reader(path[0]) if len(path) == 1 else None
    place = Path(path)
    if place.suffix.lower() == ".npz" and not place.is_dir():
        found = _field if _holds_field(place) else None
    else:
        readers = {"run": _run, "result": _run, "comparison": _comparison, "data": _dataset}
        found = readers.get(kind_of(place) or "")
    return None if found is None else functools.partial(_read, found)


def _read(read: Callable[[Path], list[Layer]], path: str | Sequence[str]) -> list[Layer]:
    return read(Path(path if isinstance(path, str) else path[0]))


def _run(path: Path) -> list[Layer]:
    """A result; where it lies in a run's folder, truth and raw images too."""
    shown, beside = _of_run(Solved.at(path))
    return [*beside, *shown]


def _of_run(solved: Solved) -> tuple[list[Layer], list[Layer]]:
    """Of a run: its result, and images and truth, if they can be read again."""
    result, known = solved.open(), _Measured.of(solved)
    shown = layers.of_result(solved.name, result, solved.corner_um)
    if known is None:
        return shown, []
    looks = {
        quantity: {key: about[key] for key in ("colormap", "contrast_limits")}
        for quantity, (_, about, _) in zip(("phase", "amplitude"), shown, strict=False)
    }
    depths, place = Depths.of(result), Place(result.grid.pixel_um, solved.corner_um)
    beside = layers.of_truth(known.truth, result.grid.shape, depths, place, looks) if known.simulated else []
    pixel = (known.pixel_um, known.pixel_um)
    images = layers.of_images(
        lambda: known.dataset, known.count, known.shape, known.bright, depths, Place(pixel, solved.corner_um)
    )
    return shown, [images, *beside]


class _Measured:
    """The data of a run, read again when one looks at them."""

    def __init__(self, solved: Solved) -> None:
        about, pixel_um = solved.record["data"], solved.pixel_um
        if pixel_um is None:
            raise ValueError("no optics")
        self.solved, self.digest, self.pixel_um = solved, about["digest"], pixel_um
        self.count, self.bright = int(about["leds"]), float(solved.record["intensity_scale"])
        height, width = about["image_shape"]
        self.shape = (int(height), int(width))
        self.simulated = about["truth"] is not None

    @classmethod
    def of(cls, solved: Solved) -> _Measured | None:
        """None where a run does not say all of it, or its data are not here."""
        with contextlib.suppress(FpmError, KeyError, TypeError, ValueError, AttributeError):
            return cls(solved) if solved.is_here else None
        return None

    @functools.cached_property
    def dataset(self) -> Dataset:
        """Reading it raises :class:`DataError` where they are not those that the run has seen."""
        found = self.solved.dataset()
        if found.digest != self.digest:
            raise DataError(f"{self.solved.data.source}: these data are not those of the run: they have changed")
        return found

    def truth(self) -> Truth:
        """The known sample."""
        truth = self.dataset.truth
        if truth is None:
            raise DataError(f"{self.solved.data.source}: has no truth any more")
        return truth


def _comparison(path: Path) -> list[Layer]:
    """Every result of a comparison; truth and images of each data set once."""
    found = list[Layer]()
    apart: dict[str, list[Layer]] = {}
    for solved in compared(path)[0]:
        shown, beside = _of_run(solved)
        found = [*shown, *found]
        apart.setdefault(solved.of, beside)
    if not found:
        raise DataError(f"{path}: no solver of this comparison has left a result")
    return [*itertools.chain(*apart.values()), *found]


def _dataset(path: Path) -> list[Layer]:
    return layers.of_dataset(native.read(path))


def _holds_field(path: Path) -> bool:
    """Whether a ``.npz`` is one that fpmtools writes."""
    with contextlib.suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        return {"field.npy", "z_um.npy", "pixel_um.npy"} <= set(archive.namelist())
    return False


def _field(path: Path) -> list[Layer]:
    """The complex field of a ``.npz``."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            field, z_um, pixel_um = (archive[name] for name in ("field", "z_um", "pixel_um"))
        if field.ndim != 3 or not np.iscomplexobj(field) or z_um.shape != (len(field),) or pixel_um.shape != (2,):
            raise ValueError("its arrays do not fit each other")
        place = Place((float(pixel_um[0]), float(pixel_um[1])))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a field that fpmtools wrote ({' '.join(str(error).split())[:150]})") from error
    shape = (field.shape[1], field.shape[2])
    return layers.of_fields(path.stem, lambda k: field[k], shape, Depths.at(z_um.tolist()), place)
