"""Alternating projections: replace each estimated amplitude by the measured one, first LED by LED, then all together.

The first sweeps visit the LEDs by ascending NA (Zheng, Horstmeyer, Yang, Nat. Photonics 7, 739, 2013; the step-halving
rule is that of the classical baseline of Zhou et al., Optica 10, 1679, 2023). That closes in fast, but then each LED
undoes some of the last one's work. Where noise is most of what is left of the bright field, that goes on until the
object rests: slow variations of the phase change images little, and all LEDs together would take ten times the sweeps
to find them. Then, or once a sweep gains little, all LEDs update the object together: the average of
their corrections, which is the closed-form minimiser for given phases (the M-step of ADMM- and VEM-FPM), turned by what
the last such steps have told of the curvature (L-BFGS, :mod:`fpmtools.quasi_newton`); where that makes the error grow,
it is forgotten. Each LED then counts by what of its light could be explained until then (:mod:`fpmtools.explained`).

Where several LEDs light an image, all their pieces of the object change with it, each by its share.

One object per z-plane; planes are solved in blocks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from fpmtools import (
    KeptKernels,
    PlaneSolver,
    PlaneState,
    Problem,
    Progress,
    Projection,
    SpectralPrior,
    explained,
    option,
    quasi_newton,
)

RESTRAINT = 0.3  # largest α of the regularised step of rPIE (Maiden, Johnson, Li, Optica 4, 736, 2017)
UNEXPLAINED = 0.03  # Σ e² / Σ A² at which it is reached
NOISELESS = 2.5e-7  # Σ e² / Σ A² that a million photons in every pixel leave: no camera has less noise
NOISY = 3.0  # times what noise makes of the bright field's error: below it, what is left tells little of the object
# What lies beyond the border, and with it the slow phase, is found slowly, by steps that gain little. Where little more
# than noise is left (so many times what noise makes of the error), less gain ends the descent: so much of it.
BORDERED, PATIENT = 4.0, 0.3
AT_REST = 3e-5  # share of an object's light off the axis that still changes in a sweep
UNTIL_AT_REST = 30  # sweeps of the bright field alone, at most: images that contradict each other never let it rest
MEMORY = 8  # steps of all LEDs together that the next is drawn from
LOOK_AGAIN = 5  # sweeps after which the prior is found anew


@dataclass(frozen=True)
class Options:
    sweeps: int = option(300, "visits to every LED, at most", minimum=1)
    step: float = option(
        1.0, "first step size, LED by LED; 1 replaces the measured part of the spectrum", minimum=1e-3, maximum=2
    )
    halve_below: float = option(
        0.0, "LED by LED, halve a plane's step when its error falls by less than this share in a sweep; 0: never",
        minimum=0, maximum=1,
    )  # fmt: skip
    join_below: float = option(
        0.8, "take all LEDs together once a sweep, LED by LED, lowers the error by less than this share; 0: never",
        minimum=0, maximum=1,
    )  # fmt: skip
    stop_below: float = option(
        3e-3, "stop when a sweep of all LEDs together lowers the error by less than this share (a third of it where "
        "a margin is solved and little more than noise is left); 0: never", minimum=0, maximum=1,
    )  # fmt: skip
    prior: float = option(
        SpectralPrior.WEIGHT, "weight of what the object's own spectrum says to be light and noise, all LEDs together, "
        "where some see the dark field; 0: none", minimum=0, maximum=1e3,
    )  # fmt: skip
    damping: float = option(
        1e-6, "ε in the update |P| P* / (max|P| (|P|² + ε)); 1 in the published baseline", minimum=1e-9, maximum=10
    )


@dataclass
class Joint:
    """What the sweeps of all LEDs together need, for the planes that still gain from them."""

    planes: torch.Tensor  # their indices in the block, int64
    weights: torch.Tensor  # [z, led]
    coverage: torch.Tensor  # Σ w |P|² / max|P|² over the LEDs, towards its largest value, [z, H, W]
    gradient: torch.Tensor  # the sum over this sweep's LEDs so far, [z, H, W]
    gain: torch.Tensor  # share by which the last sweep that tells lowered the error, [z]
    search: quasi_newton.Search  # whose prior is what the object's own spectrum adds to coverage · max|P|²

    def of(self, planes: torch.Tensor) -> Joint:
        """Of some of them."""
        parts = {name: value[planes] for name, value in vars(self).items() if name != "search"}
        return Joint(**parts, search=self.search.of(planes))


class State(PlaneState):
    projection: Projection
    floor: float  # Σ e² that rounding leaves
    # Of the planes in work:
    step: torch.Tensor  # [z]; 0 for those that wait for the others
    errors: torch.Tensor  # Σ e² of every LED at its last visit, [z, led]
    last_error: torch.Tensor  # its sum over the LEDs in the sweep before, [z]
    before: torch.Tensor | None  # while the bright field settles: the spectra a sweep ago, [z, H, W]
    alone: int  # sweeps of the bright field alone
    sweep: int
    at: int  # LEDs visited in this sweep
    joint: Joint | None  # once the LEDs are taken together
    plain: torch.Tensor | None  # then: the errors without the weights of the joint sweeps, [z, led]
    kernels: KeptKernels  # of the planes in work
    version: int  # of the forward model that the projection is of

    @property
    def order(self) -> list[int]:
        """The images that are visited one by one in this sweep, in turn."""
        return self.problem.order if self.before is None else self.bright

    @property
    def bright(self) -> list[int]:
        """Those of the bright field, in turn."""
        bright = self.problem.forward.calibration.bright_field(self.problem.forward.optics)
        return [image for image in self.problem.order if bright[image]]


class AlternatingProjection(PlaneSolver[State]):
    """``fpmtools run --solver ap``."""

    Options = Options
    handles = frozenset({"patterns", "masks"})
    kept = ("spectra", "step", "errors", "last_error", "alone", "sweep", "at")
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "paper": {"sweeps": 25, "step": 0.5, "halve_below": 0.01, "join_below": 0.0, "prior": 0.0, "damping": 1.0}
    }

    def start(self, problem: Problem) -> State:
        """Every plane starts from the amplitude of the LED nearest to the axis."""
        forward, rounding = problem.forward, 2 * torch.finfo(problem.forward.real_dtype).eps
        state = State(problem, quasi_newton.planes_at_once(forward.object_shape, MEMORY, forward.device))
        state.floor = float(problem.amplitudes.square().sum()) * rounding**2
        self.begin(state)
        return state

    def begin(self, state: State) -> None:
        """Every plane at the first guess, LED by LED."""
        state.spectra = state.blocks.first_guess()
        planes = torch.ones(len(state.spectra), dtype=state.problem.forward.real_dtype, device=state.problem.device)
        state.step, state.last_error = planes * self.options.step, planes * torch.inf
        state.errors = planes[:, None].repeat(1, len(state.problem.order)) * 0
        state.alone, state.sweep, state.at = 0, 0, 0
        state.joint, state.plain, state.before = None, None, None
        self._look(state)

    def _z_um(self, state: State) -> list[float]:
        """Depths of the planes that still gain."""
        z_um = state.blocks.z_um
        return list(z_um) if state.joint is None else [z_um[i] for i in state.joint.planes.tolist()]

    def _look(self, state: State) -> None:
        """Take what depends on the instrument and on the planes in work."""
        forward = state.problem.forward
        state.projection, state.version = Projection.of(forward, self.options.damping), forward.version
        state.kernels = KeptKernels(forward, self._z_um(state))

    def step(self, state: State) -> Progress:
        """One LED, or several of them together, at all planes of the block in work."""
        problem, order = state.problem, state.order if state.joint is None else state.problem.order
        leds = len(problem.order)
        if state.version != problem.forward.version:
            self._look(state)
            if state.joint is not None:  # what was known is of another instrument
                search = state.joint.search
                state.joint.search, state.at = quasi_newton.Search.begin(search.point, MEMORY, search.prior), 0
                state.joint.gradient.zero_()
        if state.joint is None:
            self._visit(state, order[state.at])
            state.at += 1
        else:
            last = min(state.at + state.blocks.images_per_step(len(state.joint.planes)), leds)
            self._gather(state, state.joint, range(state.at, last))
            state.at = last
        finished = state.at == len(order) and self._end_sweep(state)
        samples = problem.forward.counted * (leds if state.sweep else state.at)
        loss = state.errors.sum(1).mean() / (2 * samples)
        error = 2 * loss if state.plain is None else state.plain.sum(1).mean() / samples
        visits, most = state.sweep * leds + state.at, self.options.sweeps * leds
        step, total = self.advance(state, visits, most, finished=finished)
        stops = bool(self.options.join_below and self.options.stop_below)
        return Progress(step, total, loss, state.blocks.done, stops, error, "amplitude loss")

    def _visit(self, state: State, image: int) -> None:
        """Move every plane's spectrum towards the measured amplitude of one image."""
        kernel = state.kernels(state.problem.forward.lit([image]) or ())
        visited = state.projection.visit(state.spectra, state.problem.amplitudes, image, kernel, state.step)
        state.errors[:, image] = visited

    def _gather(self, state: State, joint: Joint, images: range) -> None:
        """Add these images' share to the gradient at the look-ahead."""
        forward, chosen = state.problem.forward, slice(images.start, images.stop)
        kernel, measured = state.kernels(forward.lit(images) or ()), state.problem.amplitudes[chosen]
        weights = joint.weights[:, chosen]
        errors = torch.empty_like(weights)

        def work(planes: slice, batch: slice) -> None:
            own = forward.part(kernel, planes, images, batch)
            pieces, cost = forward.mismatch(
                joint.search.ahead[planes], measured[batch], images[batch], own, weights=weights[planes, batch]
            )
            forward.add(joint.gradient[planes], pieces.mul_(own.conj()), forward.lit(images[batch]))
            errors[planes, batch] = 2 * cost

        forward.in_batches(len(joint.planes), images, work)
        state.errors[joint.planes, chosen] = errors
        assert state.plain is not None
        state.plain[joint.planes, chosen] = errors / weights

    def _end_sweep(self, state: State) -> bool:
        """Decide how to go on: smaller steps, all LEDs together, or fewer planes; True when the block is finished."""
        options, step = self.options, state.step
        state.sweep, state.at = state.sweep + 1, 0
        if state.joint is None:
            error, moving = state.errors.sum(1), step > 0
            if options.halve_below:
                step[moving & (error > (1 - options.halve_below) * state.last_error)] /= 2
            if options.join_below:
                if state.before is None:
                    step[moving & (error > (1 - options.join_below) * state.last_error)] = 0
                    if not step.any():
                        self._unsettled(state)
                else:
                    self._settled(state)
                if not step.any():
                    state.joint = self._join(state)
            state.last_error = error
        else:
            self._advance(state, state.joint)
        return state.sweep == options.sweeps or (state.joint is not None and not len(state.joint.planes))

    def _unsettled(self, state: State) -> None:
        """Go on with the bright field alone where noise is most of what is left of it: its error tells little then."""
        bright = state.bright
        error = sum((state.errors[:, image] for image in bright), torch.zeros_like(state.step))  # nothing is waited for
        state.step[error < NOISY * self._noise(state, bright)] = self.options.step
        state.before = state.spectra.clone()

    def _noise(self, state: State, images: list[int] | slice = slice(None)) -> float:
        """What noise alone makes of the error of a plane in some images."""
        return float(state.problem.noise[images].sum()) * state.problem.forward.counted

    def _settled(self, state: State) -> None:
        """Hold those planes that are as good as the same as a sweep ago; in the end all."""
        spectra, before = state.spectra, state.before
        assert before is not None
        (height, width), light = spectra.shape[1:], spectra.abs().square()
        light[:, height // 2, width // 2] = 0
        changed = (spectra - before).abs().square().sum((1, 2))
        state.alone += 1
        state.step[(changed < AT_REST * light.sum((1, 2))) | (state.alone >= UNTIL_AT_REST)] = 0
        state.before = spectra.clone()

    def _join(self, state: State) -> Joint:
        """Weights from what each LED was wrong by, and the state at rest."""
        forward, spectra = state.problem.forward, state.spectra
        weights = explained.weights(state.problem, state.errors / forward.counted)
        state.before = None
        # The sum of squares stays what it was, so that the losses before and after can be compared.
        total = state.errors.sum(1, keepdim=True).clamp_min(torch.finfo(state.errors.dtype).tiny)
        weights = weights * (total / (weights * state.errors).sum(1, keepdim=True).clamp_min(1e-30))
        peak, leds = state.projection.peak, forward.lit(range(forward.images))
        coverage = forward.coverage(weights=weights, power=(forward.kernel(0.0, leds)[0].abs() / peak).square())
        # The more is left unexplained, the more slowly moves what few LEDs see, where noise and misfit would gather.
        unexplained = state.errors.sum(1) / state.problem.amplitudes.square().sum()
        restraint = (RESTRAINT * (unexplained / UNEXPLAINED).clamp(1e-6, 1))[:, None, None]
        coverage = torch.lerp(coverage, coverage.amax((1, 2), keepdim=True), restraint)
        state.plain = state.errors.clone()
        planes = torch.arange(len(spectra), device=forward.device)
        search = quasi_newton.Search.begin(spectra.clone(), MEMORY)
        gain = torch.ones_like(unexplained)
        joint = Joint(planes, weights, coverage, torch.zeros_like(spectra), gain, search)
        self._expect(state, joint)
        return joint

    def _expect(self, state: State, joint: Joint) -> None:
        """See again what the objects' own spectra say about light and noise."""
        forward, leds = state.problem.forward, state.errors.shape[1]
        # In the bright field every frequency is measured in strong light: what is left there is misfit, not noise.
        if not self.options.prior or forward.calibration.bright_field(forward.optics).all():
            return
        light, pixels = state.problem.amplitudes.square().sum(), math.prod(forward.image_shape)
        # Of the spectra that were kept, which need not be those that were tried last.
        error = state.errors.sum(1) if state.joint is None else joint.search.misfit * (2 / pixels)
        variance = (error > NOISELESS * light) * error / (leds * forward.counted)
        prior = SpectralPrior(forward, joint.coverage * (state.projection.peak**2 / pixels))
        before = None if state.joint is None else joint.search.prior / pixels
        found = prior(state.spectra[joint.planes], variance, before)
        joint.search.expect(found * (self.options.prior * pixels))

    def _advance(self, state: State, joint: Joint) -> None:
        """Take the spectra that were tried where they are better, and aim at the next ones."""
        search, error = joint.search, state.errors[joint.planes].sum(1)
        gain, tells = search.take(error * (math.prod(state.problem.forward.image_shape) / 2), joint.gradient.clone())
        quiet = quasi_newton.quiet(gain, joint.gain, self._stop_below(state, joint))
        settled = (tells & quiet) | (error < state.floor)
        joint.gain = torch.where(tells, gain, joint.gain)
        state.spectra[joint.planes] = search.point
        joint.gradient.zero_()
        if self.options.prior and state.sweep % LOOK_AGAIN == 0:
            self._expect(state, joint)
        curvature = joint.coverage * state.projection.peak**2
        if self.options.stop_below and settled.any():
            state.spectra[joint.planes] = torch.where(settled[:, None, None], search.stepped(curvature), search.point)
            going = (~settled).nonzero()[:, 0]
            state.joint = joint = joint.of(going)
            curvature = curvature[going]
            self._look(state)
        joint.search.aim(curvature)

    def _stop_below(self, state: State, joint: Joint) -> torch.Tensor:
        """Share of the error that the last sweep of a plane gains, [z]."""
        assert state.plain is not None
        error, forward = state.plain[joint.planes].sum(1), state.problem.forward
        patient = (error < BORDERED * self._noise(state)) & (forward.window is not None)
        share: torch.Tensor = self.options.stop_below * torch.where(patient, PATIENT, 1.0)
        return share

    def dump(self, state: State) -> dict[str, torch.Tensor]:
        """What the joint sweeps need besides."""
        tensors = super().dump(state)
        if state.joint is not None:
            joint = vars(state.joint) | state.joint.search.dump()
            tensors |= {f"joint.{name}": value for name, value in joint.items() if name != "search"}
        more = {"plain": state.plain, "before": state.before}
        return tensors | {name: value for name, value in more.items() if value is not None}

    def restore(self, problem: Problem, tensors: Mapping[str, torch.Tensor]) -> State:
        """Inverse of :meth:`dump`."""
        state = super().restore(problem, tensors)
        prefix = "joint."
        joint = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        if joint:
            search = quasi_newton.Search.restore(MEMORY, joint)
            own = {name: value for name, value in joint.items() if name not in search.dump()}
            state.joint = Joint(**own, search=search)
        state.plain, state.before = tensors.get("plain"), tensors.get("before")
        self._look(state)
        return state
