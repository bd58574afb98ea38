"""Momentum on top of the regularised updates of rPIE: Maiden, Johnson, Li, Optica 4, 736 (2017).

LED i asks for a change of its piece of the object's spectrum,

    O ← O + s P* (Ψ' − Ψ) / ((1 − α) |P|² + α max|P|²),

Ψ the spectrum of the estimated image and Ψ' that of the same image with the measured amplitude. After every ``every``
LEDs, with B the spectrum just after the last time,

    v ← η v + (O − B),   O ← O + η v,   B ← O.

An image that several LEDs light changes the pieces of all of them, and |P|² is the sum of their pupils, where these
overlap. LEDs are visited in random order. Where noise is left, a step of fixed size would follow the last LED's, so s
and η fall when a sweep gains little (Zuo, Sun, Chen, Opt. Express 24, 20724, 2016). One object per z-plane.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fpmtools import PlaneSolver, PlaneState, Problem, Progress, option, take

SMALLEST = 2.0**-7  # share of the first step at which nothing is left to gain


@dataclass(frozen=True)
class Options:
    sweeps: int = option(60, "visits to every LED, at most", minimum=1)
    step: float = option(0.5, "first step size s", minimum=1e-3, maximum=2)
    regularisation: float = option(0.2, "α: 0 divides by |P|², 1 by its largest value", minimum=1e-6, maximum=1)
    friction: float = option(0.6, "η: what the momentum keeps, and adds; 0: no momentum", minimum=0, maximum=0.99)
    every: int = option(20, "LEDs from one momentum step to the next", minimum=1)
    halve_below: float = option(
        0.05, "halve a plane's step when its error falls by less than this share in a sweep; 0: never", minimum=0,
        maximum=1,
    )  # fmt: skip


class State(PlaneState):
    """Of the planes in work."""

    before: torch.Tensor  # B, [z, H, W]
    velocity: torch.Tensor  # v, [z, H, W]
    step: torch.Tensor  # [z], relative to the first
    errors: torch.Tensor  # Σ e² of this sweep's LEDs so far, [z]
    last_error: torch.Tensor  # of the whole sweep before, [z]
    sweep: int
    at: int  # LEDs visited in this sweep


class MomentumPie(PlaneSolver[State]):
    """``fpmtools run --solver mpie``."""

    Options = Options
    handles = frozenset({"patterns", "masks"})
    kept = ("spectra", "before", "velocity", "step", "errors", "last_error", "sweep", "at")

    def start(self, problem: Problem) -> State:
        """Every plane starts from the amplitude of the LED nearest to the axis."""
        state = State(problem)
        self.begin(state)
        return state

    def begin(self, state: State) -> None:
        """Every plane at rest, at the first guess."""
        state.spectra = state.blocks.first_guess()
        state.before, state.velocity = state.spectra.clone(), torch.zeros_like(state.spectra)
        planes = torch.ones(len(state.spectra), dtype=state.problem.forward.real_dtype, device=state.problem.device)
        state.step, state.errors, state.last_error = planes, planes * 0, planes * torch.inf
        state.sweep, state.at = 0, 0

    def step(self, state: State) -> Progress:
        """One LED, at all planes of the block in work."""
        problem, options = state.problem, self.options
        leds = len(problem.order)
        visit = state.sweep * leds + state.at
        self._visit(state, problem.led_batch(visit, 1))
        state.at += 1
        if options.friction and (visit + 1) % options.every == 0:
            self._gather_way(state)
        error = state.errors.mean() / (problem.forward.counted * state.at)
        finished = state.at == leds and self._end_sweep(state)
        step, total = self.advance(state, visit + 1, options.sweeps * leds, finished=finished)
        at_most = options.halve_below > 0
        return Progress(step, total, error / 2, state.blocks.done, at_most, error, "amplitude loss")

    def _visit(self, state: State, image: list[int]) -> None:
        """Move every plane's spectrum towards the measured amplitude of one image."""
        forward, options, spectra = state.problem.forward, self.options, state.spectra
        leds, measured = forward.lit(image) or (), take(state.problem.amplitudes, image)
        kernel = state.blocks.kernel(leds)
        # The same at all depths, which turn the phase alone.
        coverage = forward.coverage(image, power=kernel[0].real.square() + kernel[0].imag.square())
        power = torch.lerp(forward.crop(coverage, leds), coverage.max(), options.regularisation)
        share = options.step * state.step[:, None, None, None] / power

        def work(planes: slice, _: slice) -> None:
            pieces, cost = forward.mismatch(spectra[planes], measured, image, kernel[planes])
            forward.add(spectra[planes], pieces.mul_(kernel[planes].conj() * -share[planes]), leds)
            state.errors[planes] += 2 * cost[:, 0]

        forward.in_batches(len(spectra), image, work)

    def _gather_way(self, state: State) -> None:
        """Add the momentum of the last LEDs."""
        friction = (self.options.friction * state.step)[:, None, None]
        state.velocity = friction * state.velocity + (state.spectra - state.before)
        state.spectra += friction * state.velocity
        state.before = state.spectra.clone()

    def _end_sweep(self, state: State) -> bool:
        """Smaller steps where little was gained; True when the block is finished."""
        limit = (1 - self.options.halve_below) * state.last_error
        if self.options.halve_below:
            state.step = torch.where(state.errors > limit, state.step / 2, state.step)
        state.last_error, state.errors = state.errors, torch.zeros_like(state.errors)
        state.sweep, state.at = state.sweep + 1, 0
        return state.sweep == self.options.sweeps or bool((state.step < SMALLEST).all())
