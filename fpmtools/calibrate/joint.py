"""The instrument from the images: background, board, pupil, gains and jitter, fitted together with the object.

What is found counts only as far as images of LEDs that the object has not seen confirm it. How object and instrument
move is in :mod:`fpmtools.calibrate.descent`. A joint fit of positions was first shown by Sun et al., Biomed. Opt.
Express 7, 1336 (2016), of the pupil by Ou et al., Opt. Express 22, 4960 (2014).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fpmtools.calibrate import ending, exposure, focus, part
from fpmtools.calibrate.descent import ASTRAY, COARSE_EDGE, FREE_FROM, PACES, STEPS, Descent, OnStep
from fpmtools.calibrate.ending import LAST
from fpmtools.calibrate.instrument import Instrument
from fpmtools.calibrate.verdicts import CONTROL, pays, ratio, rejected, solve, solved, typical, verdict
from fpmtools.calibration import JOINT, Calibration
from fpmtools.dataset import Dataset
from fpmtools.metrics.prediction import held_out_leds
from fpmtools.problem import Problem

FOCUS = "focus"
GROUPS = (FOCUS, "background", "exposure", "board", "pupil", "apodization", "gain", "jitter", "stray", "vignetting")
GIVEN_FOCUS = GROUPS[1:]
PROMISES = 15, 28  # steps after which a sample with depth is left alone if no group that is shared, or single, promises
JUDGED = 35  # step after which what is of single LEDs is judged

EXPLAINED = 1.5  # of the variance that noise has: then there is nothing to look for
SMALL = 1e-3  # of the light of the bright field, that is not worth it either
# What all groups together that have numbers for each LED must lower the error of the typical left-out image by in the
# fit, where it was −34 to 10 % when there was nothing to find (ten sets of three seeds), and 8 to 23 % when there was.
# In a solve at its end these must pay as any group: −5 to 3 % and 9 to 33 %.
ALL_PAY = 0.05
EXPOSED = 0.4  # log of the dark field's exposure that is told from none
EXPOSED_DEEP = 0.15  # what it must lower the error by where the sample has depth, which looks like a factor of two
WRONG = math.log(3)  # by which the exposure that the bright field predicts may be off
LOOKS = 2  # on the way to the first comparison
LEAST_LEDS, LEAST_PIXELS = 12, 48


def fit(
    dataset: Dataset,
    calibration: Calibration,
    *,
    z_um: float,
    groups: Sequence[str] = GIVEN_FOCUS,
    deep: bool = False,
    seed: int = 0,
    on_step: OnStep = lambda step, steps: None,
) -> Calibration:
    """The instrument, found from the images; ``calibration`` where nothing better is.

    Parameters
    ----------
    calibration
        What the fit starts from, and what it goes back to.
    z_um
        Where the sample is; with ``focus`` among the groups, where it is looked for first.
    groups
        Any of :data:`GROUPS`.
    deep
        Whether the sample is at several depths, of which ``z_um`` is the middle: then no defocus is the pupil's.
    seed
        Chooses the LEDs that are left out.
    on_step
        Told of each step and of how many there are; some are taken several times, to compare.

    Returns
    -------
    Calibration
        With ``defocus_um`` where the focus was looked for, and then without defocus in the pupil, which would mean the
        same. ``found["joint"]`` has ``explained``, the error of the bright field over what noise alone makes, with the
        instrument that it starts from; ``nominal`` and ``fitted``, mean squared error of the amplitudes of the typical
        left-out image (geometric mean) before and after; ``groups``: for each whether it was ``kept``, and that error
        ``without`` and ``with`` it; ``singular_values`` of the Jacobian by board and pupil, of which those above 1 are
        combinations that the images tell; ``softness`` of the pupil's edge; ``margin``, the camera pixels beyond the
        border that should be solved, 0 where left-out images are not predicted better so; ``depth_um``, where the
        focus was looked for; ``deep``; ``exposure``, of the dark field, 1 for the bright field's, where that was kept;
        ``moved``, by which mean NA all LEDs were (``shift_na``), and what each was besides (``rest_na``, rms);
        ``residual``, the shares of the first singular pictures of what is left, of its squared error; ``diverged``: why
        the fit could not go on, where it could not.
    """
    used = int(calibration.used.sum())
    bright = np.flatnonzero(calibration.selected().bright_field(dataset.optics))
    small = used < LEAST_LEDS or min(dataset.image_shape) < LEAST_PIXELS
    if calibration.patterns is not None or small or not len(bright):
        return calibration
    chosen = part.region(dataset.select(np.flatnonzero(calibration.used)))
    start = calibration.selected().seen_from(chosen.box, dataset.box, dataset.optics.pixel_um)
    chosen = replace(chosen, calibration=start)
    problem = part.problem(chosen, z_um, part.margin(chosen, z_um))
    held = held_out_leds(chosen, seed=seed)
    instrument = Instrument.of(start, dataset.optics.na, deep=deep)
    control = Descent.begin(problem, instrument, held, 0.0)
    shown = [int(i) for i in bright if i not in held]
    noisy = float(np.median(part.noise(chosen.select(bright), problem)))
    report: dict[str, Any] = {}
    for _ in range(LOOKS):
        control.advance(CONTROL // LOOKS)
        error = float(control.errors(shown).mean())
        report["explained"] = error / noisy
        if error < max(EXPLAINED * noisy, SMALL):
            return _noted(calibration, report)
    nominal = given = control.left_out()
    shared = [name for name in GROUPS if name in groups and name not in (FOCUS, "exposure", *PACES, *LAST)]
    single = [name for name in PACES if name in groups]
    report |= {"nominal": typical(given), "fitted": typical(given)}
    report |= {"groups": {}, "singular_values": [], "softness": 0.0, "margin": 0, "deep": deep}
    of_focus: dict[str, dict[str, Any]] = {}
    if FOCUS in groups:
        problem, nominal, of_focus = _focused(chosen, problem, instrument, held, shown, given)
    sought = instrument
    if "background" in groups:
        sought = replace(instrument, background=np.maximum(part.background(chosen), start.background))
    state = Descent.begin(problem, sought, held, COARSE_EDGE)
    try:
        if deep and not _promises(state, shared, single, on_step):
            return _noted(calibration, report)
        rival, judged = _judged(state, shared, single, on_step)
        if "exposure" in groups:
            level, judged["exposure"] = _exposed(chosen, problem, rival, held)
            if level:  # all else was fitted to images that contradict each other
                state = Descent.begin(problem, replace(sought, exposure=level), held, COARSE_EDGE)
                other, again = _judged(state, shared, single, on_step)
                if pays(other.errors, rival.errors, deep):
                    rival, judged = other, judged | again
                else:
                    judged = rejected(judged, ["exposure"])
    except ASTRAY as error:
        return _noted(calibration, report | {"groups": {}, "diverged": " ".join(str(error).split())})
    report["singular_values"] = rival.told
    if deep:  # where the part that is looked at stands is not what all of the sample has in common
        rival.errors = solved(rival.instrument.without_defocus(), problem, held, steps=CONTROL)
    if not pays(rival.errors, nominal, deep):
        as_given = control if problem is control.problem else solve(instrument, problem, held, steps=CONTROL)
        rival, judged = _Rival(instrument, nominal, as_given), rejected(judged, judged)
        if deep:
            return _noted(calibration, report | {"groups": judged})
    report |= {"fitted": typical(rival.errors), "groups": of_focus | judged}
    if rival.instrument.exposure:
        report["exposure"] = math.exp(rival.instrument.exposure)
    # What one plane cannot explain of a sample with depth is smooth and in all images, as stray light is.
    last = [name for name in LAST if name in groups and not (deep and name == "stray")]
    if typical(rival.errors / part.noise(chosen.select(held), problem)) < EXPLAINED:
        last = []
    found = ending.rounded_off(rival.solve, chosen, last, report)
    if deep:
        found = found.without_defocus()
    elif FOCUS in groups:
        found, depth = focus.without_defocus(found, dataset.optics)
        report["depth_um"] = problem.z_um[0] + depth
        calibration = replace(calibration, defocus_um=report["depth_um"])
    here = found.calibration(report["softness"]).seen_from(dataset.box, chosen.box, dataset.optics.pixel_um)
    return _whole(calibration, here, report)


def _noted(calibration: Calibration, report: dict[str, Any]) -> Calibration:
    """The same, with what a fit says of it."""
    return replace(calibration, found={**calibration.found, JOINT: report})


@dataclass
class _Rival:
    """An instrument, and the ``errors`` of the left-out images after a short ``solve`` with it and a sharp edge.

    To a soft one, brightness and place of LEDs make up for what is wrong with it.
    """

    instrument: Instrument
    errors: NDArray[np.float64]
    solve: Descent
    told: list[float] = field(default_factory=list)  # singular values, see Descent

    @classmethod
    def of(cls, instrument: Instrument, problem: Problem, held: list[int]) -> _Rival:
        fit = solve(instrument, problem, held, steps=CONTROL)
        return cls(instrument, fit.left_out(), fit)


def _focused(
    dataset: Dataset,
    problem: Problem,
    instrument: Instrument,
    held: list[int],
    shown: list[int],
    nominal: NDArray[np.float64],
) -> tuple[Problem, NDArray[np.float64], dict[str, dict[str, Any]]]:
    """The problem where the sample is, its error of the left-out images, and how that was judged, if it was."""
    z_um = focus.search(problem, instrument, shown, far=True)
    if z_um == problem.z_um[0]:
        return problem, nominal, {}
    elsewhere = part.problem(dataset, z_um, part.margin(dataset, z_um))
    errors = solved(instrument, elsewhere, held, steps=CONTROL)
    better = pays(errors, nominal)
    judged = {FOCUS: verdict(better, nominal, errors)}
    return (elsewhere, errors, judged) if better else (problem, nominal, judged)


def _exposed(dataset: Dataset, problem: Problem, rival: _Rival, held: list[int]) -> tuple[float, dict[str, Any]]:
    """The dark field's exposure that left-out images are predicted best with, 0 if none pays; and how that was judged.

    It is looked for from what the bright field predicts on, which may be wrong by a factor of two. An empty dark field
    is the better the less of the object it speaks of: the error then falls with the exposure without end, through the
    bright field alone, and so is no evidence. There must be an optimum near what the light predicts, and the dark field
    must gain by it, each image by its light.
    """
    instrument = rival.instrument.without("gain")  # which will have made up for some of it
    found = exposure.dark_field(dataset, instrument.background)
    start = 0.0 if found is None else math.log(found.ratio)
    errors = {} if rival.instrument.gain.any() else {0.0: rival.errors}

    def error(value: float) -> float:
        if value not in errors:
            errors[value] = solved(replace(instrument, exposure=value), problem, held, steps=CONTROL)
        return typical(errors[value])

    best, step = 0.0, EXPOSED
    if abs(start) > EXPOSED and error(start / 2) < error(best):  # else it is not on the way there either
        best = min(start / 2, start, key=error)
    while best and step > EXPOSED / 8:
        near = min(best - step, best + step, key=error)
        best, step = (near, step) if error(near) < error(best) else (best, step / 2)
        if abs(best - start) > WRONG:
            best = 0.0
    after = errors.get(best or start / 2, rival.errors)
    dark = ~dataset.bright_field[held]
    enough = ratio(after, rival.errors) < 1 - EXPOSED_DEEP if instrument.deep else pays(after, rival.errors)
    better = best != 0.0 and enough and bool(after[dark].sum() < rival.errors[dark].sum())
    return best if better else 0.0, verdict(better, rival.errors, after)


def _promises(state: Descent, shared: Sequence[str], single: Sequence[str], on_step: OnStep) -> bool:
    """Whether some of these groups look as if they might pay, well before the end.

    A sample with depth is never explained to its noise; most of what is left need not be the instrument's.
    """
    early, late = PROMISES
    state.run(early, shared, on_step)
    without = state.instrument
    for name in shared:
        without = without.without(name)
    one, other = (solved(it, state.problem, state.held, steps=CONTROL) for it in (state.instrument, without))
    if shared and pays(one, other):
        return True
    with_them, without_them = state.copy(), state.copy()
    for trial, names in ((without_them, shared), (with_them, [*shared, *single])):
        trial.run(late, names, on_step)
    return ratio(with_them.left_out(), without_them.left_out()) < 1 - ALL_PAY


def _judged(
    state: Descent, shared: Sequence[str], single: Sequence[str], on_step: OnStep
) -> tuple[_Rival, dict[str, dict[str, Any]]]:
    """The whole schedule; the instrument with the groups that pay, and how each was judged."""
    plain, best, judged = _choice(state, shared, single, on_step)
    kept = [name for name, group in judged.items() if group["kept"]]
    settled = _settled(plain, shared, [], on_step)
    if kept:
        # What single LEDs had gained may have been what was not yet settled for all.
        rival = _settled(best, shared, kept, on_step)
        pay = pays(rival.errors, settled.errors, state.instrument.deep)
        if len(kept) == 1:
            judged |= {kept[0]: verdict(pay, settled.errors, rival.errors)}
        if pay:
            settled = rival
        else:
            judged = rejected(judged, kept)
    found, of_shared = _paying(settled, shared, state.problem, state.held)
    return found, judged | of_shared


def _settled(state: Descent, shared: Sequence[str], single: Sequence[str], on_step: OnStep) -> _Rival:
    """The end of the schedule."""
    state.run(STEPS, [*shared, *single], on_step)
    told = state.singular_values()
    if "jitter" in single:
        state.cross()
    return replace(_Rival.of(state.instrument, state.problem, state.held), told=told)


def _paying(
    whole: _Rival, shared: Sequence[str], problem: Problem, held: list[int]
) -> tuple[_Rival, dict[str, dict[str, Any]]]:
    """The instrument with those of the ``shared`` groups that pay, and how each was judged.

    Each in solves from the first guess on: an object that is at hand has come to terms with what there is.
    """
    found, judged = whole.instrument, {}
    for name in shared:
        less = _Rival.of(whole.instrument.without(name), problem, held)
        judged[name] = verdict(pays(whole.errors, less.errors, found.deep), less.errors, whole.errors)
        found = found if judged[name]["kept"] else found.without(name)
    all_pay = all(group["kept"] for group in judged.values())
    return whole if all_pay else replace(_Rival.of(found, problem, held), told=whole.told), judged


def _choice(
    state: Descent, shared: Sequence[str], single: Sequence[str], on_step: OnStep
) -> tuple[Descent, Descent, dict[str, dict[str, Any]]]:
    """At step ``JUDGED``, the state without the groups ``single`` and with those that pay, and how each was judged.

    Each of them has a number for each LED, and so could come to terms with anything that the model lacks. Where all
    together pay, the first is taken in any case: what is of all LEDs has not settled yet, and the end decides.
    """
    state.run(min([FREE_FROM[name] for name in single], default=JUDGED), shared, on_step)
    trials: dict[tuple[str, ...], Descent] = {}

    def tried(*chosen: str) -> Descent:
        names = tuple(name for name in single if name in chosen)
        if names not in trials:
            trials[names] = state.copy()
            trials[names].run(JUDGED, [*shared, *names], on_step)
        return trials[names]

    def errors(*names: str) -> NDArray[np.float64]:
        return tried(*names).left_out()

    kept: list[str] = []
    report: dict[str, dict[str, Any]] = {}
    # The one without before all others, which take its curvature: what single LEDs do on the way tells less of it. And
    # all of them together before each alone: where that does not pay no other trial is needed.
    without = errors()
    left = list(single) if single and ratio(errors(*single), without) < 1 - ALL_PAY else []
    for name in reversed(left):  # what all the others do as well without need not be tried alone
        others = [other for other in left if other != name]
        if others and not pays(errors(*left), errors(*others), state.instrument.deep):
            left = others
    while left:
        before = errors(*kept)
        name = min(left, key=lambda name: ratio(errors(*kept, name), before))
        after = errors(*kept, name)
        report[name] = verdict(not kept or pays(after, before, state.instrument.deep), before, after)
        if not report[name]["kept"]:
            break
        kept.append(name)
        left.remove(name)
    for name in single:
        one = tuple(other for other in single if other in (*kept, name))
        with_it = one if one in trials else tuple(single)
        report.setdefault(name, verdict(False, errors(*kept), errors(*with_it)))
    return tried(), tried(*kept), report


def _whole(calibration: Calibration, found: Calibration, report: dict[str, Any]) -> Calibration:
    """What was found for the images that are used, among all."""
    index = np.flatnonzero(calibration.used)
    na, gain, back = calibration.na.copy(), calibration.gain.copy(), calibration.background.copy()
    na[index], gain[index], back[index] = found.na, found.gain, found.background
    stray = found.stray
    if stray is not None:
        levels = np.zeros((calibration.images, stray.levels.shape[1]))
        levels[index] = stray.levels
        stray = replace(stray, levels=levels)
    moved = (na - calibration.na)[calibration.used]
    shift = moved.mean(axis=0)
    rest = float(np.sqrt(np.square(moved - shift).sum(axis=1).mean()))
    report["moved"] = {"shift_na": shift.tolist(), "rest_na": rest}
    return _noted(
        replace(
            calibration, na=na, gain=gain, background=back, stray=stray, pupil=found.pupil,
            aberrations=found.aberrations,
        ),
        report,
    )  # fmt: skip
