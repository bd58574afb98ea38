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

from fpmtools import PlaneStack, Problem, Progress, Solver, option

BLOCK_SAMPLES = 1 << 23  # complex samples of the object planes that are in work at once
CACHED_SAMPLES = 1 << 24  # complex samples of the kernels that are kept from one sweep to the next
BATCHES = 4  # of the forward model's batches that one joint step takes
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
        1e-4, "stop when a sweep of all LEDs together lowers the error by less than this share; 0: never", minimum=0,
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
    coverage: torch.Tensor  # Σ w |P|² / max|P|² over the LEDs, [z, H, W]
    ahead: torch.Tensor  # Nesterov's look-ahead, [z, H, W]
    gradient: torch.Tensor  # the sum over this sweep's LEDs so far, [z, H, W]


@dataclass
class State:
    problem: Problem
    filter: torch.Tensor  # |P| / (max|P| (|P|² + ε)), [led or 1, box y, box x]
    peak: float  # max|P|
    floor: float  # Σ e² that rounding leaves
    planes_per_block: int
    spectra: torch.Tensor  # [z, H, W], every plane
    step: torch.Tensor  # of every plane, [z]; 0 for those that wait for the others of their block
    errors: torch.Tensor  # Σ e² of every plane and LED at its last visit, [z, led]
    last_error: torch.Tensor  # its sum over the LEDs in the sweep before, [z]
    first: int = 0  # plane of the block in work
    sweep: int = 0  # of this block
    at: int = 0  # LEDs visited in this sweep
    joint: Joint | None = None  # of this block, once its LEDs are taken together
    kernel: torch.Tensor | None = field(default=None, repr=False)  # of the planes in work, where there is room

    @property
    def block(self) -> slice:
        """The planes in work."""
        return slice(self.first, min(self.first + self.planes_per_block, len(self.spectra)))


