"""Where the sample is: the depth at which one object explains the bright field best.

A depth that is wrong by less than half a depth of field is found more precisely as defocus of the pupil, which is the
same: where the depth is not known, that is a convention, and all of it counts as depth.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from fpmtools.calibrate.descent import Descent
from fpmtools.calibrate.instrument import DEFOCUS, FIXED, Instrument
from fpmtools.optics import Optics
from fpmtools.problem import Problem
from fpmtools.pupil import Pupil

STEP, NEAR, FARTHEST = 0.5, 2, 12  # depths of field n λ / NA²; so many steps to look at first, and at most
APART = 3  # steps between the depths that are looked at beyond: an optimum is as wide on both sides
SWEEPS = 15  # of the object at each depth
SAMPLES = 65  # of the pupil along an axis, where modes are told from one another


def search(
    problem: Problem,
    instrument: Instrument,
    bright: list[int],
    step_um: float | None = None,
    *,
    between: bool = False,
    far: bool = False,
) -> float:
    """z in µm, the problem's own where none that is looked at explains the images ``bright`` better.

    ``step_um`` apart, half a depth of field unless it is given. ``between``: what lies between the problem's own and
    the one beside it is told too, where nothing else is going to find it.

    Both directions are tried, farther than that only with ``far``, for the error has optima on the way, or where the
    best of the nearest depths is the last of them: what is nearly right takes little time. The vertex of a parabola
    through the best and the two beside it is returned.
    """
    (start,), depth = problem.z_um, step_um or STEP * problem.forward.optics.depth_of_field_um
    dark = [i for i in range(len(problem.amplitudes)) if i not in bright]
    found: dict[int, float] = {}

    def look(steps: Iterable[int]) -> int:
        for step in steps:
            if step not in found and abs(step) <= FARTHEST:
                fit = Descent.begin(replace(problem, z_um=(start + step * depth,)), instrument, dark, 0.0)
                fit.advance(SWEEPS)
                found[step] = float(np.log(fit.errors(bright)).mean())
        return min(found, key=lambda step: found[step])

    best = look(range(-NEAR, NEAR + 1))
    if far:
        best = look(range(-FARTHEST, FARTHEST + 1, APART))
    elif abs(best) == NEAR:
        best = look(range(-FARTHEST, FARTHEST + 1))
    if best == 0 and not between:
        return start
    beside = look((best - 1, best + 1))
    while beside != best:
        best, beside = beside, look((beside - 1, beside + 1))
    if abs(best) == FARTHEST:
        return start + best * depth
    before, at, after = found[best - 1], found[best], found[best + 1]
    vertex = (before - after) / (2 * (before - 2 * at + after)) if before - 2 * at + after > 0 else 0.0
    return start + (best + vertex) * depth


def without_defocus(instrument: Instrument, optics: Optics) -> tuple[Instrument, float]:
    """The same instrument without defocus in its pupil, and by how much the sample is deeper then, µm."""
    pupil, depth = as_depth(instrument.pupil.numpy(), optics)
    return instrument.moved({"pupil": torch.from_numpy(pupil)}), depth


def as_depth(zernike_rad: NDArray[np.float64], optics: Optics) -> tuple[NDArray[np.float64], float]:
    """A pupil's Zernike coefficients [mode], rad, without defocus, and the depth that stands for it, µm."""
    axis = np.linspace(-1, 1, SAMPLES)
    y, x = (grid[axis[:, None] ** 2 + axis**2 <= 1] for grid in np.meshgrid(axis, axis, indexing="ij"))
    waves = optics.axial_wavenumber(y * optics.cutoff, x * optics.cutoff)
    by_depth = np.linalg.lstsq(Pupil.modes(len(zernike_rad), y, x).T, waves, rcond=None)[0]  # rad/µm of each mode
    by_depth[: FIXED["pupil"]] = 0
    depth = float(zernike_rad[DEFOCUS]) / by_depth[DEFOCUS]
    return zernike_rad - by_depth * depth, depth
