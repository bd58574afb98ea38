"""What a finished run is worth: its numbers, its ring correlation and its pictures, step by step, in its folder.

This runs in the run's own process, for results and metrics may be anybody's code. Each step is written down as it ends,
so that a crash costs the step that it happened in and no other.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fpmtools import registry
from fpmtools.comparison import steps
from fpmtools.comparison.journal import Found, Journal
from fpmtools.dataset import Dataset
from fpmtools.errors import DataError, FpmError
from fpmtools.evaluation import Case
from fpmtools.evaluation.measures import TRUTH_THRESHOLD
from fpmtools.metrics import RingCorrelation
from fpmtools.reconstruction import Reconstruction
from fpmtools.report import rendering, run_folder
from fpmtools.results import open_result


def gather(folder: Path, dataset: Dataset, wanted: Sequence[str], on_step: Callable[[str], None]) -> None:
    """Take the steps ``wanted`` (see :mod:`fpmtools.comparison.steps`) for the run in ``folder``.

    What each gives goes to the folder's journal; one that raises leaves its reason there, and only an essential one
    that does ends the whole. ``on_step`` is told the name of each before it is taken.
    """
    if not wanted:
        return
    journal, run = Journal(folder), _Run(folder, dataset)
    for step in wanted:
        journal.begin(step)
        on_step(step)
        try:
            found = Found(run.take(step))
        except FpmError as error:
            found = Found(reason=_one_line(error))
        except (Exception, SystemExit) as error:
            found = Found(reason=f"{type(error).__name__}: {_one_line(error)}".rstrip(": "))
        journal.end(step, found)
        if found.reason and step in steps.ESSENTIAL:
            return


class _Run:
    """A run's folder, its data set, and what several steps need."""

    def __init__(self, folder: Path, dataset: Dataset) -> None:
        self.folder, self.dataset = folder, dataset
        self.document: dict[str, Any] = json.loads((folder / run_folder.RUN_FILE).read_text(encoding="utf-8"))

    @functools.cached_property
    def case(self) -> Case:
        return Case(open_result(self.folder), self.dataset, self._solved)

    def take(self, step: str) -> Any:
        name = steps.metric_name(step)
        if name is not None:
            return registry.metric_function(name)(self.case)
        take: dict[str, Callable[[], Any]] = {
            steps.RESULT: self._open,
            steps.FIELD: self._field,
            steps.RINGS_TRUTH: self._rings_with_truth,
            steps.RINGS_HALVES: self._rings_of_halves,
            steps.PICTURES: self._pictures,
            steps.FILES: self._files,
        }
        return take[step]()

    def _open(self) -> dict[str, Any]:
        return {"kind": self.case.reconstruction.kind}

    def _field(self) -> None:
        z_um = self.document["z_um"]
        field = self.case.reconstruction.field(z_um[len(z_um) // 2])
        if not np.isfinite(field).all():
            raise DataError("its field has values that are not finite")

    def _rings_with_truth(self) -> dict[str, Any]:
        rings = self.case.rings_with_truth
        return _curve(rings, np.full_like(rings.frequency, TRUTH_THRESHOLD), "truth")

    def _rings_of_halves(self) -> dict[str, Any]:
        rings = self.case.rings_of_halves
        return _curve(rings, rings.threshold, "halves")

    def _pictures(self) -> list[str]:
        rendered = rendering.render(self.case.reconstruction, self.document["z_um"], self.dataset.truth)
        return [rendered.save(self.folder).name]

    def _files(self) -> list[str]:
        written = run_folder.write_pictures(self.folder, self.case.reconstruction, self.dataset, self.document)
        return [path.name for path in written]

    def _solved(self, part: Dataset) -> Reconstruction:
        """The result from part of the LEDs, which the comparison has solved before."""
        digest = part.digest
        for place in (self.folder / name for name in (steps.HELD_OUT, *steps.HALVES)):
            file = place / run_folder.RUN_FILE
            if file.is_file() and json.loads(file.read_text(encoding="utf-8"))["data"]["digest"] == digest:
                return open_result(place)
        raise DataError(f"{part.name}: no solve of these {part.n_images} LEDs was made")


def _curve(rings: RingCorrelation, threshold: Any, of: str) -> dict[str, Any]:
    """Without the innermost ring, the mean, which says nothing."""
    curves = {"frequency": rings.frequency, "correlation": rings.correlation, "threshold": threshold}
    return {**{name: values[1:].tolist() for name, values in curves.items()}, "of": of}


def _one_line(error: BaseException) -> str:
    try:
        return " ".join(str(error).split())[:300]
    except Exception:  # whose class is a plugin's too
        return ""
