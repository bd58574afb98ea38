"""Momentum on top of the regularised updates of rPIE: Maiden, Johnson, Li, Optica 4, 736 (2017).

LED i asks for a change of its piece of the object's spectrum,

    O ← O + s P* (Ψ' − Ψ) / ((1 − α) |P|² + α max|P|²),

Ψ the spectrum of the estimated image and Ψ' that of the same image with the measured amplitude. After every ``every``
LEDs, with B the spectrum just after the last time,

    v ← η v + (O − B),   O ← O + η v,   B ← O.

LEDs are visited in random order. Where noise is left, a step of fixed size would follow the last LED's, so s and η fall
when a sweep gains little (Zuo, Sun, Chen, Opt. Express 24, 20724, 2016). One object per z-plane.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from fpmtools import PlaneBlocks, PlaneStack, Problem, Progress, Solver, option

KEPT = ("spectra", "before", "velocity", "step", "errors", "last_error")  # of the state, in a checkpoint
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


@dataclass
class State:
    problem: Problem
    blocks: PlaneBlocks
    visits: int  # of LEDs, for the blocks that are finished
    # Of the planes in work:
    spectra: torch.Tensor  # [z, H, W]
    before: torch.Tensor  # B, [z, H, W]
    velocity: torch.Tensor  # v, [z, H, W]
    step: torch.Tensor  # [z], relative to the first
    errors: torch.Tensor  # Σ e² of this sweep's LEDs so far, [z]
    last_error: torch.Tensor  # of the whole sweep before, [z]
    sweep: int = 0
    at: int = 0  # LEDs visited in this sweep


class MomentumPie(Solver[State]):
    """``fpmtools run --solver mpie``."""

    Options = Options
    handles = frozenset({"masks"})

    def start(self, problem: Problem) -> State:
        """Every plane starts from the amplitude of the LED nearest to the axis."""
        none = torch.empty(0)
        state = State(problem, PlaneBlocks(problem), 0, none, none, none, none, none, none)
        self._begin(state)
        return state

    def _begin(self, state: State) -> None:
        """Start on the planes of the next block."""
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
        self._visit(state, problem.led_batch(visit, 1)[0])
        state.at += 1
        if options.friction and (visit + 1) % options.every == 0:
            self._gather_way(state)
        samples = problem.amplitudes[0].numel()
        error = state.errors.mean() / (samples * state.at)
        done = state.at == leds and self._end_sweep(state)
        visits = state.visits + visit + 1
        if done:
            state.visits = visits
            if not state.blocks.finish(state.spectra):
                self._begin(state)
        total = state.visits + (state.blocks.count - state.blocks.number) * options.sweeps * leds
        at_most = options.halve_below > 0
        return Progress(visits, total, error / 2, state.blocks.done, at_most, error, "amplitude loss")

    def _visit(self, state: State, led: int) -> None:
        """Move every plane's spectrum towards the measured amplitude of one LED."""
        forward, options, spectra = state.problem.forward, self.options, state.spectra
        kernel, measured = state.blocks.kernel([led]), state.problem.amplitudes[led : led + 1]
        power = kernel.real.square() + kernel.imag.square()
        peak = power.amax((2, 3), keepdim=True)
        share = options.step * state.step[:, None, None, None] / torch.lerp(power, peak, options.regularisation)

        def work(planes: slice, _: slice) -> None:
            pieces, cost = forward.mismatch(spectra[planes], measured, [led], kernel[planes])
            forward.add(spectra[planes], pieces.mul_(kernel[planes].conj() * -share[planes]), [led])
            state.errors[planes] += 2 * cost[:, 0]

        forward.in_batches(len(spectra), [led], work)

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

    def spectra(self, state: State) -> torch.Tensor:
        """Centred spectra [z, H, W] of the problem's planes, as they stand."""
        return state.blocks.spectra(None if state.blocks.done else state.spectra)

    def result(self, state: State) -> PlaneStack:
        """All planes; those of blocks not yet begun are still the first guess."""
        return state.blocks.stack(None if state.blocks.done else state.spectra)

    def dump(self, state: State) -> dict[str, torch.Tensor]:
        """What is finished; and of the planes in work the spectra, the momentum, steps, errors and the place."""
        tensors = {name: getattr(state, name) for name in KEPT}
        place = torch.tensor([state.sweep, state.at, state.visits])
        return {**tensors, "place": place, **state.blocks.dump()}

    def restore(self, problem: Problem, tensors: Mapping[str, torch.Tensor]) -> State:
        """Inverse of :meth:`dump`."""
        state = self.start(problem)
        state.blocks.restore(tensors)
        for name in KEPT:
            setattr(state, name, tensors[name])
        state.sweep, state.at, state.visits = (int(number) for number in tensors["place"])
        return state
