"""What a comparison left in its folder, read defensively: what is missing is left out, and never an error."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fpmtools import columns, known, metrics, storage
from fpmtools.calibration import Calibration
from fpmtools.columns import Column
from fpmtools.comparison.spec import slug
from fpmtools.dataset import Truth
from fpmtools.errors import DataError, FpmError
from fpmtools.known import KnownSample
from fpmtools.optics import Optics
from fpmtools.reconstruction import CALIBRATION, RESULT_FILE, without_piston
from fpmtools.report.rendering import Field, Rendered
from fpmtools.runs.folder import FINISHED, RUN_FILE

RESULTS_FILE = "results.json"
TRUTH_FOLDER = "truth"  # holds a file for each data set whose sample is known
RING_KINDS = ("halves", "truth")  # what a ring correlation is of

Curve = list[tuple[float, float]]


class InFocus(NamedTuple):
    """A result with every pixel [y, x] at its true depth, after the complex gain that brings it to the truth."""

    field: Field
    gain: complex


@dataclass(frozen=True, eq=False)
class Row:
    """One solver on one data set: its row of the table, and the records (``run.json``) of its runs.

    ``drawn`` is what it looks like where its folder does not say: a colour, brought onto the others.
    """

    name: str
    data: str
    values: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]]
    folder: Path | None
    drawn: Rendered | None = None

    @property
    def status(self) -> str:
        """How it ended; "done" where it did what it was asked to."""
        return str(self.values.get("status", "unknown"))

    @property
    def good(self) -> bool:
        """Whether it gave what was asked for."""
        return self.status in FINISHED

    @property
    def reason(self) -> str:
        """Why there is no full result, in words."""
        return str(self.values.get("reason") or "")

    @property
    def missing(self) -> str:
        """What of a result could not be measured or drawn, and why."""
        return str(self.values.get("missing") or "")

    @cached_property
    def rendered(self) -> Rendered | str:
        """What its first run that has a result looks like, or why that is not known."""
        if self.drawn is not None:
            return self.drawn
        if self.folder is None:
            return self.reason or "no saved result"
        try:
            return Rendered.load(self.folder)
        except FpmError as error:
            return self.missing or self.reason or str(error)

    @cached_property
    def calibration(self) -> Calibration | None:
        """The instrument as its first result has seen it; None where that is not known."""
        if self.folder is None:
            return None
        try:  # its tensors are in the result's file, which is not restored: that would take the solver's code
            tensors, header = storage.read_tensors(self.folder / RESULT_FILE, "reconstruction")
            own = {k.removeprefix(CALIBRATION): v for k, v in tensors.items() if k.startswith(CALIBRATION)}
            return Calibration.restore(own, header["calibration"])
        except (FpmError, KeyError, TypeError, ValueError):
            return None

    @cached_property
    def optics(self) -> Optics | None:
        """The microscope, as its record says."""
        about = self.recorded("data")
        try:
            return Optics(**about["optics"]) if isinstance(about, dict) else None
        except (FpmError, KeyError, TypeError):
            return None

    @property
    def chi2_per_led(self) -> list[float | None]:
        """χ² of each image, None where there is none; empty where it was not measured."""
        fit = self.recorded("fit")
        return [number(value) for value in _list(fit.get("chi2_per_led"))] if isinstance(fit, dict) else []

    def number(self, key: str) -> float | None:
        """The finite number in the row under ``key``, if there is one."""
        return number(self.values.get(key))

    def recorded(self, key: str) -> Any:
        """What the first of its runs that has recorded ``key`` says; None where none has."""
        return next((record[key] for record in self.records if record.get(key)), None)

    def over_time(self, key: str) -> Curve:
        """(seconds, value) of "psnr" or "ssim" while it ran, or of its "loss"; empty where not recorded."""
        if key == "loss":
            rows = [row for row in _list(self.recorded("history")) if isinstance(row, list) and len(row) == 3]
            return _finite((row[1], row[2]) for row in rows)
        points = [point for point in _list(self.recorded("quality_over_time")) if isinstance(point, dict)]
        return _finite((point.get("seconds"), point.get(key)) for point in points)

    def ring_correlation(self) -> tuple[Curve, Curve, str]:
        """(cycles/µm, correlation), (cycles/µm, threshold), and whether of "halves" or with the "truth".

        Empty where not measured.
        """
        found = self.recorded("ring_correlation")
        if not isinstance(found, dict):
            return [], [], ""
        frequencies = _list(found.get("frequency"))
        curves = (_list(found.get(key)) for key in ("correlation", "threshold"))
        first, second = (_finite(zip(frequencies, curve, strict=False)) for curve in curves)
        return first, second, str(found.get("of", "halves"))


@dataclass(frozen=True)
class Folder:
    """All that a comparison's folder holds.

    ``truths`` are limited to the band that the LEDs cover; their global phase is free, and chosen to be 0 on average.
    ``picture`` is what is shown of a run in several colours, which are its rows.
    """

    path: Path
    document: Mapping[str, Any]
    rows: Sequence[Row]
    truths: Mapping[str, Truth]
    picture: Mapping[str, Any] | None = None
    _in_focus: dict[Row, InFocus] = field(default_factory=dict, repr=False)

    @cached_property
    def columns(self) -> Mapping[str, Column]:
        """What is known about the numbers of the rows, by key: what the comparison says, else what a run measures."""
        said = self.document.get("columns")
        about = said.items() if isinstance(said, dict) else ()
        described = {key: Column.from_dict(key, what) for key, what in about if isinstance(what, dict)}
        return columns.of(()) | described

    def column(self, key: str) -> Column:
        """What is known about the number called ``key``, or what its name says."""
        return self.columns.get(key) or columns.unknown(key)

    @property
    def datasets(self) -> list[str]:
        """Names of the data sets, in order."""
        return list(dict.fromkeys(row.data for row in self.rows))

    @property
    def solvers(self) -> list[str]:
        """Names of the solvers, in order; a solver's place decides its colour."""
        return list(dict.fromkeys(row.name for row in self.rows))

    def of(self, data: str) -> list[Row]:
        """The rows of one data set."""
        return [row for row in self.rows if row.data == data]

    def in_focus(self, row: Row) -> InFocus | None:
        """The result brought to the truth; None where there is no result or no truth."""
        truth, rendered = self.truths.get(row.data), row.rendered
        if truth is None or isinstance(rendered, str) or rendered.focus is None:
            return None
        if rendered.focus.shape != truth.field.shape:
            return None  # an older truth of the same name
        if row not in self._in_focus:
            gain = metrics.align(truth.field, rendered.focus)
            self._in_focus[row] = InFocus(rendered.focus * np.complex64(gain), gain)
        return self._in_focus[row]

    def ring_correlations(self, data: str, of: str) -> tuple[dict[Row, Curve], Curve]:
        """Each solver's (cycles/µm, correlation) of its "halves" or with the "truth", and the threshold."""
        measured = {row: row.ring_correlation() for row in self.of(data)}
        curves = {row: curve for row, (curve, _, kind) in measured.items() if curve and kind == of}
        return curves, next((measured[row][1] for row in curves), [])