class AlternatingProjection(Solver[State]):
    """``fpmtools run --solver ap``."""

    Options = Options
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "paper": {"sweeps": 25, "step": 0.5, "halve_below": 0.01, "join_below": 0.0, "damping": 1.0}
    }

    def start(self, problem: Problem) -> State:
        """Every plane starts from the amplitude of the LED nearest to the axis."""
        forward, count = problem.forward, len(problem.z_um)
        size = forward.kernel(0.0)[0].abs()
        # The kernel carries the scale of the FFTs, so ε is relative to max|P|².
        damped = size.square() + self.options.damping * size.max().square()
        blocks = math.ceil(count / max(1, BLOCK_SAMPLES // math.prod(forward.object_shape)))
        planes = torch.ones(count, dtype=forward.real_dtype, device=forward.device)
        state = State(
            problem,
            size / (size.max() * damped),
            float(size.max()),
            float(problem.amplitudes.square().sum()) * (2 * torch.finfo(forward.real_dtype).eps) ** 2,
            math.ceil(count / blocks),
            problem.first_guess().repeat(count, 1, 1),
            planes * self.options.step,
            planes[:, None].repeat(1, len(problem.order)) * 0,
            planes * torch.inf,
        )
        self._keep_kernel(state)
        return state

    def _keep_kernel(self, state: State) -> None:
        """Compute the kernels of the planes in work, if there is room for them."""
        forward, z_um = state.problem.forward, list(state.problem.z_um[state.block])
        if state.joint is not None:
            z_um = [z_um[i] for i in state.joint.planes.tolist()]
        room = len(z_um) * len(state.problem.order) * math.prod(forward.box_shape) <= CACHED_SAMPLES
        state.kernel = forward.kernel(z_um) if room else None

    def _kernel(self, state: State, leds: slice) -> torch.Tensor:
        """Kernels of some LEDs at the planes in work, [z, led or 1, box y, box x]."""
        forward, z_um = state.problem.forward, state.problem.z_um[state.block]
        if state.kernel is not None:
            return state.kernel[:, leds] if state.kernel.shape[1] > 1 else state.kernel
        if state.joint is not None:
            z_um = tuple(z_um[i] for i in state.joint.planes.tolist())
        return forward.kernel(z_um, range(leds.start, leds.stop))

    def step(self, state: State) -> Progress:
        """One LED, or several of them together, at all planes of the block in work."""
        problem, leds = state.problem, len(state.problem.order)
        if state.joint is None:
            self._visit(state, problem.order[state.at])
            state.at += 1
        else:
            room = BATCHES * problem.forward.batch_samples // math.prod(problem.forward.image_shape)
            last = min(state.at + max(1, room // len(state.joint.planes)), leds)
            self._gather(state, state.joint, slice(state.at, last))
            state.at = last
        if state.at == leds:
            self._end_sweep(state)
        return self._progress(state)

    def _visit(self, state: State, led: int) -> None:
        """Move every plane's spectrum towards the measured amplitude of one LED."""
        forward, one = state.problem.forward, slice(led, led + 1)
        spectra, errors, step = state.spectra[state.block], state.errors[state.block], state.step[state.block]
        kernel, measured = self._kernel(state, one), state.problem.amplitudes[one]
        own = state.filter[one] if len(state.filter) > 1 else state.filter

        def work(planes: slice, _: slice) -> None:
            pieces, error = forward.mismatch(spectra[planes], measured, [led], kernel[planes])
            weight = kernel[planes].conj() * (own * -step[planes, None, None, None])
            forward.add(spectra[planes], pieces.mul_(weight), [led])
            errors[planes, led] = error[:, 0]

        forward.in_batches(len(spectra), [led], work)

    def _gather(self, state: State, joint: Joint, leds: slice) -> None:
        """Add these LEDs' share to the gradient at the look-ahead."""
        forward, numbers = state.problem.forward, range(leds.start, leds.stop)
        kernel, measured, weights = self._kernel(state, leds), state.problem.amplitudes[leds], joint.weights[:, leds]
        errors = torch.empty_like(weights)

        def work(planes: slice, batch: slice) -> None:
            own = kernel[planes, batch] if kernel.shape[1] > 1 else kernel[planes]
            pieces, error = forward.mismatch(
                joint.ahead[planes], measured[batch], numbers[batch], own, weights=weights[planes, batch]
            )
            forward.add(joint.gradient[planes], pieces.mul_(own.conj()), numbers[batch])
            errors[planes, batch] = error

        forward.in_batches(len(joint.ahead), numbers, work)
        state.errors[state.block][joint.planes, leds] = errors

    def _end_sweep(self, state: State) -> None:
        """Decide how to go on: smaller steps, all LEDs together, fewer planes, or the next block."""
        options, block = self.options, state.block
        state.sweep, state.at = state.sweep + 1, 0
        if state.joint is None:
            error, last, step = state.errors[block].sum(1), state.last_error[block], state.step[block]
            moving = step > 0
            if options.halve_below:
                step[moving & (error > (1 - options.halve_below) * last)] /= 2
            if options.join_below:
                step[moving & (error > (1 - options.join_below) * last)] = 0
                if not step.any():
                    state.joint = self._join(state)
            last.copy_(error)
        else:
            self._advance(state, state.joint)
        if state.sweep == options.sweeps or (state.joint is not None and not len(state.joint.planes)):
            state.first, state.sweep, state.joint = block.stop, 0, None
            if state.first < len(state.spectra):
                self._keep_kernel(state)

    def _join(self, state: State) -> Joint:
        """Weights from what each LED was wrong by, and the state at rest."""
        forward, spectra = state.problem.forward, state.spectra[state.block]
        error = state.errors[state.block].sqrt()
        error = error.clamp_min(LEAST_ERROR * error.mean(1, keepdim=True)).clamp_min(torch.finfo(error.dtype).tiny)
        # The sum of squares stays what it was, so that the losses before and after can be compared.
        weights = error.square().sum(1, keepdim=True) / error.sum(1, keepdim=True) / error
        coverage = torch.zeros_like(spectra.real, memory_format=torch.contiguous_format)
        power = (forward.kernel(0.0)[0].abs() / state.peak).square()

        def work(planes: slice, batch: slice) -> None:
            own = power[batch] if len(power) > 1 else power
            forward.add(coverage[planes], weights[planes, batch, None, None] * own, range(batch.start, batch.stop))

        forward.in_batches(len(spectra), range(len(state.problem.order)), work)
        coverage.clamp_min_(1e-6 * float(coverage.max()))
        planes = torch.arange(len(spectra), device=forward.device)
        inertia = torch.zeros(len(spectra), dtype=forward.real_dtype, device=forward.device)
        return Joint(planes, inertia, weights, coverage, spectra.clone(), torch.zeros_like(spectra))

    def _advance(self, state: State, joint: Joint) -> None:
        """Step from the look-ahead to the weighted average of what the LEDs ask for, and look ahead again."""
        spectra, last = state.spectra[state.block], state.last_error[state.block]
        error = state.errors[state.block][joint.planes].sum(1)
        gain = 1 - error / last[joint.planes]
        last[joint.planes] = error
        # A step without momentum lowers the error, unless rounding is all that is left of it.
        settled = (gain < self.options.stop_below) & ((gain >= 0) | (joint.inertia == 1)) & (joint.inertia > 0)
        settled |= error < state.floor
        joint.inertia = torch.where(gain < 0, 0, joint.inertia) + 1
        momentum = ((joint.inertia - 1) / (joint.inertia + 2))[:, None, None]
        new = joint.ahead - joint.gradient / (joint.coverage * state.peak**2)
        joint.ahead = new + momentum * (new - spectra[joint.planes])
        spectra[joint.planes] = new
        joint.gradient.zero_()
        if self.options.stop_below and settled.any():
            state.joint = Joint(**{name: value[~settled] for name, value in vars(joint).items()})
            self._keep_kernel(state)

    def _progress(self, state: State) -> Progress:
        leds, pixels = len(state.problem.order), math.prod(state.problem.forward.image_shape)
        planes = len(state.spectra)
        blocks = math.ceil(planes / state.planes_per_block)
        per_block = self.options.sweeps * leds
        visits = state.first // state.planes_per_block * per_block + state.sweep * leds + state.at
        done = state.first >= planes
        block = slice(planes - 1, planes) if done else state.block
        visited = leds if done or state.sweep else max(1, state.at)
        loss = state.errors[block].sum(1).mean() / (2 * visited * pixels)
        return Progress(per_block * blocks if done else visits, per_block * blocks, loss, done)

    def result(self, state: State) -> PlaneStack:
        """All planes; those of blocks not yet begun are still the first guess."""
        problem = state.problem
        spectra = state.spectra.to(torch.complex64).cpu().numpy()
        return PlaneStack.from_spectra(spectra, problem.z_um, problem.output_shape, problem.forward.extent_um)

    def dump(self, state: State) -> dict[str, torch.Tensor]:
        """Spectra, steps and errors of every plane, where the run stands, and the momentum of the block in work."""
        tensors = {name: getattr(state, name) for name in ("spectra", "step", "errors", "last_error")}
        tensors["place"] = torch.tensor([state.first, state.sweep, state.at])
        if state.joint is not None:
            tensors |= {f"joint.{name}": value for name, value in vars(state.joint).items()}
        return tensors

    def restore(self, problem: Problem, tensors: Mapping[str, torch.Tensor]) -> State:
        """Inverse of :meth:`dump`."""
        state = self.start(problem)
        for name in ("spectra", "step", "errors", "last_error"):
            setattr(state, name, tensors[name])
        state.first, state.sweep, state.at = (int(number) for number in tensors["place"])
        prefix = "joint."
        joint = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        state.joint = Joint(**joint) if joint else None
        if state.first < len(state.spectra):
            self._keep_kernel(state)
        return state
