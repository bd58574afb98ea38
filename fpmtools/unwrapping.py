"""Phases beyond −π and π: whole turns are added until neighbours differ by less than half of one.

Where the steps from pixel to pixel, each taken within ±π, add up to nothing around every square of four pixels, the sum
along any path from one pixel to another is the same: then there is one answer, and two running sums find it. A square
of which they leave a turn over is a residue (Goldstein, Zebker and Werner 1988, doi:10.1029/RS023i004p00713); with any
of these the answer depends on the path, and that of the most reliable pixels first is taken (Herráez et al. 2002,
doi:10.1364/AO.41.007437, as scikit-image has it).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Phase = NDArray[np.float32]
TURN = 2 * np.pi


def unwrapped(phase: Phase) -> Phase:
    """``phase`` [y, x], rad within ±π, continued beyond; its median stays within ±π."""
    if is_unique(phase):
        return _at_home(phase, _summed(phase))
    from skimage.restoration import unwrap_phase

    sorted_in: Any = unwrap_phase(phase, rng=0)  # type: ignore[no-untyped-call]
    return _at_home(phase, np.rint((sorted_in - phase) / TURN))


def is_unique(phase: Phase) -> bool:
    """Whether ``phase`` [y, x] has no residue, so that all ways to unwrap it come to the same."""
    down, right = _turns(phase, 0), _turns(phase, 1)
    return not np.any(right[:-1] + down[:, 1:] - right[1:] - down[:, :-1])


def continued(phase: Phase, near: Phase) -> Phase:
    """``phase`` [y, x] with the turns that bring each pixel as close as can be to ``near``."""
    return np.asarray(phase + TURN * np.rint((near - phase) / TURN), dtype=np.float32)


def _turns(phase: Phase, axis: int) -> Phase:
    """Turns that a step along ``axis`` is too large by."""
    return np.asarray(np.rint(np.diff(phase, axis=axis) / np.float32(TURN)))


def _summed(phase: Phase) -> Phase:
    """Turns to add: down the first column, and from there along the rows."""
    turns = np.zeros_like(phase)
    turns[1:, 0] = -np.cumsum(_turns(phase[:, :1], 0)[:, 0])
    turns[:, 1:] = turns[:, :1] - np.cumsum(_turns(phase, 1), axis=1)
    return turns


def _at_home(phase: Phase, turns: NDArray[Any]) -> Phase:
    whole = phase + TURN * turns
    return np.asarray(whole - TURN * np.rint(np.median(whole) / TURN), dtype=np.float32)
