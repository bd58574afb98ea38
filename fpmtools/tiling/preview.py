"""A small picture of a slide while its tiles come in: amplitude and phase, not yet joined."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np

from fpmtools import storage
from fpmtools.errors import FpmError
from fpmtools.reconstruction import without_piston
from fpmtools.results import open_result
from fpmtools.tiling.plan import Plan

PREVIEW_FILE = "preview.png"
LONGEST = 800  # pixels of a side
EVERY_S = 1.0
BRIGHTEST = 1.5  # amplitude, of a clear sample's 1


class Preview:
    """``preview.png`` in a folder, amplitude beside phase, written anew as tiles are added, once a second at most."""

    def __init__(self, folder: Path, plan: Plan, factor: int) -> None:
        self.file, self.plan = folder / PREVIEW_FILE, plan
        self.shrunk = max(1, -(-max(plan.frame) // LONGEST))
        height, width = (-(-n // self.shrunk) for n in plan.frame)
        self.canvas = np.full((height, 2 * width), 32, np.uint8)
        self._written = -EVERY_S

    def add(self, index: int, folder: Path) -> None:
        """The tile in ``folder``; a result that cannot be rendered is left out."""
        y, x, height, width = (n // self.shrunk for n in self.plan.tiles[index].box)
        try:
            field = without_piston(open_result(folder).field(shape=(height, width)))
        except FpmError:
            return
        half = self.canvas.shape[1] // 2
        amplitude = np.clip(np.abs(field) / BRIGHTEST, 0, 1)
        phase = np.angle(field) / (2 * np.pi) + 0.5
        for left, values in ((0, amplitude), (half, phase)):
            part = self.canvas[y : y + height, left + x : min(left + x + width, left + half)]
            part[...] = (255 * values[: part.shape[0], : part.shape[1]]).astype(np.uint8)
        if time.monotonic() - self._written > EVERY_S or index == len(self.plan.tiles) - 1:
            self.write()

    def write(self) -> None:
        """The picture as it stands."""
        from PIL import Image

        content = io.BytesIO()
        Image.fromarray(self.canvas).save(content, "png")
        storage.write_bytes(self.file, content.getvalue())
        self._written = time.monotonic()
