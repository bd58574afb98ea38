"""Quality on the way: what a result is worth while it is being made, and whether that is enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from fpmtools import metrics
from fpmtools.comparison.memory import PeakMemory
from fpmtools.dataset import Dataset
from fpmtools.errors import OptionError, unknown
from fpmtools.reconstruction import Reconstruction

LOOKING = "looking"
TARGETS = ("psnr", "ssim")  # of both, more is better
GROWTH = 1.5  # from one look to the next, of the time so far
GROWTH_TO_TARGET = 1.1  # what the time to a target is exact to
FREE_S = 5.0  # of looking; beyond it no longer is spent on looking than on solving, unless there is a target


def parse_targets(texts: Iterable[str]) -> dict[str, float]:
    """``psnr=25``, or several with commas or in several texts → what to reach; raises :class:`OptionError`."""
    targets: dict[str, float] = {}
    for text in (part.strip() for whole in texts for part in whole.split(",")):
        name, _, value = (part.strip() for part in text.partition("="))
        if name not in TARGETS:
            raise unknown("target", name, TARGETS)
        try:
            targets[name] = float(value)
        except ValueError:
            raise OptionError(f"--target {text}: give {name}=NUMBER, such as psnr=25") from None
        if not np.isfinite(targets[name]) or (name == "ssim" and targets[name] > 1):
            raise OptionError(f"--target {text}: {value} cannot be reached")
    return targets


def check_targets(targets: Mapping[str, float], dataset: Dataset) -> None:
    """Raise :class:`OptionError` when there are targets but no truth to measure by."""
    if targets and dataset.truth is None:
        raise OptionError(f"--target needs a data set whose truth is known, and {dataset.name!r} is measured")


class Tracker:
    """Called with each snapshot of a run: keeps PSNR and SSIM of the amplitude, and says when the targets are reached.

    ``points`` are dicts of ``seconds``, ``psnr`` and ``ssim``, as :func:`fpmtools.metrics.score` has them. What it
    takes does not count in ``memory``, the run's. ``on_event`` hears of each look when it begins ("looking") and when
    it has ended ("quality"). A result that cannot be looked at ends the looking, and the run only if it has a target.
    """

    def __init__(
        self,
        dataset: Dataset,
        targets: Mapping[str, float],
        on_event: Callable[[Mapping[str, Any]], None],
        memory: PeakMemory,
    ) -> None:
        self.dataset = dataset
        self.targets = dict(targets)
        self.growth = GROWTH_TO_TARGET if targets else GROWTH
        self.points: list[dict[str, float]] = []
        self.seconds_to_target: float | None = None
        self._on_event = on_event
        self._memory = memory
        self._spent_s = 0.0
        self._skipped = False
        self._trouble = ""

    def __call__(self, seconds: float, reconstruction: Reconstruction) -> bool:
        self._skipped = not self.targets and self._spent_s > max(seconds, FREE_S)
        if self._skipped or self._trouble:
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

    def record(self, seconds: float, final: Mapping[str, Any]) -> dict[str, Any]:
        """For ``run.json``; ``final`` is the quality after ``seconds``, when all was done, where it is known."""
        if self._skipped and final:
            self.points.append({"seconds": seconds, **{name: final[name] for name in TARGETS}})
        found: dict[str, Any] = {"quality_over_time": self.points}
        if self._trouble:
            found["untracked"] = f"its quality on the way could not be measured: {self._trouble}"
        if self.targets:
            found |= {"target": self.targets, "seconds_to_target": self.seconds_to_target}
        return found
