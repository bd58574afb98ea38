"""A slide's tiles: how each is solved, which wait for their turn, and how each has ended."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fpmtools.calibration import Calibration
from fpmtools.dataset import Dataset
from fpmtools.errors import ClusterError, InUse, OptionError, OutputError, Terminated
from fpmtools.runs import tasks
from fpmtools.runs.folder import INTERRUPTED, RunFolder
from fpmtools.runs.spec import RunSpec
from fpmtools.tiling.mosaic import TILES_FOLDER
from fpmtools.tiling.plan import Plan
from fpmtools.tiling.preview import Preview
from fpmtools.tiling.tile import spec_of
from fpmtools.tiling.workers import WorkerLost

OnEvent = Callable[[dict[str, Any]], object]

TRIES = 2  # of a tile
LOSSES = 10  # workers that may end at one tile
NOTED_EVERY_S = 2.0  # the state of the tiles, in run.json


@dataclass
class Slide:
    """A tiled run in its folder: where the tiles are, how each is solved, and how each has ended."""

    place: RunFolder
    dataset: Dataset
    plan: Plan
    calibration: Calibration
    depths: list[tuple[float, ...]]  # of each tile
    grids: dict[str, Any]
    ended: dict[int, dict[str, Any]] = field(default_factory=dict)

    def folder(self, index: int) -> Path:
        """Of a tile."""
        return self.place.path / TILES_FOLDER / self.plan.tiles[index].name

    def spec(self, index: int) -> RunSpec:
        """The run of a tile."""
        box, calibration = self.plan.tiles[index].box, self.place.calibration.resolve()
        return spec_of(self.place.spec, box, self.depths[index], calibration, **self.grids)

    def note(self) -> None:
        """Write how the tiles stand into ``run.json``."""
        state = {self.plan.tiles[index].name: about for index, about in sorted(self.ended.items())}
        self.place.update(tiles={**self.place.document["tiles"], "state": state})


@dataclass
class Queue:
    """The tiles that wait for their turn, the next one last; ``before``: how many were done when it began."""

    slide: Slide
    waiting: list[int]
    tell: OnEvent
    preview: Preview | None
    before: int
    begun: float = field(default_factory=time.monotonic)
    noted: float = -math.inf
    tries: dict[int, int] = field(default_factory=dict)
    losses: dict[int, int] = field(default_factory=dict)

    def outcome(self, index: int, future: Future[Any], leaving: bool) -> dict[str, Any] | None:
        """How a tile has ended, noted; None where it waits again, or nobody waits for it any more (``leaving``).

        A worker that is lost is not the tile's fault. What the tile itself raises it may raise once. What would meet
        every tile alike is raised.
        """
        try:
            about: dict[str, Any] = future.result()
        except (Terminated, WorkerLost, InUse) as error:
            self.losses[index] = self.losses.get(index, 0) + 1
            if not leaving and self.losses[index] > LOSSES:
                self.slide.ended[index] = {"status": "failed", "reason": str(error)}
            elif not leaving:
                self.waiting.append(index)
            return None
        except (OutputError, OptionError, ClusterError):
            raise
        except Exception as error:
            self.tries[index] = self.tries.get(index, 0) + 1
            if self.tries[index] < TRIES:
                self.waiting.append(index)
                return None
            about = {"status": "failed", "reason": tasks.one_line(error)}
            self.tell({"event": "warning", "text": f"tile {self.slide.plan.tiles[index].name}: {about['reason']}"})
        if about["status"] != INTERRUPTED:
            self._ended(index, about)
        return about

    def _ended(self, index: int, about: dict[str, Any]) -> None:
        slide, total, seconds = self.slide, len(self.slide.plan.tiles), time.monotonic() - self.begun
        slide.ended[index] = about
        done = len(slide.ended)
        each = seconds / max(done - self.before, 1)
        event = {"step": done, "total": total, "seconds": seconds, "remaining_s": each * (total - done)}
        self.tell({"event": "progress", **event, "each_s": each})
        if self.preview is not None and "sha256" in about:
            self.preview.add(index, slide.folder(index))
        if time.monotonic() - self.noted > NOTED_EVERY_S:
            slide.note()
            self.noted = time.monotonic()
