"""What a finished run is worth: its numbers, its ring correlation and its pictures, one by one, in its folder.

This runs in the run's own process, for results and metrics may be anybody's code. Each task is written down at once,
so that a crash costs the one that it happened at and no other.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fpmtools import registry
from fpmtools.dataset import Dataset
from fpmtools.errors import DataError, OutputError
from fpmtools.evaluation import Case, fit
from fpmtools.evaluation.measures import TRUTH_THRESHOLD
from fpmtools.interrupts import TERMINATING, handled
from fpmtools.metrics import RingCorrelation
from fpmtools.reconstruction import Reconstruction
from fpmtools.results import open_result
from fpmtools.runs import tasks
from fpmtools.runs.folder import RUN_FILE, RunFolder
from fpmtools.runs.journal import Found, Journal
from fpmtools.runs.spec import read_json
from fpmtools.storage import finite

TRIES = 3  # where the process has died this often it is not tried again
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


def measure(folder: RunFolder, dataset: Dataset, wanted: Sequence[str], on_task: Callable[[str], object]) -> None:
    """Do the tasks ``wanted`` (see :mod:`fpmtools.runs.tasks`) that are not done yet.

    What each gives goes to the folder's journal; one that raises leaves its reason there, and only an essential one
    that does ends the whole. ``on_task`` is told the name of each beforehand. Raises :class:`OutputError` when
    something cannot be written: that is no task's fault.
    """
    journal, run = folder.journal, _Measured(folder, dataset)
    died = {task for task, count in journal.read().in_vain.items() if count >= TRIES}
    for task in tasks.todo(folder.path, journal, wanted):
        if task in died:
            found = Found(reason=f"the process ended here, {TRIES} times")
        else:
            journal.begin(task)
            on_task(task)
            with _put_off(task, journal):
                found = _found(run, task)
        journal.end(task, found)
        if found.reason and task in tasks.ESSENTIAL:
            return


@contextlib.contextmanager
def _put_off(task: str, journal: Journal) -> Iterator[None]:
    """A signal, or a full disk, that ends a task is no fault of the task's.

    SIGTERM and SIGHUP end it at once. Ctrl-C ends it whatever comes of that: C code that calls Python back
    may swallow it, or turn it into an error of its own.
    """
    interrupted = False

    def leave(number: int, usual: Any) -> None:
        nonlocal interrupted
        if number == signal.SIGINT:
            interrupted = usual is signal.default_int_handler
        else:
            journal.put_off(task)
        signal.signal(number, usual)
        signal.raise_signal(number)

    try:
        with handled((signal.SIGINT, *TERMINATING), leave):
            yield
        if interrupted:
            raise KeyboardInterrupt
    except (KeyboardInterrupt, OutputError):
        with contextlib.suppress(OutputError):
            journal.put_off(task)
        raise


def _found(run: _Measured, task: str) -> Found:
    try:
        return Found(run.take(task))
    except OutputError:
        raise
    except OSError as error:
        if error.errno in FULL:
            raise OutputError.of(error, f"in {run.folder.path}") from error
        return Found(reason=tasks.one_line(error))
    except (Exception, SystemExit) as error:
        return Found(reason=tasks.one_line(error))


class _Measured:
    """A run's folder, its data set, and what several tasks need."""

    def __init__(self, folder: RunFolder, dataset: Dataset) -> None:
        self.folder, self.dataset = folder, dataset

    @functools.cached_property
    def case(self) -> Case:
        return Case(open_result(self.folder.path), self.dataset, self._solved)

    def take(self, task: str) -> Any:
        name = tasks.metric_name(task)
        if name is not None:
            return registry.metric_function(name)(self.case)
        if task in tasks.DRAWN:
            module, _, function = tasks.DRAWN[task].partition(":")
            draw = getattr(importlib.import_module(module), function)
            fitted = self.folder.journal.read().ended.get(tasks.FIT)
            document = {**self.folder.document, "fit": None if fitted is None else fitted.value}
            return draw(self.folder.path, self.case.reconstruction, self.dataset, document)
        take: dict[str, Callable[[], Any]] = {
            tasks.RESULT: self._open,
            tasks.FIELD: self._field,
            tasks.FIT: self._fit,
            tasks.RINGS_TRUTH: self._rings_with_truth,
            tasks.RINGS_HALVES: self._rings_of_halves,
        }
        return take[task]()

    def _open(self) -> dict[str, Any]:
        return {"kind": self.case.reconstruction.kind}

    def _field(self) -> None:
        z_um = self.folder.document["z_um"]
        field = self.case.reconstruction.field(z_um[len(z_um) // 2])
        if not np.isfinite(field).all():
            raise DataError("its field has values that are not finite")

    def _fit(self) -> dict[str, Any] | None:
        chi2 = self.case.residual["chi2"]
        if chi2 is None:
            return None
        early = self.folder.document["solved"] in ("stopped", "interrupted")
        return {
            "bad": fit.judge(self.case, early=early),
            "chi2_per_led": finite(chi2["per_led"].tolist()),
            "residual": self.case.residual["pictures"].to_dict(),
        }

    def _rings_with_truth(self) -> dict[str, Any]:
        rings = self.case.rings_with_truth
        return _curve(rings, np.full_like(rings.frequency, TRUTH_THRESHOLD), "truth")

    def _rings_of_halves(self) -> dict[str, Any]:
        rings = self.case.rings_of_halves
        return _curve(rings, rings.threshold, "halves")

    def _solved(self, part: Dataset) -> Reconstruction:
        """The result from part of the LEDs, which the comparison has solved before."""
        digest = part.digest
        for place in (self.folder.path / name for name in (tasks.HELD_OUT, *tasks.HALVES)):
            if (place / RUN_FILE).is_file() and _digest(place) == digest:
                return open_result(place)
        raise DataError(f"{part.name}: no solve of these {part.n_images} LEDs was made")


def _digest(place: Path) -> Any:
    return (read_json(place / RUN_FILE).get("resolved") or {}).get("digest")


def _curve(rings: RingCorrelation, threshold: Any, of: str) -> dict[str, Any]:
    """Without the innermost ring, the mean, which says nothing."""
    curves = {"frequency": rings.frequency, "correlation": rings.correlation, "threshold": threshold}
    return {**{name: values[1:].tolist() for name, values in curves.items()}, "of": of}
