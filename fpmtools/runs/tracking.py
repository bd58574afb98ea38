"""Quality on the way: what a result is worth while it is being made, and whether that is enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fpmtools import metrics
from fpmtools.dataset import Dataset
from fpmtools.errors import OptionError
from fpmtools.reconstruction import Reconstruction
from fpmtools.runs.memory import PeakMemory
from fpmtools.runs.spec import TARGETS

LOOKING = "looking"
POINTS = "quality_over_time"
GROWTH = 1.5  # from one look to the next, of the time so far
GROWTH_TO_TARGET = 1.1  # what the time to a target is exact to
FREE_S = 5.0  # of looking; beyond it no longer is spent on looking than on solving, unless there is a target


def check_targets(targets: Mapping[str, float], dataset: Dataset) -> None:
    """Raise :class:`OptionError` when there are targets but no truth to measure by."""
    if targets and dataset.truth is None:
        raise OptionError(f"a target needs a data set whose truth is known, and {dataset.name!r} is measured")


class Tracker:
    """Called with each snapshot of a run: keeps PSNR and SSIM of the amplitude, and says when the targets are reached.

    ``points`` are dicts of ``seconds``, ``psnr`` and ``ssim``, as :func:`fpmtools.metrics.score` has them, in ``kept``,
    so that a checkpoint can hold them. What it
    takes does not count in ``memory``, the run's. ``on_event`` hears of each look when it begins ("looking") and when
    it has ended ("quality"). A result that cannot be looked at ends the looking, and the run only if it has a target.
    """

    def __init__(
        self,
        dataset: Dataset,
        targets: Mapping[str, float],
        on_event: Callable[[dict[str, Any]], object],
        memory: PeakMemory,
        kept: dict[str, Any] | None = None,
    ) -> None:
        self.dataset = dataset
        self.targets = dict(targets)
        self.growth = GROWTH_TO_TARGET if targets else GROWTH
        self._kept = {} if kept is None else kept
        self._kept.setdefault(POINTS, [])
        self.seconds_to_target: float | None = None
        self._on_event = on_event
        self._memory = memory
        self._spent_s = 0.0
        self._trouble = ""

    @property
    def points(self) -> list[dict[str, float]]:
        """What was seen, in order."""
        found: list[dict[str, float]] = self._kept[POINTS]
        return found

    def __call__(self, seconds: float, reconstruction: Reconstruction) -> bool:
        if self._trouble or (not self.targets and self._spent_s > max(seconds, FREE_S)):
            return False
        begun = time.perf_counter()
        self._on_event({"event": LOOKING, "seconds": seconds})
        try:
            point = {"seconds": seconds, **self._quality(reconstruction)}
        except Exception as error:  # a plugin's field, which may do anything
            if self.targets:
                raise
            self._trouble = f"{type(error).__name__}: {' '.join(str(error).split())}"
            return False
        self._spent_s += time.perf_counter() - begun
        self.points.append(point)
        self._on_event({"event": "quality", **point})
        reached = bool(self.targets) and all(point[name] >= least for name, least in self.targets.items())
        if reached:
            self.seconds_to_target = seconds
        return reached

    def _quality(self, reconstruction: Reconstruction) -> dict[str, float]:
        # A result that has diverged is for the engine to report.
        with self._memory.aside(), np.errstate(invalid="ignore", divide="ignore"):
            match = metrics.match(reconstruction, self.dataset)
            amplitude = np.abs(match.gain * match.field)
            quality = metrics.quality(np.abs(match.truth), amplitude, data_range="truth")
        return {name: float(quality[name]) for name in TARGETS}

    def record(self) -> dict[str, Any]:
        """For ``run.json``."""
        found: dict[str, Any] = {POINTS: self.points}
        if self._trouble:
            found["untracked"] = f"its quality on the way could not be measured: {self._trouble}"
        if self.targets:
            found |= {"target": self.targets, "seconds_to_target": self.seconds_to_target}
        return found
