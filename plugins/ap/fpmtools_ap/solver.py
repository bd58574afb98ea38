"""Alternating projections: replace each estimated amplitude by the measured one, first LED by LED, then all together.

The first sweeps visit the LEDs by ascending NA (Zheng, Horstmeyer, Yang, Nat. Photonics 7, 739, 2013; the step-halving
rule is that of the classical baseline of Zhou et al., Optica 10, 1679, 2023). That closes in fast, but then each LED
undoes some of the last one's work. So once a sweep gains little, all LEDs update the object together: the average of
their corrections, which is the closed-form minimiser for given phases (the M-step of ADMM- and VEM-FPM), with the
momentum of Nesterov, restarted when the error grows (O'Donoghue, Candès, Found. Comput. Math. 15, 715, 2015). Each LED
then counts with the inverse of its remaining error, so that the sum of the LEDs' root-mean-square errors falls and a
misfit of the bright field does not drown the dark field.

One object per z-plane; planes are solved in blocks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from fpmtools import PlaneBlocks, PlaneStack, Problem, Progress, Solver, option

CACHED_SAMPLES = 1 << 22  # complex samples of the kernels that are kept from one sweep to the next
BATCHES = 4  # of the forward model's batches that one joint step takes
RESTRAINT = 0.3  # largest α of the regularised step of rPIE (Maiden, Johnson, Li, Optica 4, 736, 2017)
UNEXPLAINED = 0.03  # Σ e² / Σ A² at which it is reached
LEAST_ERROR = 0.03  # of the mean: an LED's error below this share weighs no more


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
        2e-3, "stop when a sweep of all LEDs together lowers the error by less than this share; 0: never", minimum=0,
        maximum=1,
    )  # fmt: skip
    damping: float = option(
        1e-6, "ε in the update |P| P* / (max|P| (|P|² + ε)); 1 in the published baseline", minimum=1e-9, maximum=10
    )


@dataclass
class Joint:
    """What the sweeps of all LEDs together need, for the planes that still gain from them."""

    planes: torch.Tensor  # their indices in the block, int64
    inertia: torch.Tensor  # sweeps since the momentum was last put to rest, [z]
    weights: torch.Tensor  # [z, led]
    coverage: torch.Tensor  # Σ w |P|² / max|P|² over the LEDs, towards its largest value, [z, H, W]
    ahead: torch.Tensor  # Nesterov's look-ahead, [z, H, W]
    gradient: torch.Tensor  # the sum over this sweep's LEDs so far, [z, H, W]


@dataclass
class State:
    problem: Problem
    filter: torch.Tensor  # |P| / (max|P| (|P|² + ε)), [led or 1, box y, box x]
    peak: float  # max|P|
    floor: float  # Σ e² that rounding leaves
    blocks: PlaneBlocks
    visits: int  # of LEDs, for the blocks that are finished
    # Of the planes in work:
    spectra: torch.Tensor  # [z, H, W]
    step: torch.Tensor  # [z]; 0 for those that wait for the others
    errors: torch.Tensor  # Σ e² of every LED at its last visit, [z, led]
    last_error: torch.Tensor  # its sum over the LEDs in the sweep before, [z]
    sweep: int = 0
    at: int = 0  # LEDs visited in this sweep
    joint: Joint | None = None  # once the LEDs are taken together
    plain: torch.Tensor | None = None  # then: the errors without the weights of the joint sweeps, [z, led]
    kernel: torch.Tensor | None = field(default=None, repr=False)  # where there is room
    version: int = 0  # of the forward model that the kernels are of


class AlternatingProjection(Solver[State]):
    """``fpmtools run --solver ap``."""

    Options = Options
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "paper": {"sweeps": 25, "step": 0.5, "halve_below": 0.01, "join_below": 0.0, "damping": 1.0}
    }

    def start(self, problem: Problem) -> State:
        """Every plane starts from the amplitude of the LED nearest to the axis."""
        floor = float(problem.amplitudes.square().sum()) * (2 * torch.finfo(problem.forward.real_dtype).eps) ** 2
        none = torch.empty(0)
        blocks = PlaneBlocks(problem)
        state = State(problem, none, 0.0, floor, blocks, 0, none, none, none, none)
        self._begin(state)
        return state

    def _begin(self, state: State) -> None:
        """Start on the planes of the next block."""
        state.spectra = state.blocks.first_guess()
        planes = torch.ones(len(state.spectra), dtype=state.problem.forward.real_dtype, device=state.problem.device)
        state.step, state.last_error = planes * self.options.step, planes * torch.inf
        state.errors = planes[:, None].repeat(1, len(state.problem.order)) * 0
        state.sweep, state.at, state.joint, state.plain = 0, 0, None, None
        self._keep_kernel(state)

    def _z_um(self, state: State) -> list[float]:
        """Depths of the planes that still gain."""
        z_um = state.blocks.z_um
        return list(z_um) if state.joint is None else [z_um[i] for i in state.joint.planes.tolist()]

    def _keep_kernel(self, state: State) -> None:
        """Compute what depends on the pupil, and the kernels of the planes in work if there is room for them."""
        forward, z_um = state.problem.forward, self._z_um(state)
        size = forward.kernel(0.0)[0].abs()
        # The kernel carries the scale of the FFTs, so ε is relative to max|P|².
        damped = size.square() + self.options.damping * size.max().square()
        state.peak = float(size.max())
        state.filter, state.version = size / (state.peak * damped), forward.version
        room = len(z_um) * len(state.problem.order) * math.prod(forward.box_shape) <= CACHED_SAMPLES
        state.kernel = forward.kernel(z_um) if room else None

    def _kernel(self, state: State, leds: slice) -> torch.Tensor:
        """Kernels of some LEDs at the planes in work, [z, led or 1, box y, box x]."""
        if state.kernel is None:
            return state.problem.forward.kernel(self._z_um(state), range(leds.start, leds.stop))
        return state.kernel[:, leds] if state.kernel.shape[1] > 1 else state.kernel

    def step(self, state: State) -> Progress:
        """One LED, or several of them together, at all planes of the block in work."""
        problem, order = state.problem, state.problem.order
        leds = len(order)
        if state.version != problem.forward.version:
            self._keep_kernel(state)
        if state.joint is None:
            self._visit(state, order[state.at])
            state.at += 1
        else:
            room = BATCHES * problem.forward.batch_samples // math.prod(problem.forward.image_shape)
            last = min(state.at + max(1, room // len(state.joint.planes)), leds)
            self._gather(state, state.joint, slice(state.at, last))
            state.at = last
        finished = state.at == leds and self._end_sweep(state)
        samples = problem.forward.counted * (leds if state.sweep else state.at)
        loss = state.errors.sum(1).mean() / (2 * samples)
        error = 2 * loss if state.plain is None else state.plain.sum(1).mean() / samples
        visits = state.visits + state.sweep * leds + state.at
        if finished:
            state.visits = visits
            if not state.blocks.finish(state.spectra):
                self._begin(state)
        total = state.visits + (state.blocks.count - state.blocks.number) * self.options.sweeps * leds
        stops = bool(self.options.join_below and self.options.stop_below)
        return Progress(visits, total, loss, state.blocks.done, stops, error, "amplitude loss")

    def _visit(self, state: State, led: int) -> None:
        """Move every plane's spectrum towards the measured amplitude of one LED."""
        forward, one, spectra = state.problem.forward, slice(led, led + 1), state.spectra
        kernel, measured = self._kernel(state, one), state.problem.amplitudes[one]
        own = state.filter[one] if len(state.filter) > 1 else state.filter

        def work(planes: slice, _: slice) -> None:
            block, seen = spectra[planes], kernel[planes]
            pieces, cost = forward.mismatch(block, measured, [led], seen)
            weight = seen.conj() * (own * -state.step[planes, None, None, None])
            forward.add(block, pieces.mul_(weight), [led])
            state.errors[planes, led] = 2 * cost[:, 0]

        forward.in_batches(len(spectra), [led], work)

    def _gather(self, state: State, joint: Joint, leds: slice) -> None:
        """Add these LEDs' share to the gradient at the look-ahead."""
        forward, numbers = state.problem.forward, range(leds.start, leds.stop)
        kernel, measured, weights = self._kernel(state, leds), state.problem.amplitudes[leds], joint.weights[:, leds]
        errors = torch.empty_like(weights)

        def work(planes: slice, batch: slice) -> None:
            own = kernel[planes, batch] if kernel.shape[1] > 1 else kernel[planes]
            pieces, cost = forward.mismatch(
                joint.ahead[planes], measured[batch], numbers[batch], own, weights=weights[planes, batch]
            )
            forward.add(joint.gradient[planes], pieces.mul_(own.conj()), numbers[batch])
            errors[planes, batch] = 2 * cost

        forward.in_batches(len(joint.ahead), numbers, work)
        state.errors[joint.planes, leds] = errors
        assert state.plain is not None
        state.plain[joint.planes, leds] = errors / weights

    def _end_sweep(self, state: State) -> bool:
        """Decide how to go on: smaller steps, all LEDs together, or fewer planes; True when the block is finished."""
        options, step = self.options, state.step
        state.sweep, state.at = state.sweep + 1, 0
        if state.joint is None:
            error, moving = state.errors.sum(1), step > 0
            if options.halve_below:
                step[moving & (error > (1 - options.halve_below) * state.last_error)] /= 2
            if options.join_below:
                step[moving & (error > (1 - options.join_below) * state.last_error)] = 0
                if not step.any():
                    state.joint = self._join(state)
            state.last_error = error
        else:
            self._advance(state, state.joint)
        return state.sweep == options.sweeps or (state.joint is not None and not len(state.joint.planes))

    def _join(self, state: State) -> Joint:
        """Weights from what each LED was wrong by, and the state at rest."""
        forward, spectra = state.problem.forward, state.spectra
        error = state.errors.sqrt()
        error = error.clamp_min(LEAST_ERROR * error.mean(1, keepdim=True)).clamp_min(torch.finfo(error.dtype).tiny)
        # The sum of squares stays what it was, so that the losses before and after can be compared.
        weights = error.square().sum(1, keepdim=True) / error.sum(1, keepdim=True) / error
        coverage = torch.zeros_like(spectra.real, memory_format=torch.contiguous_format)
        power = (forward.kernel(0.0)[0].abs() / state.peak).square()

        def work(planes: slice, batch: slice) -> None:
            own = power[batch] if len(power) > 1 else power
            forward.add(coverage[planes], weights[planes, batch, None, None] * own, range(batch.start, batch.stop))

        forward.in_batches(len(spectra), range(len(state.problem.order)), work)
        # The more is left unexplained, the more slowly moves what few LEDs see, where noise and misfit would gather.
        unexplained = state.errors.sum(1) / state.problem.amplitudes.square().sum()
        restraint = (RESTRAINT * (unexplained / UNEXPLAINED).clamp(1e-6, 1))[:, None, None]
        coverage = torch.lerp(coverage, coverage.amax((1, 2), keepdim=True), restraint)
        planes = torch.arange(len(spectra), device=forward.device)
        inertia = torch.zeros(len(spectra), dtype=forward.real_dtype, device=forward.device)
        ahead, gradient = spectra.clone(), torch.zeros_like(spectra)
        state.plain = state.errors.clone()
        return Joint(planes, inertia, weights, coverage, ahead, gradient)

    def _advance(self, state: State, joint: Joint) -> None:
        """Step from the look-ahead to the weighted average of what the LEDs ask for, and look ahead again."""
        error = state.errors[joint.planes].sum(1)
        gain = 1 - error / state.last_error[joint.planes]
        state.last_error[joint.planes] = error
        # A step without momentum lowers the error, unless rounding is all that is left of it.
        settled = (gain < self.options.stop_below) & ((gain >= 0) | (joint.inertia == 1)) & (joint.inertia > 0)
        settled |= error < state.floor
        joint.inertia = torch.where(gain < 0, 0, joint.inertia) + 1
        momentum = ((joint.inertia - 1) / (joint.inertia + 2))[:, None, None]
        new = joint.ahead - joint.gradient / (joint.coverage * state.peak**2)
        joint.ahead = new + momentum * (new - state.spectra[joint.planes])
        state.spectra[joint.planes] = new
        joint.gradient.zero_()
        if self.options.stop_below and settled.any():
            state.joint = Joint(**{name: value[~settled] for name, value in vars(joint).items()})
            self._keep_kernel(state)

    def result(self, state: State) -> PlaneStack:
        """All planes; those of blocks not yet begun are still the first guess."""
        return state.blocks.stack(None if state.blocks.done else state.spectra)

    def dump(self, state: State) -> dict[str, torch.Tensor]:
        """What is finished; and of the planes in work the spectra, steps, errors, place and momentum."""
        tensors = {name: getattr(state, name) for name in ("spectra", "step", "errors", "last_error")}
        tensors |= {"place": torch.tensor([state.sweep, state.at, state.visits]), **state.blocks.dump()}
        if state.joint is not None:
            tensors |= {f"joint.{name}": value for name, value in vars(state.joint).items()}
        if state.plain is not None:
            tensors["plain"] = state.plain
        return tensors

    def restore(self, problem: Problem, tensors: Mapping[str, torch.Tensor]) -> State:
        """Inverse of :meth:`dump`."""
        state = self.start(problem)
        state.blocks.restore(tensors)
        for name in ("spectra", "step", "errors", "last_error"):
            setattr(state, name, tensors[name])
        state.sweep, state.at, state.visits = (int(number) for number in tensors["place"])
        prefix = "joint."
        joint = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        state.joint = Joint(**joint) if joint else None
        state.plain = tensors.get("plain")
        self._keep_kernel(state)
        return state
