"""Where the LED board really stands, as far as the brightness of the images tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fpmtools.calibration import Calibration
from fpmtools.dataset import Dataset

EDGE = 0.15  # of the objective's NA: how far the board is looked for; LEDs within twice that of the edge count
DARK, BRIGHT = 1 / 3, 2 / 3  # of the bright-field mean: an image below is dark field, one above bright field
DEAD = 0.01  # of the bright-field mean
MOST_DEAD = 3  # LEDs: more at once are hardly a fault of theirs
TRIALS = 61  # shifts along each axis
RADII = np.linspace(0.8, 1.25, 91)  # of the objective's NA
UNSETTLED = 1 / 3  # of the contradictions: what leaves more than this is not believed
ENOUGH = 4  # contradictions: fewer are no ground to move two numbers
BETTER = 2  # contradictions that another NA must settle beyond a shift alone, to be suspected
ONE_SIDED = 0.5  # length of their mean direction: a shift has contradictions on one side, a wrong NA all round
SORTED = 0.05  # rank correlation: what another order of the images must gain to be the better explanation
FAITHFUL = 0.75  # and reach: in the right order it is about 0.9

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


def find_board(dataset: Dataset) -> Calibration:
    """The nominal calibration with the board's shift, and without LEDs that contradict their images even then.

    Near the edge of the pupil a small error of the positions puts an LED on its wrong side, which asks for an object
    with light, or without light, where there is none, and spoils what all other LEDs say. A shift of all LEDs is the
    same as a wedge on the sample, so nothing is lost if it is the sample that is tilted. Samples whose direct light
    is not set apart from what they scatter (gratings, diffusers) agree with no shift, and nothing is changed then; nor
    is it where another NA, or another order of the images, explains the same at least as well: these are named.

    ``found["board"]`` holds ``shift_na`` (x, y), ``contradicted`` (how many), ``left_out`` and ``dead`` (image
    indices), and ``cause``, in words, of what is not put right.
    """
    nominal = dataset.calibration
    if nominal.patterns is not None:  # an image lit by many LEDs is hardly ever dark
        return _with(nominal, {"shift_na": [0.0, 0.0], "contradicted": 0, "left_out": [], "dead": [], "cause": ""})
    board = _Board.of(nominal.na, dataset.images.means, dataset.optics.na, _Shifts.about(nominal.na, dataset.optics.na))
    contradicted, shift, cause = board.wrong(np.zeros(2)), np.zeros(2), ""
    if order := board.better_order():
        cause = f"the images fit the LEDs better {order}"
    elif contradicted.any():
        shift, cause = board.shift()
    dead = np.zeros_like(contradicted) if cause else board.dead()
    left_out = dead | (board.wrong(shift) if shift.any() else np.zeros_like(dead))
    about = {
        "shift_na": shift.tolist(),
        "contradicted": int(contradicted.sum()),
        "left_out": np.flatnonzero(left_out & ~dead).tolist(),
        "dead": np.flatnonzero(dead).tolist(),
        "cause": cause,
    }
    return _with(replace(nominal, na=nominal.na + shift, used=nominal.used & ~left_out), about)


def _with(calibration: Calibration, about: dict[str, object]) -> Calibration:
    return replace(calibration, found={**calibration.found, "board": about})


@dataclass(frozen=True)
class _Shifts:
    """Where the board is looked for: shifts ``by`` [trial, (x, y)], the smallest first.

    ``distance`` [trial, near] is where LEDs ``near`` the edge of the pupil then stand, in objective NAs from the axis.
    """

    by: Floats
    near: NDArray[np.intp]
    distance: Floats

    @classmethod
    def about(cls, na: Floats, objective_na: float) -> _Shifts:
        axis = np.linspace(-EDGE, EDGE, TRIALS) * objective_na
        by = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
        by = by[np.argsort(np.linalg.norm(by, axis=1), kind="stable")]
        by = by[np.linalg.norm(by, axis=1) <= EDGE * objective_na]
        near = np.flatnonzero(np.abs(np.linalg.norm(na, axis=1) / objective_na - 1) < 2 * EDGE)
        x, y = (na[near, axis] + by[:, axis, None] for axis in (0, 1))
        return cls(by, near, np.sqrt(x * x + y * y) / objective_na)


@dataclass(frozen=True)
class _Board:
    """Direction sines [led, (x, y)], mean intensities [led], and which images are surely ``dark`` or ``bright``.

    Only LEDs near the edge of the pupil count; ``level`` is the mean of a bright-field image.
    """

    na: Floats
    means: Floats
    objective_na: float
    shifts: _Shifts
    level: float
    dark: Bools
    bright: Bools

    @classmethod
    def of(cls, na: Floats, means: Floats, objective_na: float, shifts: _Shifts) -> _Board:
        inside = np.linalg.norm(na, axis=1) <= objective_na
        level = float(np.quantile(means[inside], 0.75)) if inside.any() else 0.0
        near = np.zeros(len(na), dtype=bool)
        near[shifts.near] = level > 0
        dark, bright = near & (means < DARK * level), near & (means > BRIGHT * level)
        return cls(na, means, objective_na, shifts, level, dark, bright)

    def wrong(self, shift: Floats, radius: float = 1.0) -> Bools:
        """[led] the image is dark although the LED, so moved, should be bright field, or the reverse."""
        seen = np.linalg.norm(self.na + shift, axis=1) <= self.objective_na * radius
        return np.asarray((self.dark & seen) | (self.bright & ~seen))

    def dead(self) -> Bools:
        """[led] the LED is well inside the pupil and its image is black."""
        well_inside = np.linalg.norm(self.na, axis=1) < (1 - 2 * EDGE) * self.objective_na
        return np.asarray(well_inside & (self.means < DEAD * self.level))

    def best_shift(self, radii: Sequence[float] = (1.0,)) -> tuple[Floats, NDArray[np.int_]]:
        """The smallest shift that settles most contradictions at the first radius, and how many are left at each."""
        shifts = self.shifts
        dark, bright = self.dark[shifts.near], self.bright[shifts.near]
        # Who is seen contradicts a dark image, who is not a bright one: small whole numbers, exact in float32.
        seen_too_much = dark.astype(np.float32) - bright
        counts = [(shifts.distance <= radius).astype(np.float32) @ seen_too_much + bright.sum() for radius in radii]
        return shifts.by[int(counts[0].argmin())], np.array([count.min() for count in counts], dtype=int)

    def shift(self) -> tuple[Floats, str]:
        """The shift to apply, or zero and the likely cause, in words, of what no shift explains."""
        contradicted, here = self.wrong(np.zeros(2)), np.zeros(2)
        count = int(contradicted.sum())
        shift, left = self.best_shift([1.0, *RADII])
        alone = np.array([self.wrong(here, r).sum() for r in RADII])
        if alone.min() <= min(UNSETTLED * count, left[0]):
            return here, f"an objective NA of about {self._radius(alone):.3g} would explain it"
        if left[1:].min() <= min(UNSETTLED * count, left[0] - BETTER):
            return (
                here,
                f"a shift of the board and an objective NA of about {self._radius(left[1:]):.3g} would explain it",
            )
        if count < ENOUGH or left[0] > UNSETTLED * count or self._one_sided(contradicted) < ONE_SIDED:
            return here, "no shift of the board explains it"
        return shift, ""

    def _radius(self, left: NDArray[np.int_]) -> float:
        """The objective NA nearest to the given one that leaves the fewest contradictions."""
        best = np.flatnonzero(left == left.min())
        return float(RADII[best[np.abs(RADII[best] - 1).argmin()]]) * self.objective_na

    def _one_sided(self, contradicted: Bools) -> float:
        """How much the contradictions agree on a direction, 0 to 1."""
        towards = self.na[contradicted] / np.linalg.norm(self.na[contradicted], axis=1, keepdims=True)
        signs = np.where(self.dark[contradicted], 1.0, -1.0)
        return float(np.linalg.norm((towards * signs[:, None]).mean(axis=0)))

    def better_order(self) -> str:
        """In which order the images would follow the LEDs' distance clearly better, in words; empty for none.

        Images are the darker the farther out their LED stands; a few that are black by a fault do not count.
        """
        if self.level <= 0 or not (np.linalg.norm(self.na, axis=1) > self.objective_na * (1 - 2 * EDGE)).any():
            return ""
        dead = self.dead()
        counted = ~dead if dead.sum() <= MOST_DEAD else np.ones_like(dead)
        agreement = {name: self._agreement(order, counted[order]) for name, order in _orders(len(self.na))}
        best = min(agreement, key=lambda name: agreement[name])
        clearly = agreement[best] < min(agreement[""] - SORTED, -FAITHFUL)
        return best if clearly else ""

    def _agreement(self, order: NDArray[np.intp], counted: Bools) -> float:
        """Rank correlation of brightness and distance, with the best shift."""
        board = _Board.of(self.na, self.means[order], self.objective_na, self.shifts)
        shift, _ = board.best_shift()
        distance = np.linalg.norm(board.na + shift, axis=1).round(9)
        ranks = np.stack([_ranks(board.means[counted]), _ranks(distance[counted])])
        return float(np.asarray(np.corrcoef(ranks))[0, 1]) if np.ptp(ranks, axis=1).all() else 0.0


def _ranks(values: Floats) -> Floats:
    """Ranks, of equal values their mean. (SciPy's are in a module that takes half a second to import.)"""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[place])


def _orders(count: int) -> Iterator[tuple[str, NDArray[np.intp]]]:
    """Ways in which files get into another order: what puts them right, in words and as indices."""
    forward = np.arange(count)
    yield "", forward
    yield "in reverse order", forward[::-1]
    yield "one place later", np.roll(forward, 1)
    yield "one place earlier", np.roll(forward, -1)
    for first in (0, 1):
        as_text = [int(name) - first for name in sorted(str(i + first) for i in range(count))]
        yield "if they were not sorted as text (1, 10, 2)", np.argsort(as_text)
    side = round(count**0.5)
    if side * side == count:
        yield "with rows and columns exchanged", forward.reshape(side, side).T.ravel()
