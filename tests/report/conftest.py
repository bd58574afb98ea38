"""Small fields that look like something: cells with amplitude and phase, never square."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

Make = Callable[..., NDArray[np.complex64]]


@pytest.fixture
def cells() -> Make:
    """``cells(height, width, phase_rad=1.0)``: discs that absorb and retard, on a bright background."""

    def make(height: int, width: int, phase_rad: float = 1.0, seed: int = 0) -> NDArray[np.complex64]:
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:height, :width]
        discs = np.zeros((height, width))
        for _ in range(6):
            radius = 0.15 * min(height, width)
            distance = np.hypot(y - rng.uniform(0, height), x - rng.uniform(0, width))
            discs = np.maximum(discs, np.clip(radius - distance + 0.5, 0, 1))
        return ((1 - 0.4 * discs) * np.exp(1j * phase_rad * discs)).astype(np.complex64)

    return make
