"""The folder of a single run, as a comparison of one: read the same way, and shown on the same page."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from fpmtools import columns, known, registry
from fpmtools.dataset import Dataset
from fpmtools.errors import DataError, FpmError
from fpmtools.report import html_folder, rendering
from fpmtools.report.html_folder import Folder, Row
from fpmtools.results import open_result
from fpmtools.runs import running
from fpmtools.runs.folder import RESULT_FILE, RUN_FILE
from fpmtools.runs.spec import data_of, read_json


def read(folder: str | Path) -> Folder:
    """The folder of a comparison, or of a run that has a result, which is a comparison of one.

    A run's data are read again, where they can be, for truth and raw image; what is drawn of it is kept in the folder.
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
    dataset = _data(record)
    if not (folder / rendering.RENDERED_FILE).is_file():
        _render(folder, record, dataset)
    solver = str(record.get("solver") or "result")
    values: dict[str, Any] = {"solver": solver, "data": name, "status": record.get("status"), "repeats": 1}
    values["missing"] = "; ".join(f"{what}: {why}" for what, why in _mapping(record.get("missing")).items())
    values["reason"] = record.get("reason") or _mapping(record.get("fit")).get("bad") or ""
    shown = columns.of(supplied.record for supplied in registry.built_in_metrics())
    values |= {key: column.read(record) for key, column in shown.items()}
    document = {"command": record.get("command"), "columns": {key: one.to_dict() for key, one in shown.items()}}
    truths = {} if dataset is None or dataset.truth is None else {name: html_folder.limited(_sample(dataset))}
    return Folder(folder, document, [Row(solver, name, values, [record], folder)], truths)


def _data(record: dict[str, Any]) -> Dataset | None:
    """None where they are not here any more, or are others."""
    with contextlib.suppress(FpmError, KeyError):
        dataset = running.load(data_of(record))
        return dataset if dataset.digest == record["data"]["digest"] else None
    return None


def _render(folder: Path, record: dict[str, Any], dataset: Dataset | None) -> None:
    result = open_result(folder)
    z_um = record.get("z_um") or list(dict.fromkeys(result.grid.z_range))
    truth = None if dataset is None else dataset.truth
    rendering.render(result, z_um, truth, dataset).save(folder)


def _sample(dataset: Dataset) -> known.KnownSample:
    assert dataset.truth is not None
    return known.KnownSample(dataset.name, dataset.truth, dataset.optics, dataset.calibration, dataset.image_shape)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
