"""A small simulated data set, and reconstructions made of given planes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fpmtools.dataset import Dataset
from fpmtools.reconstruction import Grid, PlaneStack
from fpmtools.simulation import simulate


@pytest.fixture(scope="session")
def stack() -> Callable[..., PlaneStack]:
    """``stack(planes [z, y, x], z_um, dataset)``: a reconstruction over the data set's field of view."""

    def make(planes: NDArray[Any], z_um: tuple[float, ...], data: Dataset) -> PlaneStack:
        extent = (data.image_shape[0] * data.optics.pixel_um, data.image_shape[1] * data.optics.pixel_um)
        grid = Grid((int(planes.shape[1]), int(planes.shape[2])), extent, (z_um[0], z_um[-1]))
        return PlaneStack(planes.astype(np.complex64), z_um, grid)

    return make


@pytest.fixture(scope="session")
def thin() -> Dataset:
    """68 bright-field LEDs, 26 × 33 pixels, in focus at 4 µm, noiseless."""
    return simulate("thin", image_shape=(26, 33), defocus_um=4.0)
