"""A small picture of a slide while its tiles come in: amplitude and phase, not yet joined."""

from __future__ import annotations

import time
from pathlib import Path

from fpmtools.errors import FpmError
from fpmtools.results import open_result
from fpmtools.runs.preview import Canvas
from fpmtools.tiling.plan import Plan

EVERY_S = 1.0


class Preview:
    """``preview.png`` in a folder, written anew as tiles are added, once a second at most."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.canvas, self.plan = Canvas(folder, plan.frame), plan

    def add(self, index: int, folder: Path) -> None:
        """The tile in ``folder``; a result that cannot be rendered is left out."""
        y, x, height, width = (n // self.canvas.shrunk for n in self.plan.tiles[index].box)
        try:
            self.canvas.paint(open_result(folder).field(shape=(height, width)), y, x)
        except FpmError:
            return
        if time.monotonic() - self.canvas.written > EVERY_S or index == len(self.plan.tiles) - 1:
            self.canvas.write()
