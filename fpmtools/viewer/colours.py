"""The picture of several colours, as one sees it, read part by part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools.colour.result import ColourReconstruction
from fpmtools.report.contrast import Scale
from fpmtools.viewer.layers import LUMINANCE, Reals
from fpmtools.viewer.regions import Box, Kept
from fpmtools.viewer.sources import TRUE_COLOUR, Source, check_z


@dataclass(eq=False)
class ColourSource(Source):
    """Red, green and blue of a result in several colours; each of these by itself is a field."""

    whole: ColourReconstruction | None = None
    z_range: tuple[float, float] | None = None
    planes: Sequence[float] = ()
    kind = "field"
    layers = (TRUE_COLOUR,)

    @classmethod
    def of(cls, whole: ColourReconstruction, name: str, kept: Kept, **more: Any) -> ColourSource:
        """All of ``whole``."""
        grid = whole.grid
        about = {"z_range": grid.z_range, "planes": whole.planes_um, **more}
        return cls(name, grid.shape, grid.extent_um, kept, whole=whole, **about)

    def check(self, at: float) -> None:
        """z must be in range."""
        check_z(self.z_range, at, self.name)

    def seen(self, layer: str, at: float, box: Box, level: int) -> NDArray[Any]:
        """sRGB [y, x, (red, green, blue)], 0 … 1."""
        assert self.whole is not None

        def read() -> NDArray[np.float32]:
            (h, w), (y, x, height, width) = self.shape, (n << level for n in box)
            assert self.whole is not None
            return self.whole.colour(at, box=(y, x, min(height, h - y), min(width, w - x)), level=level)

        return self.kept.get((id(self), at, box, level), read)

    def untouched(self, at: float, box: Box) -> Reals:
        """How bright it is."""
        return np.asarray(self.seen(TRUE_COLOUR, at, box, 0) @ LUMINANCE)

    def scale(self, layer: str, at: float) -> Scale:
        """All that there is: white is the clear field."""
        return Scale(TRUE_COLOUR, 0.0, 1.0)
