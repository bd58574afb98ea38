"""The instrument from the images: background, board, pupil, gains and jitter, fitted together with the object.

All LEDs at once. Object, board and pupil take the same accelerated steps with restarts (Nesterov; O'Donoghue, Candès,
Found. Comput. Math. 15, 715, 2015), each divided by its own curvature: the object's spectrum by its coverage, as in the
joint sweeps of classical solvers, the instrument's numbers by their Gauss-Newton matrix. What is of one LED alone, gain
and jitter, is moved by Adam (Kingma, Ba, arXiv:1412.6980): all LEDs at one pace, however little light tells of them.
The board is free from the first step on, as long as the object is still undecided: an object that has come to terms
with wrong positions holds on to them. The pupil's edge is soft meanwhile, very much so at first, for only then has a
loss a slope by positions that cross it.

A joint fit of positions was first shown by Sun et al., Biomed. Opt. Express 7, 1336 (2016), of the pupil by Ou et al.,
Opt. Express 22, 4960 (2014).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fpmtools.calibrate import curvature, noise
from fpmtools.calibrate.instrument import FIXED, Instrument
from fpmtools.calibration import JOINT, Calibration
from fpmtools.dataset import Dataset
from fpmtools.forward.gradients import gradients
from fpmtools.metrics.prediction import held_out_leds
from fpmtools.optics import fast_length
from fpmtools.problem import Problem, prepare
from fpmtools.sampling import suggested_margin
from fpmtools.spectral_prior import SpectralPrior

GROUPS = ("background", "board", "pupil", "gain", "jitter")
FREE_FROM = {"board": 0, "pupil": 10, "gain": 18, "jitter": 15}  # step
JUDGED, STEPS = 35, 60  # what is of single LEDs is judged after so many steps
FINE = 15  # step from which on the pupil's edge is as sharp as it becomes
COARSE_EDGE, FINE_EDGE = 0.5, 0.15  # softness, Fourier pixels
CURVED = (0, 3, 6, 9, 12, 15, 19, 24, 30)  # steps at which the Gauss-Newton matrix is made anew
NEAR, SOME = 1.4, 4  # NA of the objective up to which all LEDs are looked at, and every so many beyond
DAMPING = 1e-3  # of its diagonal
SHORTENED = 0.7  # steps of the instrument: object and instrument share what they explain
FARTHEST = 0.5  # Fourier pixels that the board may move an LED by in one step
PACES = {"jitter": 3e-3, "gain": 0.01}  # of Adam's first steps; jitter in units of the objective's NA
KNOWN_FROM, KNOWN_EVERY = 20, 5  # steps at which the object's own spectrum is looked at
ALIKE = 30.0  # pixels whose errors go together, where expected spreads are weighed against images
ROOM = 0.15  # of the LEDs' largest |NA|, that they may move by

EXPLAINED = 1.5  # of the variance that noise has: then there is nothing to look for
SMALL = 1e-3  # of the light of the bright field, that is not worth it either
BETTER = 0.005  # share of the left-out images' error by which a group must lower it
PAYS, ALL_PAY = 0.15, 0.25  # and by which one with numbers for each LED must, and all such together: they fit anything
AT_LAST = 0.5  # of the error without them: so much is left of it at most, once all is settled
CONTROL, LOOKS, ABLATION = 20, 2, 6  # steps of the object alone before a comparison, looks on the way
BACKGROUND_BLUR, BACKGROUND_SHARE = 3.0, 0.01  # pixels; of an image's pixels that no light of the sample reaches
LEAST_LEDS, LEAST_PIXELS = 12, 48
ENOUGH = 81 * 128**2  # pixels of all images together; a region of the field is taken where there are more
LEAST_REGION, MOST_REGION, PLACES = 64, 128, 5  # pixels along an axis; places along an axis that are looked at


OnStep = Callable[[int, int], object]


@dataclass
class _Fit:
    """Object and instrument as they stand; ``ahead`` is where momentum takes both."""

    problem: Problem
    seen: list[int]
    held: list[int]
    object: torch.Tensor
    instrument: Instrument
    ahead: tuple[torch.Tensor, Instrument]
    softness: float
    count: int = 0  # steps of the schedule that are done
    free: tuple[str, ...] = ()
    inertia: int = 0
    last: float = math.inf
    matrix: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    prior: torch.Tensor | None = None  # what the object's own spectrum adds to its coverage, [1, H, W]
    moments: dict[str, tuple[torch.Tensor, torch.Tensor, int]] = field(default_factory=dict)

    @classmethod
    def begin(cls, problem: Problem, instrument: Instrument, held: list[int], softness: float) -> _Fit:
        guess = problem.first_guess()[None].clone()
        seen = [i for i in range(len(problem.amplitudes)) if i not in held]
        return cls(problem, seen, held, guess, instrument, (guess, instrument), softness)

    def copy(self) -> _Fit:
        return replace(self, moments=dict(self.moments))

    @property
    def z(self) -> float:
        """Where the sample is, µm."""
        return self.problem.z_um[0]

    @property
    def shared(self) -> list[str]:
        """The groups that are free and that all images share."""
        return [name for name in curvature.GLOBAL if name in self.free]

    def rest(self) -> None:
        """Lose all momentum."""
        self.inertia, self.last, self.ahead = 0, math.inf, (self.object, self.instrument)

    def advance(self, steps: int) -> None:
        """So many steps of the object alone."""
        for _ in range(steps):
            self.step()

    def run(self, last: int, groups: Sequence[str], on_step: OnStep) -> None:
        """The schedule of :data:`GROUPS` for these groups, from where it stands to before step ``last``."""
        for step in range(self.count, last):
            free = tuple(name for name in groups if name in FREE_FROM and step >= FREE_FROM[name])
            if free != self.free or (step == FINE and self.softness > FINE_EDGE):
                self.free = free
                self.softness = min(self.softness, COARSE_EDGE if step < FINE else FINE_EDGE)
                self.rest()
            if self.shared and (step in CURVED or len(self.matrix) != self._numbers()):
                self.rest()
                self._update(self.instrument)
                self.matrix = self._curvature()
            self.step(1 - 0.9 * step / STEPS)
            on_step(step + 1, STEPS)
            if step >= KNOWN_FROM and (step - KNOWN_FROM) % KNOWN_EVERY == 0:
                variance = torch.tensor([2 * self.last], dtype=torch.float64)
                coverage = self._update(self.instrument)
                prior = SpectralPrior(self.problem.forward, coverage)
                self.prior = prior.WEIGHT * prior(self.object, variance, self.prior)
        self.count = max(last, self.count)

    def _curvature(self) -> torch.Tensor:
        """Of what lies around the pupil, and of some of the dark field beyond for all of it."""
        forward = self.problem.forward
        near = np.linalg.norm(forward.na, axis=1) < NEAR * forward.optics.na
        light, dark = [i for i in self.seen if near[i]], [i for i in self.seen if not near[i]]
        some = dark[::SOME]
        counts = dict.fromkeys(light, 1.0) | dict.fromkeys(some, len(dark) / max(len(some), 1))
        return curvature.matrix(forward, self.object, self.instrument, self.z, counts, self.shared)

    def _numbers(self) -> int:
        return sum(curvature.GLOBAL[name] for name in self.shared)

    def step(self, pace: float = 0.0) -> None:
        """Object and all that is free, one step on; gains and jitter with the share ``pace`` of theirs."""
        ahead, instrument = self.ahead
        forward, amplitudes = self.problem.forward, self.problem.amplitudes
        coverage = self._update(instrument)
        by_na = {"board", "jitter"} & set(self.free)
        wrt = [name for name in ("pupil", "gain") if name in self.free] + (["na"] if by_na else [])
        loss, slopes = gradients(forward, ahead, amplitudes[self.seen], self.z, self.seen, wrt=["object", *wrt])
        pixels = len(self.seen) * forward.counted
        self.inertia = 1 if float(loss) > self.last else self.inertia + 1
        self.last = float(loss)
        prior = 0.0 if self.prior is None else self.prior
        new = ahead - (slopes["object"] * pixels + prior * ahead) / (coverage + prior)
        momentum = (self.inertia - 1) / (self.inertia + 2)
        moved = self.instrument
        if wrt:
            own = [name for name in wrt if name != "pupil"]  # of LEDs that the object has not seen, too
            if own and self.held and {"gain", "jitter"} & set(self.free):
                theirs = gradients(forward, ahead, amplitudes[self.held], self.z, self.held, wrt=own)[1]
                for name in own:
                    slopes[name][self.held] = theirs[name][self.held] * (len(self.held) / len(self.seen))
            moved = instrument.moved(self._of_all(slopes, pixels) | self._of_leds(slopes, pixels, pace))
        farther = self.instrument.towards(moved, 1 + momentum, self.shared)
        alone = {name: getattr(moved, name) for name in self.free if name not in self.shared}
        self.ahead = new + momentum * (new - self.object), farther.moved(alone)
        self.object, self.instrument = new, moved

    def _update(self, instrument: Instrument) -> torch.Tensor:
        """Let the forward model see that instrument; what its LEDs cover of the object, [1, H, W]."""
        forward = self.problem.forward
        forward.update(instrument.calibration(self.softness))
        power = forward.kernels.transmission.abs().square().expand(len(forward.na), -1, -1)
        cover = torch.zeros(1, *forward.object_shape, dtype=forward.real_dtype)
        forward.add(cover, power[self.seen][None].contiguous(), self.seen)
        return torch.lerp(cover, cover.amax().expand_as(cover), 0.05) / math.prod(forward.image_shape)

    def _of_all(self, slopes: dict[str, torch.Tensor], pixels: int) -> dict[str, torch.Tensor]:
        """Board and pupil, one Gauss-Newton step on."""
        if not self.shared:
            return {}
        instrument, by_board = self.ahead[1], self.ahead[1].by_board()
        parts = {
            "pupil": lambda: slopes["pupil"][FIXED : len(instrument.pupil)],
            "board": lambda: torch.einsum("iak,ia->k", by_board[self.seen], slopes["na"][self.seen]),
        }
        slope = torch.cat([parts[name]() for name in self.shared]) * pixels
        values = {name: getattr(instrument, name)[FIXED if name == "pupil" else 0 :] for name in self.shared}
        spread = {name: instrument.spread(name)[FIXED if name == "pupil" else 0 :] for name in self.shared}
        known = 2 * self.last * ALIKE / torch.cat(list(spread.values())).square()
        damped = self.matrix + torch.diag(known + DAMPING * self.matrix.diagonal())
        step = SHORTENED * torch.linalg.solve(damped, slope + known * torch.cat(list(values.values())))
        steps = dict(zip(self.shared, step.split([curvature.GLOBAL[name] for name in self.shared]), strict=True))
        if "board" in steps:
            forward = self.problem.forward
            farthest = FARTHEST * forward.optics.wavelength_um / max(forward.extent_um)
            length = float((by_board @ steps["board"]).norm(dim=1).max())
            steps["board"] = steps["board"] * min(1.0, farthest / max(length, 1e-12))
        if "pupil" in steps:
            steps["pupil"] = torch.nn.functional.pad(steps["pupil"], (FIXED, 0))
        return {name: getattr(instrument, name) - steps[name] for name in self.shared}

    def _of_leds(self, slopes: dict[str, torch.Tensor], pixels: int, pace: float) -> dict[str, torch.Tensor]:
        """Gain and jitter, one step of Adam on."""
        found, instrument = {}, self.instrument
        nominal = torch.from_numpy(instrument.nominal.gain)
        for name in [name for name in PACES if name in self.free]:
            values, unit = getattr(instrument, name), instrument.spread(name)
            slope = slopes["na"] if name == "jitter" else slopes["gain"] * torch.exp(values) * nominal
            slope = slope + 2 * self.last * ALIKE / pixels * values / unit.square()
            mean, square, count = self.moments.get(name, (torch.zeros_like(values), torch.zeros_like(values), 0))
            mean, square, count = 0.8 * mean + 0.2 * slope, 0.95 * square + 0.05 * slope.square(), count + 1
            self.moments[name] = mean, square, count
            step = mean / (1 - 0.8**count) / ((square / (1 - 0.95**count)).sqrt() + 1e-30)
            length = PACES[name] * (instrument.objective_na if name == "jitter" else 1.0)
            found[name] = values - pace * length * (step - step.mean(dim=0))
        return found

    def error(self, images: Sequence[int]) -> float:
        """Mean squared error of the amplitudes of some images."""
        problem, chosen = self.problem, list(images)
        self._update(self.instrument)
        return float(problem.forward.loss_and_gradient(self.object, problem.amplitudes[chosen], self.z, chosen).error)

    def without(self, name: str, steps: int) -> float:
        """Error of the left-out images once that group is as it is nominally, and the object has adapted to it."""
        other = replace(self, instrument=self.instrument.without(name), free=())
        other.rest()
        other.advance(steps)
        return other.error(self.held)


def background(dataset: Dataset) -> NDArray[np.float64]:
    """What the darkest places of each image show, [image] in the images' units; in the bright field what is usual."""
    from scipy.ndimage import gaussian_filter

    rim = round(BACKGROUND_BLUR) + 1
    levels = np.zeros(dataset.n_images)
    for i, image in enumerate(dataset.images):
        smooth = gaussian_filter(np.asarray(image, dtype=np.float64), BACKGROUND_BLUR)[rim:-rim, rim:-rim]
        levels[i] = max(float(np.quantile(smooth, BACKGROUND_SHARE)), 0.0)
    distance = np.linalg.norm(dataset.calibration.image_na, axis=1)
    far = distance > 1.15 * dataset.optics.na
    if not far.any():
        return np.zeros(dataset.n_images)
    return np.where(far, levels, np.median(levels[far]))


