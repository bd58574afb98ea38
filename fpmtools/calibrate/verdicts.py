"""Whether something pays: by the error of images that the object has not seen, after a solve of the object alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools.calibrate.descent import Descent
from fpmtools.calibrate.instrument import Instrument
from fpmtools.problem import Problem

PAYS = 0.04  # what a group must lower the error of the typical left-out image by
# And where the sample has depth, whose images never fit one plane: a wrong instrument makes up for some of it. On
# eight such sets with nothing wrong groups lowered the error by up to 8 %, the exposure by up to 11 %; where
# they were wrong by 57 to 71 % (background), 59 % (pupil), 12 to 50 % (board) and 23 to 27 % (exposure).
PAYS_DEEP = 0.1
TINY = 1e-12  # error that counts as none
CONTROL = 12  # steps of the object alone before a comparison


def solve(
    instrument: Instrument, problem: Problem, held: list[int], softness: float = 0.0, steps: int = 2 * CONTROL
) -> Descent:
    """So many steps of the object alone, from the first guess on."""
    fit = Descent.begin(problem, instrument, held, softness)
    fit.advance(steps)
    return fit


def solved(*which: Any, **how: Any) -> NDArray[np.float64]:
    """Errors of the left-out images after :func:`solve`."""
    return solve(*which, **how).left_out()


def typical(errors: NDArray[np.float64]) -> float:
    """The geometric mean: else one LED at the pupil's edge would decide alone."""
    return float(np.exp(np.log(np.maximum(errors, TINY)).mean()))


def ratio(new: NDArray[np.float64], old: NDArray[np.float64]) -> float:
    """By how much the typical image's error has changed."""
    return typical(new) / typical(old)


def pays(new: NDArray[np.float64], old: NDArray[np.float64], deep: bool = False) -> bool:
    """Whether it has fallen by enough, for a sample with depth or without."""
    return ratio(new, old) < 1 - (PAYS_DEEP if deep else PAYS)


def verdict(kept: bool, without: NDArray[np.float64], fitted: NDArray[np.float64]) -> dict[str, Any]:
    """How a group was judged; JSON-ready."""
    return {"kept": kept, "without": typical(without), "with": typical(fitted)}


def rejected(judged: dict[str, dict[str, Any]], names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """With these of the groups not kept after all."""
    return judged | {name: judged[name] | {"kept": False} for name in names}
