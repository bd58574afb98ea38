"""From a path to results and data: what lies there, what a run's record says of it, and where its data are now.

A record may be anybody's, and may say anything: what it lacks is None or left out, and never an error by itself.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from fpmtools import storage
from fpmtools.dataset import Dataset
from fpmtools.errors import DataError, FpmError, printable
from fpmtools.formats import manifest
from fpmtools.reconstruction import RESULT_FILE, Reconstruction
from fpmtools.report import html_folder
from fpmtools.results import open_result
from fpmtools.runs.folder import RUN_FILE
from fpmtools.runs.running import load
from fpmtools.runs.spec import DataSpec, data_of, read_json

DATA_FOLDER = "data"  # of a comparison

Kind = Literal["run", "result", "comparison", "data"]


def kind_of(path: str | Path) -> Kind | None:
    """What lies at ``path``: a file with a result or a data set, the folder of a run or of a comparison; else None."""
    place = Path(path)
    if place.is_dir():
        if (place / html_folder.RESULTS_FILE).is_file():
            return "comparison"
        return "run" if any((place / name).is_file() for name in (RUN_FILE, RESULT_FILE)) else None
    known: dict[str | None, Kind] = {"reconstruction": "result", "dataset": "data"}
    return known.get(storage.kind_of(place))


@dataclass(frozen=True)
class Solved:
    """A result where it lies, with what its run says.

    ``path`` is a run's folder, or a file; ``record`` its ``run.json``, empty where there is none. ``of`` is the name of
    the data set in a comparison, ``data_folder`` where that keeps its data.
    """

    path: Path
    name: str
    record: Mapping[str, Any] = field(default_factory=dict)
    of: str = ""
    data_folder: Path | None = None

    @classmethod
    def at(cls, path: Path, name: str = "", of: str = "", data_folder: Path | None = None) -> Solved:
        """The result in a file, or in a run's folder; a run's ``reconstruction.safetensors`` is the run."""
        folder = path.parent if path.name == RESULT_FILE else path
        if not (folder / RUN_FILE).is_file():
            return cls(path, name or (folder.resolve().name if path.is_dir() else path.stem), of=of)
        return cls(folder, name or folder.resolve().name, read_json(folder / RUN_FILE), of, data_folder)

    def open(self) -> Reconstruction:
        """The result; :class:`DataError` where there is none, or it cannot be opened."""
        if self.path.is_dir() and not (self.path / RESULT_FILE).is_file():
            status = printable(self.record.get("status"))
            raise DataError(f"{self.path}: this run has no result yet (status: {status})")
        return open_result(self.path)

    @property
    def data(self) -> DataSpec:
        """Where its data are now; an :class:`FpmError` where the record does not say."""
        spec = data_of(self.record)
        moved = None if self.data_folder is None else self.data_folder / Path(spec.source).name
        return replace(spec, source=str(moved)) if moved is not None and moved.is_file() else spec

    def dataset(self) -> Dataset:
        """Its data, read again; :class:`DataError` where they have other sizes than those that were solved."""
        spec = self.data
        found = load(spec)
        shape = self.said("data", "image_shape")
        if isinstance(shape, list) and tuple(shape) != found.image_shape:
            raise DataError(f"{spec.source} has images of other sizes by now")
        return found

    @property
    def is_here(self) -> bool:
        """Whether its data can be looked for here, without a download."""
        try:
            source = self.data.source
        except FpmError:
            return False
        if source.startswith("sim:"):
            return True
        entry = next((entry for entry in manifest.entries() if entry.name == source), None)
        return os.path.exists(source) if entry is None else manifest.local_files(entry) is not None

    def said(self, *names: str) -> Any:
        """What the record says under these names, one in the other; None where it does not."""
        found: Any = self.record
        for name in names:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found

    @property
    def pixel_um(self) -> float | None:
        """A camera pixel on the object."""
        camera, magnification = (_number(self.said("data", "optics", n)) for n in ("camera_pixel_um", "magnification"))
        return camera / magnification if camera and magnification else None

    @property
    def corner_um(self) -> tuple[float, float]:
        """Where the region that was solved begins in the camera's field (y, x); its beginning where nothing is said.

        So results of several regions of one field lie side by side.
        """
        box, pixel_um = self.said("data", "provenance", "roi_yxhw"), self.pixel_um
        corner = [_number(n) for n in box[:2]] if isinstance(box, list) else []
        if pixel_um is None or len(corner) < 2 or corner[0] is None or corner[1] is None:
            return 0.0, 0.0
        return corner[0] * pixel_um, corner[1] * pixel_um


def compared(folder: Path) -> tuple[list[Solved], list[str]]:
    """The results of a comparison, and a line on each that is not there."""
    read, found, notes = html_folder.read(folder), list[Solved](), list[str]()
    for row in read.rows:
        name = row.name if len(read.datasets) < 2 else f"{row.name} · {row.data}"
        if row.folder is not None and (row.folder / RESULT_FILE).is_file():
            found.append(Solved.at(row.folder, name, row.data, folder / DATA_FOLDER))
        else:
            notes.append(f"{name}: {row.reason or 'its result is not in the folder'}")
    return found, notes


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
