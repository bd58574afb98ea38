"""A small picture of what a run has so far, ``preview.png`` in its folder: amplitude beside phase."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools import storage
from fpmtools.errors import OutputError
from fpmtools.optics import Shape
from fpmtools.reconstruction import Reconstruction, without_piston
from fpmtools.runs.folder import PREVIEW_FILE

LONGEST = 800  # pixels of a side
BRIGHTEST = 1.5  # amplitude, of a clear sample's 1
BACKGROUND = 32  # grey where there is nothing yet


class Canvas:
    """The picture of a field of ``shape`` (y, x) pixels, at most :data:`LONGEST` of them along each axis.

    ``shrunk``: pixels of the field to one of the picture; ``written``: when it was last, by the monotonic clock.
    """

    def __init__(self, folder: Path, shape: Shape) -> None:
        self.file = folder / PREVIEW_FILE
        self.shrunk = max(1, -(-max(shape) // LONGEST))
        self.shape: Shape = (-(-shape[0] // self.shrunk), -(-shape[1] // self.shrunk))
        self.written = float("-inf")
        self._levels = np.full((self.shape[0], 2 * self.shape[1]), BACKGROUND, np.uint8)

    def paint(self, field: NDArray[np.complexfloating[Any, Any]], y: int = 0, x: int = 0) -> None:
        """A part [y, x] of the field, at the picture's pixels, with its first one at (y, x)."""
        turned, width = without_piston(field), self.shape[1]
        amplitude = np.clip(np.abs(turned) / BRIGHTEST, 0, 1)
        phase = np.angle(turned) / (2 * np.pi) + 0.5
        for left, values in ((0, amplitude), (width, phase)):
            part = self._levels[y : y + values.shape[0], left + x : min(left + x + values.shape[1], left + width)]
            part[...] = (255 * values[: part.shape[0], : part.shape[1]]).astype(np.uint8)

    def write(self) -> None:
        """The picture as it stands; an older one stays until then."""
        from PIL import Image

        content = io.BytesIO()
        Image.fromarray(self._levels).save(content, "png")
        storage.write_bytes(self.file, content.getvalue())
        self.written = time.monotonic()


class Preview:
    """Called with what a solver has so far: draws the plane at ``z_um``. It gives up at the first trouble.

    ``warn`` is told why.
    """

    def __init__(self, folder: Path, z_um: float, warn: Callable[[str], object]) -> None:
        self._folder, self._z_um, self._warn = folder, z_um, warn
        self._trouble = False

    def __call__(self, reconstruction: Reconstruction) -> None:
        if self._trouble:
            return
        try:
            canvas = Canvas(self._folder, reconstruction.grid.shape)
            with np.errstate(invalid="ignore"):  # the engine tells of what is not finite
                canvas.paint(np.nan_to_num(reconstruction.field(self._z_um, canvas.shape)))
            canvas.write()
        except OutputError as error:
            self._give_up(str(error))
        except Exception as error:  # a plugin's field, which may do anything
            self._give_up(f"{type(error).__name__}: {error}")

    def _give_up(self, why: str) -> None:
        self._trouble = True
        self._warn(f"no preview: {why}")