def fit(
    dataset: Dataset,
    calibration: Calibration,
    *,
    z_um: float,
    groups: Sequence[str] = tuple(GROUPS),
    seed: int = 0,
    on_step: OnStep = lambda step, steps: None,
) -> Calibration:
    """The instrument, found from the images; ``calibration`` where nothing better is.

    Parameters
    ----------
    calibration
        What the fit starts from, and what it goes back to.
    z_um
        Where the sample is.
    groups
        Any of :data:`GROUPS`.
    seed
        Chooses the LEDs that are left out.
    on_step
        Told of each step and of how many there are; some are taken several times, to compare.

    Returns
    -------
    Calibration
        With ``found["joint"]``: ``explained``, the error of the bright field over what noise alone makes, with the
        instrument that it starts from; ``nominal`` and ``fitted``, mean squared error of the left-out amplitudes before
        and after; ``groups``: for each whether it was ``kept``, and the error ``without`` and ``with`` it; ``margin``:
        camera pixels beyond the border that should be solved, 0 where left-out images are not predicted better so.
    """
    used = int(calibration.used.sum())
    bright = np.flatnonzero(calibration.selected().bright_field(dataset.optics))
    small = used < LEAST_LEDS or min(dataset.image_shape) < LEAST_PIXELS
    if calibration.patterns is not None or small or not len(bright):
        return calibration
    chosen, start = _region(dataset.select(np.flatnonzero(calibration.used))), calibration.selected()
    margin = suggested_margin(chosen, [z_um])
    problem = _problem(chosen, start, z_um, math.ceil(margin / 2))
    held = held_out_leds(replace(chosen, calibration=start), seed=seed)
    instrument = Instrument.of(start, dataset.optics.na)
    control = _Fit.begin(problem, instrument, held, 0.0)
    shown, noisy = [int(i) for i in bright if i not in held], _noise(chosen, problem)
    report: dict[str, Any] = {}
    for _ in range(LOOKS):
        control.advance(CONTROL // LOOKS)
        error = control.error(shown)
        report["explained"] = error / noisy
        if error < max(EXPLAINED * noisy, SMALL):
            return replace(calibration, found={**calibration.found, JOINT: report})
    report["nominal"] = control.error(held)
    if "background" in groups:
        instrument = replace(instrument, background=np.maximum(background(chosen), start.background))
    state = _Fit.begin(problem, instrument, held, COARSE_EDGE)
    shared = [name for name in GROUPS if name in groups and name not in PACES]
    single = [name for name in PACES if name in groups]
    state, judged = _choice(state, shared, single, on_step)
    state.run(STEPS, [*shared, *(name for name in single if judged[name]["kept"])], on_step)
    fitted = state.error(held)
    for name in shared:
        without = state.without(name, ABLATION)
        judged[name] = {"kept": fitted < (1 - BETTER) * without, "without": without, "with": fitted}
    rival = _Rival.of(state.instrument, judged, problem, held)
    plain = _Rival.of(state.instrument, {n: g for n, g in judged.items() if n not in PACES}, problem, held)
    if rival.error > AT_LAST * plain.error:  # what single LEDs have gained was not for good
        rival = plain
    if rival.error > (1 - BETTER) * report["nominal"]:
        rival = _Rival.of(state.instrument, {}, problem, held)
    for name, group in judged.items():
        group["kept"] = name in rival.kept
    report |= {"fitted": rival.error, "groups": judged, "margin": 0}
    if margin:
        without = rival.on(_problem(chosen, start, z_um, 0), held)
        report["margin"] = margin if rival.error < (1 - BETTER) * without else 0
    return _whole(calibration, rival.instrument.calibration(rival.softness), report)


@dataclass
class _Rival:
    """An instrument with some groups only, and the error of left-out images after a solve of the object alone."""

    instrument: Instrument
    kept: tuple[str, ...]
    error: float = math.inf

    @classmethod
    def of(cls, found: Instrument, judged: dict[str, dict[str, Any]], problem: Problem, held: list[int]) -> _Rival:
        kept = tuple(name for name, group in judged.items() if group["kept"])
        for name in set(GROUPS) - set(kept):
            found = found.without(name)
        rival = cls(found, kept)
        rival.error = rival.on(problem, held)
        return rival

    @property
    def softness(self) -> float:
        """Where single LEDs were moved they still are a little off, and a sharp edge would hold that against them."""
        return FINE_EDGE if "jitter" in self.kept else 0.0

    def on(self, problem: Problem, held: list[int]) -> float:
        """Its error there, from the first guess on."""
        fit = _Fit.begin(problem, self.instrument, held, self.softness)
        fit.advance(CONTROL)
        return fit.error(held)


def _choice(
    state: _Fit, shared: Sequence[str], single: Sequence[str], on_step: OnStep
) -> tuple[_Fit, dict[str, dict[str, Any]]]:
    """The state at step ``JUDGED`` with those groups of ``single`` that pay, and how each was judged.

    Each of them has a number for each LED, and so could come to terms with anything that the model lacks.
    """
    state.run(min([FREE_FROM[name] for name in single], default=JUDGED), shared, on_step)
    trials: dict[tuple[str, ...], tuple[float, _Fit]] = {}

    def tried(*names: str) -> tuple[float, _Fit]:
        if names not in trials:
            trial = state.copy()
            trial.run(JUDGED, [*shared, *names], on_step)
            trials[names] = trial.error(trial.held), trial
        return trials[names]

    kept: list[str] = []
    (error, best), report = tried(), {}
    # All of them together first: where that does not pay, and mostly it does not, no other trial is needed.
    left = list(single) if single and tried(*single)[0] < (1 - ALL_PAY) * error else []
    while left:
        name = min(left, key=lambda name: tried(*kept, name)[0])
        found = tried(*kept, name)
        report[name] = {"kept": found[0] < (1 - PAYS) * error, "without": error, "with": found[0]}
        if not report[name]["kept"]:
            break
        kept, (error, best) = [*kept, name], found
        left.remove(name)
    for name in single:
        last = min(((*kept, name), tuple(single)), key=lambda names: names not in trials)
        report.setdefault(name, {"kept": False, "without": error, "with": tried(*last)[0]})
    return best, report


def _region(dataset: Dataset) -> Dataset:
    """As much of the field as is needed to know the instrument, where the brightest image varies most."""
    (h, w), side = dataset.image_shape, math.isqrt(ENOUGH // dataset.n_images)
    side = min(max(side, LEAST_REGION), MOST_REGION)
    height, width = min(h, side), min(w, side)
    if (height, width) == (h, w):
        return dataset
    image = np.asarray(dataset.images[int(np.argmax(dataset.images.means))], dtype=np.float64)
    places = [
        (y, x)
        for y in np.linspace(0, h - height, PLACES).astype(int).tolist()
        for x in np.linspace(0, w - width, PLACES).astype(int).tolist()
    ]
    y, x = max(places, key=lambda place: float(image[place[0] :, place[1] :][:height, :width].std()))
    return replace(dataset, truth=None).crop(y, x, height, width)


def _problem(dataset: Dataset, calibration: Calibration, z_um: float, margin: int) -> Problem:
    """On small grids, with room on the object's for LEDs to move."""
    from fpmtools.forward import ForwardModel
    from fpmtools.sampling import SamplingPlan

    # The box must hold the soft edge that there is going to be.
    soft = replace(calibration, pupil=replace(calibration.pupil, softness=max(COARSE_EDGE, calibration.pupil.softness)))
    problem = prepare(dataset, calibration=soft, z_um=z_um, device="cpu", margin=0)
    room = ROOM * float(np.linalg.norm(calibration.na, axis=1).max())
    plan = SamplingPlan.choose(dataset, soft, margin=margin, room=room)
    # The band of the intensities is enough: what noise there is beyond it tells nothing of the instrument.
    reach = [math.floor(dataset.optics.cutoff * extent + soft.pupil.reach) for extent in plan.extent_um]
    height, width = (min(n, fast_length(4 * own + 2)) for n, own in zip(plan.image_shape, reach, strict=True))
    plan = replace(plan, image_shape=(height, width))
    bad = dataset.images.bad or None
    forward = ForwardModel(dataset.optics, soft, plan, mask=None if bad is None else plan.mask(dataset, bad))
    return replace(problem, forward=forward, amplitudes=plan.amplitudes(dataset, forward.real_dtype, bad))


def _noise(dataset: Dataset, problem: Problem) -> float:
    """Variance of the bright field's amplitudes that noise alone makes, where 1 is the mean bright-field intensity."""
    scale, found = problem.intensity_scale, noise.measure(dataset)
    bright = np.flatnonzero(dataset.bright_field)
    variance = np.median([float(found.variance(int(i), np.asarray(scale))) for i in bright])
    return max(float(variance) / (4 * scale**2), 1e-9)


def _whole(calibration: Calibration, found: Calibration, report: dict[str, Any]) -> Calibration:
    """What was found for the images that are used, among all."""
    index = np.flatnonzero(calibration.used)
    na, gain, back = calibration.na.copy(), calibration.gain.copy(), calibration.background.copy()
    na[index], gain[index], back[index] = found.na, found.gain, found.background
    return replace(
        calibration, na=na, gain=gain, background=back, pupil=found.pupil,
        found={**calibration.found, JOINT: report},
    )  # fmt: skip
