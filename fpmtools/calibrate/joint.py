"""The instrument from the images: board, pupil, gains and jitter, fitted together with the object.

All LEDs at once: Nesterov's momentum with restarts on the object's spectrum, divided by its coverage, as in the joint
sweeps of classical solvers; Adam (Kingma, Ba, arXiv:1412.6980) on the numbers of the instrument. These are freed one
group after the other, in an order in which each has something to stand on, and a group is kept only if the images of
LEDs that the object has not seen are predicted better with it than after as many steps without. The object keeps to the power law that its own spectrum
follows where there is light, so that noise of the dark field is not fitted. The edge of the pupil is soft while LEDs are
free to move: only then does a loss have a slope by their positions.

A joint fit of all of it was first shown by Sun et al., Biomed. Opt. Express 7, 1336 (2016) for positions, and Ou et
al., Opt. Express 22, 4960 (2014) for the pupil.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fpmtools.calibrate import noise
from fpmtools.calibration import Calibration
from fpmtools.dataset import Dataset
from fpmtools.forward.gradients import gradients
from fpmtools.metrics.prediction import held_out_leds
from fpmtools.problem import Problem, prepare
from fpmtools.sampling import suggested_margin

GROUPS = ("background", "board", "pupil", "gain", "jitter")
STEPS = {"background": 8, "pupil": 24, "board": 36, "gain": 16, "jitter": 24}  # after which each is judged
SWEEPS, FIRST = 5, 5  # LED by LED, which closes in fast, and steps, before the first look
POLISH = 16  # steps with all that is kept, at the end
MODES = 21  # Zernike polynomials, to the fifth order; piston and tilt are conventions
SOFTNESS = 0.15  # of the pupil's edge, Fourier pixels
ROOM = 0.15  # of the LEDs' largest |NA|, that they may move by
EXPLAINED = 1.5  # of the variance that noise has: then there is nothing to look for
SMALL = 1e-3  # of the light of the bright field, that is not worth it either
BETTER = 0.005  # share of the left-out images' error by which a group must lower it
PRIOR = 4.0  # weight of the power law; 2 for complex normal variables whose every pixel is measured
BACKGROUND_BLUR, BACKGROUND_SHARE = 3.0, 0.01  # pixels; of an image's pixels that no light of the sample reaches
SPREAD = 0.1  # of log gains, that are expected
LEAST_LEDS = 12


@dataclass
class _Numbers:
    """What is fitted, in units in which a step of 1 is large; see :meth:`calibration`."""

    nominal: Calibration
    objective_na: float
    background: NDArray[np.float64]
    board: torch.Tensor = field(default_factory=lambda: torch.zeros(4, dtype=torch.float64))
    pupil: torch.Tensor = field(default_factory=lambda: torch.zeros(MODES, dtype=torch.float64))
    gain: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    jitter: torch.Tensor = field(default_factory=lambda: torch.zeros(0, 2, dtype=torch.float64))

    def na(self) -> torch.Tensor:
        """Direction sines [led, (x, y)]: the board moved (x, y), rotated and nearer by the four numbers of ``board``.

        In units of 0.1 NA of the objective, and of 0.01 rad and 1 %. Differentiable.
        """
        nominal = torch.from_numpy(self.nominal.na)
        tangent = nominal / (1 - nominal.square().sum(1, keepdim=True)).sqrt()
        angle, nearer = 0.01 * self.board[2], torch.exp(0.01 * self.board[3])
        c, s = torch.cos(angle), torch.sin(angle)
        turned = torch.stack([c * tangent[:, 0] - s * tangent[:, 1], s * tangent[:, 0] + c * tangent[:, 1]], dim=1)
        moved = nearer * turned + 0.1 * self.objective_na * self.board[:2]
        return moved / (1 + moved.square().sum(1, keepdim=True)).sqrt() + 0.01 * self.objective_na * self.jitter

    def calibration(self, softness: float) -> Calibration:
        """The instrument that they describe."""
        given = self.nominal.pupil
        count = max(len(given.zernike_rad), MODES)
        zernike = np.pad(given.zernike_rad, (0, count - len(given.zernike_rad)))
        zernike[:MODES] += self.pupil.detach().numpy()
        pupil = replace(given, zernike_rad=zernike, softness=max(softness, given.softness))
        gain = self.nominal.gain * np.exp(self.gain.detach().numpy())
        return replace(self.nominal, na=self.na().detach().numpy(), gain=gain, pupil=pupil, background=self.background)

    def copy(self) -> _Numbers:
        tensors = {name: getattr(self, name).detach().clone() for name in ("board", "pupil", "gain", "jitter")}
        return replace(self, background=self.background.copy(), **tensors)


RATES = {"board": 0.1, "pupil": 0.05, "gain": 0.01, "jitter": 0.1}  # Adam's, in these units


@dataclass
class _Fit:
    """Object and numbers as they stand."""

    problem: Problem
    numbers: _Numbers
    seen: list[int]
    held: list[int]
    object: torch.Tensor
    ahead: torch.Tensor
    coverage: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    free: list[str] = field(default_factory=list)
    softness: float = 0.0
    pace: float = 1.0
    moments: dict[str, tuple[torch.Tensor, torch.Tensor, int]] = field(default_factory=dict)
    inertia: int = 0
    last: float = math.inf

    @classmethod
    def begin(cls, problem: Problem, numbers: _Numbers, held: list[int]) -> _Fit:
        guess = problem.first_guess()[None].clone()
        seen = [i for i in range(len(problem.amplitudes)) if i not in held]
        fit = cls(problem, numbers, seen, held, guess, guess.clone())
        fit.update()
        return fit

    def copy(self) -> _Fit:
        kept = replace(self, numbers=self.numbers.copy(), object=self.object.clone(), ahead=self.ahead.clone())
        return replace(kept, free=list(self.free), moments=dict(self.moments))

    def update(self) -> None:
        """Let the forward model see the instrument as it stands, and what the LEDs cover of the object."""
        forward = self.problem.forward
        forward.update(self.numbers.calibration(self.softness))
        power = forward.kernels.transmission.abs().square().expand(len(forward.na), -1, -1)
        cover = torch.zeros(1, *forward.object_shape, dtype=forward.real_dtype)
        forward.add(cover, power[self.seen][None].contiguous(), self.seen)
        self.coverage = torch.lerp(cover, cover.amax().expand_as(cover), 0.05) / math.prod(forward.image_shape)

    def sweep(self) -> None:
        """Visit each LED once, the nearest to the axis first, and replace its amplitude."""
        forward, amplitudes, spectrum = self.problem.forward, self.problem.amplitudes, self.object
        peak = float(forward.kernels.transmission.abs().max())
        for led in (led for led in self.problem.order if led in set(self.seen)):
            kernel = forward.kernel(self.z, [led])
            pieces, _ = forward.mismatch(spectrum, amplitudes[[led]], [led], kernel)
            forward.add(spectrum, pieces.mul_(kernel.conj() / -(peak**2)), [led])
        self.ahead = spectrum.clone()

    def release(self, name: str, dataset: Dataset) -> None:
        """From now on that group is free; the background is what the images' darkest places show."""
        self.inertia, self.last = 0, math.inf
        if name == "background":
            self.numbers.background = np.maximum(background(dataset), self.numbers.background)
        else:
            self.free.append(name)
        self.update()

    def steps(self, count: int) -> None:
        """Object and all that is free, so many steps on; the latter ever more slowly."""
        for number in range(count):
            self.pace = (1 + math.cos(math.pi * number / count)) / 2
            self._step()

    def _step(self) -> None:
        forward, amplitudes = self.problem.forward, self.problem.amplitudes
        wrt = [{"board": "na", "jitter": "na"}.get(name, name) for name in self.free]
        wrt = ["object", *dict.fromkeys(wrt)]
        loss, found = gradients(forward, self.ahead, amplitudes[self.seen], self.z, self.seen, wrt=wrt)
        self.inertia = 1 if float(loss) > self.last else self.inertia + 1
        self.last = float(loss)
        pixels = len(self.seen) * forward.counted
        prior = self._prior(2 * float(loss))
        slope = found["object"] * pixels + prior * self.ahead
        new = self.ahead - slope / (self.coverage + prior)
        if self.free:
            own = {}
            if "gain" in wrt or "na" in wrt:  # of LEDs that the object has not seen, too
                names = tuple(name for name in ("gain", "na") if name in wrt)
                own = gradients(forward, self.ahead, amplitudes[self.held], self.z, self.held, wrt=names)[1]
            self._move(found, own, pixels)
            self.update()
        self.ahead = new + (self.inertia - 1) / (self.inertia + 2) * (new - self.object)
        self.object = new

    @property
    def z(self) -> float:
        """Where the sample is, µm."""
        return self.problem.z_um[0]

    def _move(self, found: dict[str, torch.Tensor], own: dict[str, torch.Tensor], pixels: int) -> None:
        """One step of Adam on each number that is free; ``own``: gradients of the LEDs that are left out."""
        share = len(self.held) / len(self.seen)
        variance = 2 * self.last
        for name in self.free:
            values = getattr(self.numbers, name).clone().requires_grad_(True)
            slopes = found["na" if name in ("board", "jitter") else name].clone()
            if name == "jitter" or name == "gain":
                both = own["na" if name == "jitter" else "gain"]
                slopes[self.held] = both[self.held] * share
            if name in ("board", "jitter"):
                moved = replace(self.numbers, **{name: values})
                moved.na().backward(slopes)  # type: ignore[no-untyped-call]
                assert values.grad is not None
                slopes = values.grad
            elif name == "gain":
                slopes = slopes * torch.exp(values.detach()) * torch.from_numpy(self.numbers.nominal.gain)
                slopes = slopes + values.detach() * (variance / (SPREAD**2 * pixels))
                slopes = slopes - slopes.mean()
            else:
                slopes = slopes[:MODES].clone()
                slopes[:3] = 0
            self._adam(name, values.detach(), slopes)

    def _adam(self, name: str, values: torch.Tensor, slopes: torch.Tensor) -> None:
        mean, square, count = self.moments.get(name, (torch.zeros_like(values), torch.zeros_like(values), 0))
        mean, square, count = 0.8 * mean + 0.2 * slopes, 0.95 * square + 0.05 * slopes.square(), count + 1
        self.moments[name] = mean, square, count
        step = mean / (1 - 0.8**count) / ((square / (1 - 0.95**count)).sqrt() + 1e-30)
        setattr(self.numbers, name, values - self.pace * RATES[name] * step)

    def _prior(self, variance: float) -> torch.Tensor:
        """What a power law asks for, [1, H, W]: variance of the amplitudes over the power that the object has there."""
        forward = self.problem.forward
        power, radius = self.object[0].abs().square(), self._radius()
        rings = np.arange(0.15, 1.0, 0.1)
        sizes = [float(power[(radius >= r) & (radius < r + 0.1)].mean()) for r in rings]
        slope, level = np.polyfit(np.log(rings + 0.05), np.log(np.maximum(sizes, 1e-30)), 1)
        law = torch.exp(level + slope * torch.log(radius.clamp_min(0.1)))
        prior = PRIOR * variance / law
        prior[radius < 0.1] = 0
        return prior[None].to(forward.real_dtype)

    def _radius(self) -> torch.Tensor:
        """|f| in units of NA/λ on the object's grid."""
        forward = self.problem.forward
        axes = [
            (torch.arange(n) - n // 2) / extent / forward.optics.cutoff
            for n, extent in zip(forward.object_shape, forward.extent_um, strict=True)
        ]
        return torch.hypot(*torch.meshgrid(*axes, indexing="ij"))

    def error(self, images: Sequence[int]) -> float:
        """Mean squared error of the amplitudes of some images."""
        problem, chosen = self.problem, list(images)
        return float(problem.forward.loss_and_gradient(self.object, problem.amplitudes[chosen], self.z, chosen).error)


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
    groups: Sequence[str] = GROUPS,
    seed: int = 0,
    on_group: Callable[[str, bool], object] = lambda name, kept: None,
) -> Calibration:
    """The instrument, found from the images; ``calibration`` where nothing better is.

    Parameters
    ----------
    calibration
        What the fit starts from, and what it goes back to.
    z_um
        Where the sample is.
    groups
        Any of :data:`GROUPS`, taken in their own order.
    seed
        Chooses the LEDs that are left out.
    on_group
        Told of each group once it is judged, and whether it is kept.

    Returns
    -------
    Calibration
        With ``found["joint"]``: for each group whether it was ``kept``, and the mean squared error of the left-out
        amplitudes ``without`` and ``with`` it; ``explained``: that of the bright field over what noise alone makes,
        with the instrument that it starts from.
    """
    used = int(calibration.used.sum())
    if calibration.patterns is not None or used < LEAST_LEDS or not calibration.bright_field(dataset.optics).any():
        return calibration
    chosen = dataset.select(np.flatnonzero(calibration.used))
    start = calibration.selected()
    problem = _problem(chosen, start, z_um)
    held = held_out_leds(replace(chosen, calibration=start), seed=seed)
    leds = len(start.na)
    numbers = _Numbers(
        start,
        dataset.optics.na,
        start.background.copy(),
        gain=torch.zeros(leds, dtype=torch.float64),
        jitter=torch.zeros(leds, 2, dtype=torch.float64),
    )
    state = _Fit.begin(problem, numbers, held)
    for _ in range(SWEEPS):
        state.sweep()
    state.steps(FIRST)
    bright = [int(i) for i in np.flatnonzero(start.bright_field(dataset.optics)) if i in state.seen]
    explained = state.error(bright) / _noise(chosen, problem)
    report: dict[str, Any] = {"explained": explained, "groups": {}}
    if explained < EXPLAINED or state.error(bright) < SMALL:
        return replace(calibration, found={**calibration.found, "joint": report})
    for name in [name for name in GROUPS if name in groups]:
        if name in ("board", "jitter"):
            state.softness = SOFTNESS
            state.update()
        without = state.copy()
        without.inertia, without.last = 0, math.inf
        without.steps(STEPS[name])
        before = without.error(held)
        state.release(name, chosen)
        state.steps(STEPS[name])
        after = state.error(held)
        better = after < (1 - BETTER) * before
        report["groups"][name] = {"kept": better, "without": before, "with": after}
        on_group(name, better)
        if not better:
            state = without
            state.update()
    if not any(group["kept"] for group in report["groups"].values()):
        return replace(calibration, found={**calibration.found, "joint": report})
    state.steps(POLISH)
    return _whole(calibration, state.numbers.calibration(0.0), report)


def _problem(dataset: Dataset, calibration: Calibration, z_um: float) -> Problem:
    """With room on the object grid for LEDs to move, and half the margin that a solve has: enough for the instrument."""
    from fpmtools.forward import ForwardModel
    from fpmtools.sampling import SamplingPlan

    # The box must hold the soft edge that there is going to be.
    soft = replace(calibration, pupil=replace(calibration.pupil, softness=max(SOFTNESS, calibration.pupil.softness)))
    problem = prepare(dataset, calibration=soft, z_um=z_um, device="cpu", margin=0)
    room = ROOM * float(np.linalg.norm(calibration.na, axis=1).max())
    margin = math.ceil(suggested_margin(dataset, [z_um]) / 2)
    plan = SamplingPlan.choose(dataset, soft, margin=margin, room=room)
    forward = ForwardModel(dataset.optics, soft, plan)
    return replace(problem, forward=forward, amplitudes=plan.amplitudes(dataset, forward.real_dtype))


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
        found={**calibration.found, "joint": report},
    )  # fmt: skip
