"""Steps of object and instrument together, by a schedule: what becomes free, and when.

All LEDs at once. The object alone goes down by limited-memory BFGS. With an instrument, object, board and pupil take
the same accelerated steps with restarts (Nesterov; O'Donoghue, Candès, Found. Comput. Math. 15, 715, 2015), each
divided by its own curvature: the object's spectrum by its coverage, as in the joint sweeps of classical solvers, the
instrument's numbers by their Gauss-Newton matrix. What is of one LED alone, gain and jitter, is moved by Adam (Kingma,
Ba, arXiv:1412.6980): all LEDs at one pace, however little light tells of them. The board is free from the first step
on, as long as the object is still undecided: an object that has come to terms with wrong positions holds on to them.
The pupil's edge is soft meanwhile, very much so at first, for only then has a loss a slope by positions that cross it.
At last that of each LED near the edge is searched for, sharply.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from fpmtools import quasi_newton
from fpmtools.calibrate import curvature
from fpmtools.calibrate.instrument import FIXED, FREE, Instrument
from fpmtools.errors import DataError
from fpmtools.forward.gradients import gradients
from fpmtools.problem import Problem
from fpmtools.spectral_prior import SpectralPrior

MEMORY = 8  # steps of the object alone that the next is drawn from
FUTILE = 1.5  # tries for each of them, at most: where rounding is all that is left none lowers the error
STEPS, LATE = 60, 20  # of most of it, and of what comes after all else
FREE_FROM = {"board": 0, "pupil": 10, "gain": 20, "jitter": 20}  # step
FINE = 15  # step from which on the pupil's edge is as sharp as it becomes
COARSE_EDGE, FINE_EDGE = 0.5, 0.15  # softness, Fourier pixels
CURVED = (0, 3, 6, 9, 12, 15, 19, 24, 30)  # steps at which the Gauss-Newton matrix is made anew
NEAR, SOME = 1.4, 4  # NA of the objective up to which all LEDs are looked at, and every so many beyond
DAMPING = 1e-3  # of its diagonal
# Object and instrument share what they explain.
SHORTENED = {"board": 0.7, "pupil": 0.7, "apodization": 0.5, "vignetting": 0.5}
FARTHEST = 0.5  # Fourier pixels that the board may move an LED by in one step
PACES = {"jitter": 3e-3, "gain": 0.01}  # of Adam's first steps; jitter in units of the objective's NA
CROSSED, ACROSS, PLACES = 2.5, 1.0, 21  # Fourier pixels from the pupil's edge and on the way; places on it
KNOWN_FROM, KNOWN_EVERY = 20, 5  # steps at which the object's own spectrum is looked at
DIVERGED = 3.0  # times the lowest loss so far: what leads there is taken back
ALIKE = 30.0  # pixels whose errors go together, where expected spreads are weighed against images

# An LED has left the grid, a number is not finite, a matrix is singular.
ASTRAY = (DataError, torch.linalg.LinAlgError)  # type: ignore[attr-defined]

OnStep = Callable[[int, int], object]


@dataclass
class Descent:
    """Object and instrument as they stand; ``ahead`` is where momentum takes both."""

    problem: Problem
    seen: list[int]
    held: list[int]
    measured: tuple[torch.Tensor, torch.Tensor]  # amplitudes of the images that are seen, and of those that are held
    object: torch.Tensor
    instrument: Instrument
    ahead: tuple[torch.Tensor, Instrument]
    softness: float
    count: int = 0  # steps of the schedule that are done
    free: tuple[str, ...] = ()
    inertia: int = 0
    last: float = math.inf
    least: float = math.inf  # loss since the last rest, and where that was
    best: tuple[torch.Tensor, Instrument] | None = None
    matrix: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    prior: torch.Tensor | None = None  # what the object's own spectrum adds to its coverage, [1, H, W]
    matrices: dict[int, torch.Tensor] = field(default_factory=dict)  # by the step; copies have them in common
    moments: dict[str, tuple[torch.Tensor, torch.Tensor, int]] = field(default_factory=dict)

    @classmethod
    def begin(cls, problem: Problem, instrument: Instrument, held: list[int], softness: float) -> Descent:
        """At the first guess; the LEDs that are ``held`` back the object does not see."""
        guess = problem.first_guess()[None].clone()
        seen = [i for i in range(len(problem.amplitudes)) if i not in held]
        measured = problem.amplitudes[seen], problem.amplitudes[held]
        return cls(problem, seen, held, measured, guess, instrument, (guess, instrument), softness)

    def copy(self) -> Descent:
        """Another one, that goes on from here."""
        return replace(self, moments=dict(self.moments))

    @property
    def z(self) -> float:
        """Where the sample is, µm."""
        return self.problem.z_um[0]

    @property
    def shared(self) -> list[str]:
        """The groups that are free and that all images share."""
        return [name for name in FREE if name in self.free]

    def rest(self) -> None:
        """Lose all momentum."""
        self.inertia, self.last, self.ahead = 0, math.inf, (self.object, self.instrument)
        self.least, self.best = math.inf, None

    def advance(self, steps: int) -> None:
        """So many steps of the object alone, by limited-memory BFGS; those that are taken back do not count."""
        coverage, forward = self._update(self.instrument), self.problem.forward
        kernel, amplitudes = forward.kernel(self.z, self.seen), self.measured[0]
        search, pixels = quasi_newton.Search.begin(self.object, MEMORY, self.prior), len(self.seen) * forward.counted
        taken = tries = 0
        while taken < steps and tries < FUTILE * steps:
            if tries:
                search.aim(coverage)
            misfit = forward.loss_and_gradient(search.ahead, amplitudes, self.z, self.seen, kernel=kernel)
            gain, _ = search.take(misfit.loss[None] * pixels, misfit.gradient * pixels)
            taken, tries = taken + int(gain >= 0), tries + 1
        self.last, self.inertia, self.object = float(search.misfit) / pixels, 0, search.stepped(coverage)
        self.ahead = self.object, self.instrument

    def run(self, last: int, groups: Sequence[str], on_step: OnStep) -> None:
        """The schedule of :data:`FREE_FROM` for these groups, from where it stands to before step ``last``."""
        for step in range(self.count, last):
            free = tuple(name for name in groups if name in FREE_FROM and step >= FREE_FROM[name])
            if free != self.free or (step == FINE and self.softness > FINE_EDGE):
                self.free = free
                self.softness = min(self.softness, COARSE_EDGE if step < FINE else FINE_EDGE)
                self.rest()
            if self.shared and (step in CURVED or len(self.matrix) != self._numbers()):
                self.rest()
                self.matrix = self._curvature(step)
            self.step(1 - 0.9 * step / STEPS)
            on_step(step + 1, STEPS)
            if step >= KNOWN_FROM and (step - KNOWN_FROM) % KNOWN_EVERY == 0:
                coverage = self._update(self.instrument)
                variance = torch.tensor([2 * self.last], dtype=coverage.dtype)
                prior = SpectralPrior(self.problem.forward, coverage)
                self.prior = prior.WEIGHT * prior(self.object, variance, self.prior)
        self.count = max(last, self.count)

    def among(self, shared: Sequence[str], steps: int) -> None:
        """So many steps of the object and of groups that all images share, without the schedule."""
        self.rest()
        self.free = tuple(shared)
        self.matrix = self._curvature(STEPS)
        for _ in range(steps):
            self.step()

    def _curvature(self, step: int) -> torch.Tensor:
        """Of what lies around the pupil, and of some of the dark field beyond for all of it.

        A copy that differs in gains and jitter alone takes what another has found at that step.
        """
        known = self.matrices.get(step)
        if known is not None and len(known) == self._numbers():
            return known
        self._update(self.instrument)
        forward = self.problem.forward
        near = np.linalg.norm(forward.na, axis=1) < NEAR * forward.optics.na
        light, dark = [i for i in self.seen if near[i]], [i for i in self.seen if not near[i]]
        some = dark[::SOME]
        counts = dict.fromkeys(light, 1.0) | dict.fromkeys(some, len(dark) / max(len(some), 1))
        found = curvature.matrix(forward, self.object, self.instrument, self.z, counts, self.shared)
        self.matrices[step] = found
        return found

    def singular_values(self) -> list[float]:
        """Of the Jacobian of the images by the shared numbers, each in units of what is expected of it; descending.

        In units of the images' errors: those above 1 are combinations of numbers that the images tell, if the object
        is known.
        """
        if not self.shared:
            return []
        spread = self._free(self.instrument.spread)
        scaled = spread[:, None] * self.matrix * spread / (2 * self.last * ALIKE)
        return torch.linalg.eigvalsh(scaled).clamp_min(0).sqrt().flip(0).tolist()  # type: ignore[no-any-return]

    def _free(self, values: Callable[[str], torch.Tensor]) -> torch.Tensor:
        """Of the shared groups, in their order, without what is fixed by convention."""
        return torch.cat([values(name)[FIXED[name] :] for name in self.shared])

    def _numbers(self) -> int:
        return sum(FREE[name] for name in self.shared)

    def step(self, pace: float = 0.0) -> None:
        """Object and all that is free, one step on; gains and jitter with the share ``pace`` of theirs.

        Where steps have led astray, it goes back to where the loss was least, and on from there without momentum.
        """
        ahead, instrument = self.ahead
        forward, (amplitudes, of_held) = self.problem.forward, self.measured
        coverage = self._update(instrument)
        by_na = {"board", "jitter"} & set(self.free)
        wrt = [name for name in ("pupil", "apodization", "gain") if name in self.free] + (["na"] if by_na else [])
        wrt += ["stop"] if "vignetting" in self.free else []
        loss, slopes = gradients(forward, ahead, amplitudes, self.z, self.seen, wrt=["object", *wrt])
        if self.best is not None and not float(loss) <= DIVERGED * self.least:
            (self.object, self.instrument), least = self.best, self.least
            self.rest()
            self.last = self.least = least
            self.best = self.ahead
            return
        if float(loss) < self.least:
            self.least, self.best = float(loss), self.ahead
        pixels = len(self.seen) * forward.counted
        new, momentum = self._stepped(loss, slopes["object"], coverage)
        moved = self.instrument
        if wrt:
            own = [name for name in wrt if name in ("gain", "na")]  # of LEDs that the object has not seen, too
            if own and self.held and {"gain", "jitter"} & set(self.free):
                theirs = gradients(forward, ahead, of_held, self.z, self.held, wrt=own)[1]
                for name in own:
                    slopes[name][self.held] = theirs[name][self.held] * (len(self.held) / len(self.seen))
            moved = instrument.moved(self._of_all(slopes, pixels) | self._of_leds(slopes, pixels, pace))
        farther = self.instrument.towards(moved, 1 + momentum, self.shared)
        alone = {name: getattr(moved, name) for name in self.free if name not in self.shared}
        self.ahead = new + momentum * (new - self.object), farther.moved(alone)
        self.object, self.instrument = new, moved

    def _stepped(self, loss: torch.Tensor, slope: torch.Tensor, coverage: torch.Tensor) -> tuple[torch.Tensor, float]:
        """The object one step on from where momentum had taken it, and what momentum it has from there."""
        self.inertia = 1 if float(loss) > self.last else self.inertia + 1
        self.last = float(loss)
        ahead, prior = self.ahead[0], 0.0 if self.prior is None else self.prior
        pixels = len(self.seen) * self.problem.forward.counted
        new = ahead - (slope * pixels + prior * ahead) / (coverage + prior)
        return new, (self.inertia - 1) / (self.inertia + 2)

    def _update(self, instrument: Instrument) -> torch.Tensor:
        """Let the forward model see that instrument; what its LEDs cover of the object, [1, H, W]."""
        forward = self.problem.forward
        forward.update(instrument.calibration(self.softness))
        cover = forward.coverage(self.seen)
        return torch.lerp(cover, cover.amax().expand_as(cover), 0.05) / math.prod(forward.image_shape)

    def _of_all(self, slopes: dict[str, torch.Tensor], pixels: int) -> dict[str, torch.Tensor]:
        """Board and pupil, one Gauss-Newton step on."""
        if not self.shared:
            return {}
        instrument, by_board = self.ahead[1], self.ahead[1].by_board()

        def slope_of(name: str) -> torch.Tensor:
            if name == "board":
                return torch.einsum("iak,ia->k", by_board[self.seen], slopes["na"][self.seen])
            if name == "vignetting":
                return slopes["stop"] * slopes["stop"].new_tensor([1.0, 1.0, -1.0])
            return slopes[name][: len(getattr(instrument, name))]

        slope = self._free(slope_of) * pixels
        values, spread = self._free(lambda name: getattr(instrument, name)), self._free(instrument.spread)
        known = 2 * self.last * ALIKE / spread.square()
        damped = self.matrix + torch.diag(known + DAMPING * self.matrix.diagonal())
        parts = torch.linalg.solve(damped, slope + known * values).split([FREE[name] for name in self.shared])
        steps = {name: SHORTENED[name] * own for name, own in zip(self.shared, parts, strict=True)}
        if "board" in steps:
            forward = self.problem.forward
            farthest = FARTHEST * forward.optics.wavelength_um / max(forward.extent_um)
            length = float((by_board @ steps["board"]).norm(dim=1).max())
            steps["board"] = steps["board"] * min(1.0, farthest / max(length, 1e-12))
        padded = {name: torch.nn.functional.pad(own, (FIXED[name], 0)) for name, own in steps.items()}
        return {name: getattr(instrument, name) - own for name, own in padded.items()}

    def _of_leds(self, slopes: dict[str, torch.Tensor], pixels: int, pace: float) -> dict[str, torch.Tensor]:
        """Gain and jitter, one step of Adam on."""
        found, instrument = {}, self.instrument
        for name in [name for name in PACES if name in self.free]:
            values, unit = getattr(instrument, name), instrument.spread(name)
            slope = slopes["na"] if name == "jitter" else slopes["gain"] * instrument.gains()
            slope = slope + 2 * self.last * ALIKE / pixels * values / unit.square()
            mean, square, count = self.moments.get(name, (torch.zeros_like(values), torch.zeros_like(values), 0))
            mean, square, count = 0.8 * mean + 0.2 * slope, 0.95 * square + 0.05 * slope.square(), count + 1
            self.moments[name] = mean, square, count
            step = mean / (1 - 0.8**count) / ((square / (1 - 0.95**count)).sqrt() + 1e-30)
            length = PACES[name] * (instrument.objective_na if name == "jitter" else 1.0)
            found[name] = values - pace * length * (step - step.mean(dim=0))
        return found

    def cross(self) -> None:
        """Move each LED near the pupil's edge along its radius to where its image is explained best.

        Whether the light that the sample leaves alone passes the edge or not changes an image altogether: between the
        two lies a wall that no small step climbs, and that only a sharp edge shows where it is.
        """
        instrument, optics, softness = self.instrument, self.problem.forward.optics, self.softness
        pixel = optics.wavelength_um / max(self.problem.forward.extent_um)
        na = instrument.na()
        radius = na.norm(dim=1)
        near = torch.nonzero((radius - optics.na).abs() < CROSSED * pixel).flatten().tolist()
        places = torch.linspace(-ACROSS, ACROSS, PLACES, dtype=na.dtype) * pixel
        outward = torch.zeros_like(na)
        outward[near] = na[near] / radius[near, None]
        errors = np.empty((PLACES, len(near)))
        self.softness = 0.0
        for place, error in zip(places, errors, strict=True):
            self.instrument = instrument.moved({"jitter": instrument.jitter + place * outward})
            error[:] = self.errors(near)
        outward[near] *= places[torch.from_numpy(errors.argmin(axis=0))][:, None]
        self.instrument, self.softness = instrument.moved({"jitter": instrument.jitter + outward}), softness
        self.rest()

    def errors(self, images: Sequence[int]) -> NDArray[np.float64]:
        """Mean squared error of the amplitudes of each of some images."""
        forward, amplitudes = self.problem.forward, self.problem.amplitudes
        self._update(self.instrument)
        every = [forward.loss_and_gradient(self.object, amplitudes[[i]], self.z, [i]).error for i in images]
        return np.array([float(error) for error in every])

    def left_out(self) -> NDArray[np.float64]:
        """Error of each image that the object has not seen."""
        return self.errors(self.held)
