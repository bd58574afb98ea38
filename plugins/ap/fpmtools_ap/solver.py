"""Alternating projections: visit the LEDs by ascending NA, replace each estimated amplitude by the measured one.

Zheng, Horstmeyer, Yang, Nat. Photonics 7, 739 (2013); step-halving rule as in the classical baseline of Zhou et al.,
Optica 10, 1679 (2023). One object per z-plane, all planes of a block in one batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from fpmtools import PlaneStack, Problem, Progress, Solver, option

BLOCK_SAMPLES = 1 << 24  # complex samples of the object planes that are in work at once
CACHED_SAMPLES = 1 << 24  # complex samples of the kernels that are kept from one sweep to the next


@dataclass(frozen=True)
class Options:
    sweeps: int = option(300, "visits to every LED, at most", minimum=1)
    step: float = option(1.0, "first step size; 1 replaces the measured part of the spectrum", minimum=1e-3, maximum=2)
    halve_below: float = option(
        0.03, "halve a plane's step when its error falls by less than this share in a sweep", minimum=0, maximum=1
    )
    stop_below: float = option(
        0.03, "stop when the steps of all planes have fallen below this; 0: never", minimum=0, maximum=1
    )
    damping: float = option(
        1e-6, "ε in the update |P| P* / (max|P| (|P|² + ε)); 1 in the published baseline", minimum=1e-9, maximum=10
    )


@dataclass
class State:
    problem: Problem
    filter: torch.Tensor  # |P| / (max|P| (|P|² + ε)), [led or 1, box y, box x]
    planes_per_block: int
    kernels: dict[int, tuple[torch.Tensor, torch.Tensor]]  # kernel and update weight by LED, of the block in work
    spectra: torch.Tensor  # [z, H, W], every plane
    step: torch.Tensor  # [z, 1, 1, 1]
    error: torch.Tensor  # [z, 1, 1, 1], summed over the LEDs visited in this sweep
    last_error: torch.Tensor  # the same of the sweep before
    visit: int = 0  # LED visits so far, over all blocks


class AlternatingProjection(Solver[State]):
    """``fpmtools run --solver ap``."""

    Options = Options
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "paper": {"sweeps": 25, "step": 0.5, "halve_below": 0.01, "stop_below": 0.0, "damping": 1.0}
    }

    def start(self, problem: Problem) -> State:
        """Every plane starts from the amplitude of the LED nearest to the axis."""
        forward, count = problem.forward, len(problem.z_um)
        size = (forward.kernel(0.0)[0]).abs()
        # The kernel carries the scale of the FFTs, so ε is relative to max|P|².
        damped = size.square() + self.options.damping * size.max().square()
        height, width = forward.object_shape
        column = torch.ones(count, 1, 1, 1, dtype=forward.real_dtype, device=forward.device)
        return State(
            problem,
            size / (size.max() * damped),
            max(1, min(count, BLOCK_SAMPLES // (height * width))),
            {},
            problem.first_guess().repeat(count, 1, 1),
            column * self.options.step,
            column * 0,
            column * torch.inf,
        )

    def step(self, state: State) -> Progress:
        """One LED, all planes of the block in work; one block after another."""
        problem, forward = state.problem, state.problem.forward
        per_block = self.options.sweeps * len(problem.order)
        first = state.visit // per_block * state.planes_per_block
        block = slice(first, min(first + state.planes_per_block, len(problem.z_um)))
        led = [problem.order[state.visit % len(problem.order)]]
        spectra = state.spectra[block]

        kernel, weight = self._kernel(state, block, led[0])
        psi = forward.to_image(forward.crop(spectra, led) * kernel)
        inverse, error = forward.amplitude_error(psi, problem.amplitudes[led[0] : led[0] + 1])
        state.error[block] += error.square().mean((-2, -1), keepdim=True)
        change = forward.to_piece(psi.mul_(inverse.mul_(error)))  # what the estimate has too much of
        forward.add(spectra, change * weight * -state.step[block], led)

        state.visit += 1
        if state.visit % len(problem.order) == 0 and self._end_sweep(state, block):
            state.visit = (first // state.planes_per_block + 1) * per_block  # converged: on to the next block
        if state.visit % per_block == 0:
            state.kernels.clear()
        return self._progress(state, block, error)

    def _kernel(self, state: State, block: slice, led: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Kernel of an LED at the block's planes, and the weight of its update; remembered where there is room."""
        if led in state.kernels:
            return state.kernels[led]
        problem = state.problem
        kernel = problem.forward.kernel(problem.z_um[block], [led])
        own = state.filter[led : led + 1] if len(state.filter) > 1 else state.filter
        pair = kernel, kernel.conj() * own
        if 2 * kernel.numel() * len(problem.order) <= CACHED_SAMPLES:
            state.kernels[led] = pair
        return pair

    def _end_sweep(self, state: State, block: slice) -> bool:
        """Halve the steps of the planes that no longer gain; True when none is left that does."""
        error, last = state.error[block], state.last_error[block]
        slow = error > (1 - self.options.halve_below) * last
        state.step[block] = torch.where(slow, state.step[block] / 2, state.step[block])
        state.last_error[block] = error
        state.error[block] = 0
        return bool((state.step[block] < self.options.stop_below).all())

    def _progress(self, state: State, block: slice, error: torch.Tensor) -> Progress:
        leds, count = len(state.problem.order), len(state.problem.z_um)
        per_block = self.options.sweeps * leds
        total = per_block * -(-count // state.planes_per_block)
        swept = (state.visit - 1) % per_block >= leds - 1
        loss = state.last_error[block].mean() / leds if swept else error.square().mean()
        return Progress(state.visit, total, loss / 2, state.visit >= total)

    def result(self, state: State) -> PlaneStack:
        """All planes; those of blocks not yet begun are still the first guess."""
        problem = state.problem
        spectra = state.spectra.to(torch.complex64).cpu().numpy()
        return PlaneStack.from_spectra(spectra, problem.z_um, problem.output_shape, problem.forward.extent_um)

    def dump(self, state: State) -> dict[str, torch.Tensor]:
        """Spectra, steps and errors of every plane, and the number of visits."""
        return {
            "spectra": state.spectra,
            "step": state.step,
            "error": state.error,
            "last_error": state.last_error,
            "visit": torch.tensor(state.visit),
        }

    def restore(self, problem: Problem, tensors: Mapping[str, torch.Tensor]) -> State:
        """Inverse of :meth:`dump`."""
        state = self.start(problem)
        state.spectra, state.step = tensors["spectra"], tensors["step"]
        state.error, state.last_error = tensors["error"], tensors["last_error"]
        state.visit = int(tensors["visit"])
        return state
