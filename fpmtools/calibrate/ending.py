"""The end of a joint fit: the pupil's edge, what is looked for after all else, and the margin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fpmtools.calibrate import part, stray
from fpmtools.calibrate.descent import ASTRAY, FINE_EDGE, LATE, Descent
from fpmtools.calibrate.instrument import FREE, OPEN, Instrument
from fpmtools.calibrate.verdicts import CONTROL, pays, solve, solved, typical, verdict
from fpmtools.dataset import Dataset
from fpmtools.metrics.patterns import SingularPictures, shrunk, singular_pictures
from fpmtools.optics import Shape
from fpmtools.sampling import suggested_margin

# After all others: a modulus that is free from the first makes up for what is wrong elsewhere, as stray light does.
LAST = ("stray", "vignetting", "apodization")
MOST_STRAY = 2  # pictures
SIDES, ASIDE, CLOSED = 6, 0.2, 0.6  # of a second aperture to begin with: sides, off the axis; what its radius lacks


def rounded_off(sharp: Descent, dataset: Dataset, last: Sequence[str], report: dict[str, Any]) -> Instrument:
    """The instrument with those of the groups ``last`` that pay; ``report`` then has them, its softness and margin.

    ``sharp``: a short solve with it and a sharp edge, which is taken further.
    """
    problem, held = sharp.problem, sharp.held
    sharp.advance(CONTROL)
    # Positions that are a little off, and a pupil that cuts samples in two, look like an edge that is soft.
    soft = solve(sharp.instrument, problem, held, FINE_EDGE)
    state = min(sharp, soft, key=lambda solve: typical(solve.left_out()))
    if sharp.instrument.deep and not pays(soft.left_out(), sharp.left_out(), deep=True):
        state = sharp
    kept = [name for name, group in report["groups"].items() if name in FREE and group["kept"]]
    for name in LAST:
        if name in last:
            judged = _stray(state, dataset.image_shape) if name == "stray" else _at_last(state, name, kept)
            state, report["groups"][name] = judged
            kept += [name] if name in FREE and report["groups"][name]["kept"] else []
    if (stop := state.instrument.stop()) is not None:
        report["vignetting"] = {"centre": list(stop[:2]), "radius": stop[2]}
    if margin := suggested_margin(dataset, problem.z_um):
        without = solved(state.instrument, part.problem(dataset, problem.z_um[0], 0), held, state.softness)
        report["margin"] = margin if pays(state.left_out(), without) else 0
    report["softness"] = state.softness
    report["residual"] = _left(state).shares.tolist()
    return state.instrument


def _left(state: Descent) -> SingularPictures:
    """What all images have in common that is not explained."""
    forward, every = state.problem.forward, range(len(state.problem.amplitudes))
    forward.update(state.instrument.calibration(state.softness))
    kernel = forward.kernel(state.z)
    left = state.problem.amplitudes - forward.sizes(forward.to_image(forward.crop(state.object) * kernel), every)[0]
    seen = forward.seen()
    return singular_pictures(shrunk((left if seen is None else left * seen).double().numpy()))


def _stray(state: Descent, field: Shape) -> tuple[Descent, dict[str, Any]]:
    """A solve with as many pictures of stray light as pay, each beside those before it, and how these were judged."""
    without, judged = state.left_out(), dict[str, Any]()
    errors = without
    for rank in range(1, MOST_STRAY + 1):
        trial = state.copy()
        light = stray.found(trial, rank, field)
        after = stray.crossed(trial, light)
        better = pays(after, errors)
        if better:
            trial = solve(trial.instrument, trial.problem, trial.held, trial.softness)
            after = stray.crossed(trial, light)
            better = pays(after, errors)
        if better or not judged:
            judged = verdict(better, without, after) | {"pictures": rank if better else 0}
        if not better:
            break
        state, errors = trial, after
    return state, judged


def _at_last(state: Descent, name: str, kept: list[str]) -> tuple[Descent, dict[str, Any]]:
    """A solve with that group, if it pays, and how that was judged.

    It follows on the solve ``state``; where it pays there, a solve of its own decides. ``diverged``: why none of its
    fits could go on.
    """
    without, deep = state.left_out(), state.instrument.deep
    trials, why = [], ""
    for trial in _stopped(state) if name == "vignetting" else [state.copy()]:
        try:
            trial.among([*kept, name], LATE)
        except ASTRAY as error:
            why = " ".join(str(error).split())
        else:
            trials.append(trial)
    if not trials:
        return state, verdict(False, without, without) | {"diverged": why}
    best = min(trials, key=lambda trial: typical(trial.left_out()))
    errors = best.left_out()
    if pays(errors, without, deep):
        best = solve(best.instrument, state.problem, state.held, state.softness)
        errors = best.left_out()
        if pays(errors, without, deep):
            return best, verdict(True, without, errors)
    return state, verdict(False, without, errors)


def _stopped(state: Descent) -> list[Descent]:
    """Solves with a second aperture that takes a little of the pupil: all around, and from where that costs least.

    Where it takes nothing, nothing tells where it should stand.
    """

    def tried(x: float, y: float, closed: float) -> Descent:
        instrument = state.instrument.moved({"vignetting": torch.tensor([x, y, closed], dtype=torch.float64)})
        return solve(instrument, state.problem, state.held, state.softness, steps=CONTROL)

    angles = np.linspace(0, 2 * np.pi, SIDES, endpoint=False)
    beside = [tried(ASIDE * float(np.cos(angle)), ASIDE * float(np.sin(angle)), OPEN - 1) for angle in angles]
    return [tried(0.0, 0.0, CLOSED), min(beside, key=lambda one: typical(one.left_out()))]