def read(folder: str | Path) -> Folder:
    """Read the folder that a comparison wrote.

    Raises :class:`DataError` when it holds no readable ``results.json`` with rows; anything else may be missing.
    """
    folder = Path(folder)
    path = folder / RESULTS_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        rows = [row for row in document["rows"] if isinstance(row, dict)]
    except FileNotFoundError:
        raise DataError(
            f"{folder}: no {RESULTS_FILE} here; give a folder that 'fpmtools compare' or 'run' wrote"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not the results of a comparison ({error!r})") from error
    if not rows:
        raise DataError(f"{path}: the comparison has no rows")
    records = [record for record in document.get("runs") or () if isinstance(record, dict)]
    only = _name(document.get("data"))
    several_seeds = len({row["seed"] for row in rows if row.get("seed") is not None}) > 1
    found = [_row(folder, row, records, only, several_seeds) for row in rows]
    return Folder(folder, document, found, dict(_truths(folder)))


def number(value: Any) -> float | None:
    """``value`` if it is a finite number."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if usable else None


def _truths(folder: Path) -> Iterator[tuple[str, Truth]]:
    for path in sorted((folder / TRUTH_FOLDER).glob("*.safetensors")):
        try:
            sample = known.read(path)
        except FpmError:
            continue  # the report then says that there is no truth
        yield sample.name, limited(sample)


def limited(sample: KnownSample) -> Truth:
    """The truth of a sample in the band that its LEDs cover, its mean phase 0."""
    pixel_um = sample.image_shape[1] * sample.optics.pixel_um / sample.truth.field.shape[1]
    field = metrics.band_limit(sample.truth.field, sample.optics, sample.na, pixel_um)
    return Truth(without_piston(field), sample.truth.depth_um)


def _row(
    folder: Path, values: Mapping[str, Any], records: Sequence[Mapping[str, Any]], only: str, several_seeds: bool
) -> Row:
    solver, data = str(values.get("solver", "")), _name(values.get("data")) or only
    own = [record for record in records if _belongs(record, values)]
    places = (_inside(folder, place) for record in [*own, {}] for place in _places(record, solver))
    name = f"{solver} (seed {values.get('seed')})" if several_seeds else solver
    return Row(name, data, values, own, next(filter(None, places), None))


def _belongs(record: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether a run is one of those that a row sums up: the same solver and, where both say so, data set and seed."""
    if record.get("label") != row.get("solver"):
        return False
    pairs = [(_name(record.get("data")), _name(row.get("data"))), (record.get("seed"), row.get("seed"))]
    return all(mine == theirs for mine, theirs in pairs if mine not in (None, "") and theirs not in (None, ""))


def _places(record: Mapping[str, Any], solver: str) -> list[str]:
    """Where a run's folder may be, the likeliest first."""
    if isinstance(said := record.get("folder"), str):
        return [said, f"runs/{said}"]
    return [f"{base}{slug(solver)}{number}" for base in ("runs/", "") for number in ("", "-1")]


def _inside(folder: Path, place: str) -> Path | None:
    """``place`` in ``folder`` if a run is there; never one that lies outside."""
    path = (folder / place).resolve()
    return path if path.is_relative_to(folder.resolve()) and (path / RUN_FILE).is_file() else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _finite(pairs: Iterable[tuple[Any, Any]]) -> Curve:
    return [(x, y) for x, y in pairs if number(x) is not None and number(y) is not None]


def _name(data: Any) -> str:
    return str((data.get("name") if isinstance(data, Mapping) else data) or "")
