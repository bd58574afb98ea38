"""Where the LED board really stands, as far as the brightness of the images tells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EDGE = 0.15  # of the objective's NA: how far the board is looked for; LEDs within twice that of the edge count
DARK, BRIGHT = 1 / 3, 2 / 3  # of the bright-field mean: an image below is dark field, one above bright field
DEAD = 0.01  # of the bright-field mean
TRIALS = 61  # shifts along each axis
UNSETTLED = 1 / 3  # of the contradictions: a shift that leaves more than this is not believed


@dataclass(frozen=True)
class BoardCheck:
    """What the brightness of the images says of where the LEDs stand.

    ``contradicted`` [led] bool: the image is dark although the LED should be bright field, or the reverse. ``shift``
    (x, y): the smallest change of all direction sines that settles most of these, zero if none does. ``dead`` [led]
    bool: the LED is well inside the pupil and its image is black. ``left_out`` [led] bool: these, and LEDs that
    contradict their images even after the shift, if there is one.
    """

    contradicted: NDArray[np.bool_]
    shift: NDArray[np.float64]
    dead: NDArray[np.bool_]
    left_out: NDArray[np.bool_]


def check_board(na: NDArray[np.float64], means: NDArray[np.float64], objective_na: float) -> BoardCheck:
    """Find a shift of the LED board from which images are bright field and which dark field.

    Near the edge of the pupil a small error of the positions puts an LED on its wrong side, which asks for an object
    with light, or without light, where there is none, and spoils what all other LEDs say. A shift of all LEDs is the
    same as a wedge on the sample, so nothing is lost if it is the sample that is tilted. Samples whose direct light
    is not set apart from what they scatter (gratings, diffusers) agree with no shift, and nothing is changed then.

    ``na`` [led, (x, y)] direction sines, ``means`` [led] mean intensity of each image.
    """
    distance = np.linalg.norm(na, axis=1)
    inside = distance <= objective_na
    level = float(np.quantile(means[inside], 0.75)) if inside.any() else 0.0
    near = (np.abs(distance / objective_na - 1) < 2 * EDGE) & (level > 0)
    dark, bright = near & (means < DARK * level), near & (means > BRIGHT * level)

    def wrong(shift: NDArray[np.float64]) -> NDArray[np.bool_]:
        seen = np.linalg.norm(na + shift, axis=1) <= objective_na
        return np.asarray((dark & seen) | (bright & ~seen))

    contradicted = wrong(np.zeros(2))
    dead = np.asarray((distance < (1 - 2 * EDGE) * objective_na) & (means < DEAD * level))
    if not contradicted.any():
        return BoardCheck(contradicted, np.zeros(2), dead, dead)
    axis = np.linspace(-EDGE, EDGE, TRIALS) * objective_na
    trials = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    trials = trials[np.argsort(np.linalg.norm(trials, axis=1), kind="stable")]
    trials = trials[np.linalg.norm(trials, axis=1) <= EDGE * objective_na]
    counts = np.array([wrong(shift).sum() for shift in trials])
    best = int(counts.argmin())
    if counts[best] > UNSETTLED * contradicted.sum():
        return BoardCheck(contradicted, np.zeros(2), dead, dead)
    return BoardCheck(contradicted, trials[best], dead, dead | wrong(trials[best]))
