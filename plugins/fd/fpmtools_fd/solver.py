"""Feature-domain retrieval: Zhang et al., Optica 11, 634 (2024).

Measured and predicted amplitudes are compared by their edges, Σ √(|∇e|² + ε²) over the error e. A constant error of an
image drops out and a smooth one nearly, so that background, vignetting and the LEDs' gains matter little. The slope of
that loss is ±1 nearly everywhere, whatever the error: an adaptive gradient method (Adam: Kingma & Ba, arXiv:1412.6980)
on the object's pixels takes LED mini-batches in random order, with a step that decays along a cosine.

One object per z-plane.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from fpmtools import PlaneSolver, PlaneState, Problem, Progress, option

BETAS = (0.9, 0.99)


@dataclass(frozen=True)
class Options:
    sweeps: int = option(40, "visits to every LED", minimum=1)
    led_batch: int = option(8, "LEDs per step", minimum=1)
    lr: float = option(0.1, "first step size, in mean bright-field amplitudes", minimum=1e-6, maximum=10)
    final_lr: float = option(0.01, "last step size as a share of the first (cosine decay)", minimum=0, maximum=1)


class State(PlaneState):
    """Of the planes in work; its problem has the feature-domain loss."""

    field: torch.Tensor  # [z, H, W] complex
    mean: torch.Tensor  # [z, H, W] complex: first moment of the gradient
    square: torch.Tensor  # [z, H, W, (re, im)]: second moment
    count: int  # steps so far


class FeatureDomain(PlaneSolver[State]):
    """``fpmtools run --solver fd``."""

    Options = Options
    handles = frozenset({"patterns", "masks"})
    kept = ("field", "mean", "square", "count")

    def start(self, problem: Problem) -> State:
        """Every plane starts from the amplitude of the LED nearest to the axis."""
        state = State(problem.minimising("feature"))
        self.begin(state)
        return state

    def begin(self, state: State) -> None:
        """Fields of the first guess, at rest."""
        state.field = state.problem.forward.field(state.blocks.first_guess())
        state.mean = torch.zeros_like(state.field)
        state.square = torch.zeros_like(torch.view_as_real(state.mean))
        state.count = 0

    def step(self, state: State) -> Progress:
        """One batch of LEDs, all planes of the block in work."""
        problem, options, blocks, forward = state.problem, self.options, state.blocks, state.problem.forward
        per_block = options.sweeps * math.ceil(len(problem.order) / options.led_batch)
        images = problem.led_batch(state.count, options.led_batch)
        kernel = blocks.kernel(forward.lit(images) or ())
        found = problem.loss_and_gradient(forward.spectrum(state.field), blocks.z_um, images, kernel=kernel)
        rate = options.final_lr + (1 - options.final_lr) * (1 + math.cos(math.pi * state.count / per_block)) / 2
        state.count += 1
        # Only the direction counts: Adam takes the scale out.
        self._descend(state, forward.field(found.gradient), options.lr * rate)
        steps, total = self.advance(state, state.count, per_block, finished=state.count == per_block)
        return Progress(steps, total, found.loss, blocks.done, error=found.error, what=problem.loss_name)

    def _descend(self, state: State, gradient: torch.Tensor, rate: float) -> None:
        """One step of Adam; real and imaginary part each have their own scale."""
        gradient = gradient * gradient[0].numel() * len(gradient)
        state.mean.lerp_(gradient, 1 - BETAS[0])
        state.square.lerp_(torch.view_as_real(gradient).square(), 1 - BETAS[1])
        scale = (state.square / (1 - BETAS[1] ** state.count)).sqrt_().add_(1e-12)
        step = -rate / (1 - BETAS[0] ** state.count)
        torch.view_as_real(state.field).addcdiv_(torch.view_as_real(state.mean), scale, value=step)

    def in_work(self, state: State) -> torch.Tensor:
        """Centred spectra of the planes in work, inside the synthetic aperture."""
        forward = state.problem.forward
        # A step that is scaled pixel by pixel leaks into frequencies that no LED has measured.
        return forward.spectrum(state.field) * torch.from_numpy(forward.synthetic_support()).to(forward.device)
