"""What napari calls: from a path to a function that gives layers, or None where the path is somebody else's."""

from __future__ import annotations

import contextlib
import functools
import itertools
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fpmtools import storage
from fpmtools.dataset import Dataset, Truth
from fpmtools.errors import DataError, FpmError
from fpmtools.formats import manifest, native
from fpmtools.napari import layers
from fpmtools.napari.layers import Depths, Layer, Place
from fpmtools.report.html_folder import RESULTS_FILE
from fpmtools.report.html_folder import read as read_comparison
from fpmtools.results import open_result
from fpmtools.runs import running
from fpmtools.runs.folder import RESULT_FILE, RUN_FILE
from fpmtools.runs.spec import RunSpec, read_json

Read = Callable[[str], list[Layer]]


def get_reader(path: str | Sequence[str]) -> Read | None:
    """The function that opens ``path``; None where that is nothing of fpmtools', or several files as one stack.

    A saved result or data set (``.safetensors``), the folder of a run or of a comparison, a field in a ``.npz``.
    """
    if not isinstance(path, str):
        return get_reader(path[0]) if len(path) == 1 else None
    place = Path(path)
    if place.is_dir():
        names = {RESULT_FILE: _run, RESULTS_FILE: _comparison}
        found = next((read for name, read in names.items() if (place / name).is_file()), None)
    elif place.suffix.lower() == ".npz":
        found = _field if _holds_field(place) else None
    else:
        found = {"reconstruction": _run, "dataset": _dataset}.get(storage.kind_of(place))
    return None if found is None else functools.partial(_read, found)


def _read(read: Callable[[Path], list[Layer]], path: str | Sequence[str]) -> list[Layer]:
    return read(Path(path if isinstance(path, str) else path[0]))


def _run(path: Path) -> list[Layer]:
    """A result; where it lies in a run's folder, truth and raw images too."""
    folder = path if path.is_dir() else path.parent
    whole = (folder / RUN_FILE).is_file() and (path.is_dir() or path.name == RESULT_FILE)
    name = folder.resolve().name if whole or path.is_dir() else path.stem
    if not whole:
        return layers.of_result(name, open_result(path))
    shown, beside = _of_run(name, folder)
    return [*beside, *shown]


def _of_run(name: str, folder: Path) -> tuple[list[Layer], list[Layer]]:
    """Of a run's folder: its result, and images and truth, if they can be read again."""
    result, document = open_result(folder), read_json(folder / RUN_FILE)
    known = _Measured.of(document)
    if known is None:
        return layers.of_result(name, result), []
    shown = layers.of_result(name, result, known.corner_um)
    looks = {
        quantity: {key: about[key] for key in ("colormap", "contrast_limits")}
        for quantity, (_, about, _) in zip(("phase", "amplitude"), shown, strict=True)
    }
    depths, place = Depths.of(result), Place(result.grid.pixel_um, known.corner_um)
    beside = layers.of_truth(known.truth, result.grid.shape, depths, place, looks) if known.simulated else []
    pixel = (known.pixel_um, known.pixel_um)
    images = layers.of_images(
        lambda: known.dataset, known.count, known.shape, known.bright, depths, Place(pixel, known.corner_um)
    )
    return shown, [images, *beside]


class _Measured:
    """The data of a run, read again when one looks at them."""

    def __init__(self, spec: RunSpec, document: Mapping[str, Any]) -> None:
        about = document["data"]
        self.spec, self.digest = spec.data, about["digest"]
        self.count, self.bright = int(about["leds"]), float(document["intensity_scale"])
        height, width = about["image_shape"]
        self.shape = (int(height), int(width))
        self.simulated = about["truth"] is not None
        optics = about["optics"]
        self.pixel_um = float(optics["camera_pixel_um"]) / float(optics["magnification"])
        corner = about["provenance"].get("roi_yxhw", (0, 0))
        self.corner_um = layers.corner_um([float(n) for n in corner[:2]], self.pixel_um)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> _Measured | None:
        """None where a run does not say all of it, or its data are not here."""
        with contextlib.suppress(FpmError, KeyError, TypeError, ValueError, AttributeError):
            spec = RunSpec.from_dict(document["spec"])
            return cls(spec, document) if _is_here(spec.data.source) else None
        return None

    @functools.cached_property
    def dataset(self) -> Dataset:
        """Reading it raises :class:`DataError` where they are not those that the run has seen."""
        found = running.load(self.spec)
        if found.digest != self.digest:
            raise DataError(f"{self.spec.source}: these data are not those of the run: they have changed")
        return found

    def truth(self) -> Truth:
        """The known sample."""
        truth = self.dataset.truth
        if truth is None:
            raise DataError(f"{self.spec.source}: has no truth any more")
        return truth


def _is_here(source: str) -> bool:
    if source.startswith("sim:"):
        return True
    entry = next((entry for entry in manifest.entries() if entry.name == source), None)
    return Path(source).exists() if entry is None else manifest.local_files(entry) is not None


def _comparison(path: Path) -> list[Layer]:
    """Every result of a comparison; truth and images of each data set once."""
    comparison, found = read_comparison(path), list[Layer]()
    apart: dict[str, list[Layer]] = {}
    for row in comparison.rows:
        if row.folder is not None and (row.folder / RESULT_FILE).is_file():
            name = f"{row.name}, {row.data}" if len(comparison.datasets) > 1 else row.name
            shown, beside = _of_run(name, row.folder)
            found = [*shown, *found]
            apart.setdefault(row.data, beside)
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
