"""The folder of a single run, as a comparison of one: read the same way, and shown on the same page."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from fpmtools import columns, known, registry
from fpmtools.colour.result import CHANNELS_FOLDER, ColourReconstruction
from fpmtools.dataset import Dataset
from fpmtools.display import number
from fpmtools.errors import DataError, FpmError
from fpmtools.reconstruction import Reconstruction
from fpmtools.report import html_colour, html_folder, rendering
from fpmtools.report.html_folder import Folder, Row
from fpmtools.report.rendering import Rendered
from fpmtools.results import open_result
from fpmtools.runs import running
from fpmtools.runs.folder import RESULT_FILE, RUN_FILE
from fpmtools.runs.spec import data_of, read_json


def read(folder: str | Path) -> Folder:
    """The folder of a comparison, or of a run that has a result, which is a comparison of one.

    A run's data are read again, where they can be, for truth and raw image; what is drawn of it is kept in the folder.
    A run in several colours is a comparison of these.
    Raises :class:`DataError` where there is neither.
    """
    folder = Path(folder)
    if (folder / html_folder.RESULTS_FILE).is_file() or not (folder / RUN_FILE).is_file():
        return html_folder.read(folder)
    record = read_json(folder / RUN_FILE)
    if not (folder / RESULT_FILE).is_file():
        raise DataError(f"{folder}: this run has no result yet (status: {record.get('status')})")
    about = record.get("data")
    name = str(about.get("name") or folder.name) if isinstance(about, dict) else folder.name
    solver = str(record.get("solver") or "result")
    shown = columns.of(supplied.record for supplied in registry.built_in_metrics())
    document = {"command": record.get("command"), "columns": {key: one.to_dict() for key, one in shown.items()}}
    if _mapping(record.get("channels")) and isinstance(result := open_result(folder), ColourReconstruction):
        z_um = _planes(record, result)
        rows = _colours(folder, name, result, z_um)
        picture = html_colour.shown(result, z_um[len(z_um) // 2])
        return Folder(folder, {**document, "solver": solver}, rows, {}, picture)
    dataset = _data(record)
    if not (folder / rendering.RENDERED_FILE).is_file():
        _render(folder, record, dataset)
    truths = {} if dataset is None or dataset.truth is None else {name: html_folder.limited(_sample(dataset))}
    return Folder(folder, document, [_row(solver, name, record, folder)], truths)


def _row(solver: str, data: str, record: dict[str, Any], folder: Path, drawn: Rendered | None = None) -> Row:
    values: dict[str, Any] = {"solver": solver, "data": data, "status": record.get("status"), "repeats": 1}
    values["missing"] = "; ".join(f"{what}: {why}" for what, why in _mapping(record.get("missing")).items())
    values["reason"] = record.get("reason") or _mapping(record.get("fit")).get("bad") or ""
    shown = columns.of(supplied.record for supplied in registry.built_in_metrics())
    values |= {key: column.read(record) for key, column in shown.items()}
    return Row(solver, data, values, [record], folder, drawn)


def _colours(folder: Path, data: str, result: ColourReconstruction, z_um: list[float]) -> list[Row]:
    """A row for each colour, from its own run, with pictures on the grid of all, and a raw image of the first."""
    rows = list[Row]()
    for name, about in result.parts.items():
        own = folder / CHANNELS_FOLDER / name
        record = read_json(own / RUN_FILE)
        drawn = rendering.render(result.channel(name), z_um, None, None if rows else _data(record))
        called = f"{name}, {number(1e3 * about.wavelength_um)} nm"
        # Where it is drawn, not where it was solved.
        rows.append(_row(called, data, {**record, "z_um": z_um}, own, drawn))
    return rows


def _data(record: dict[str, Any]) -> Dataset | None:
    """None where they are not here any more, or are others."""
    with contextlib.suppress(FpmError, KeyError):
        dataset = running.load(data_of(record))
        return dataset if dataset.digest == record["data"]["digest"] else None
    return None


def _planes(record: dict[str, Any], result: Reconstruction) -> list[float]:
    return record.get("z_um") or list(dict.fromkeys(result.grid.z_range))


def _render(folder: Path, record: dict[str, Any], dataset: Dataset | None) -> None:
    result = open_result(folder)
    truth = None if dataset is None else dataset.truth
    rendering.render(result, _planes(record, result), truth, dataset).save(folder)


def _sample(dataset: Dataset) -> known.KnownSample:
    assert dataset.truth is not None
    return known.KnownSample(dataset.name, dataset.truth, dataset.optics, dataset.calibration, dataset.image_shape)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
