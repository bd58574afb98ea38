"""Feature-domain retrieval: Zhang et al., Optica 11, 634 (2024).

Measured and predicted amplitudes are compared by their edges, Σ √(|∇e|² + ε²) over the error e. A constant error of an
image drops out and a smooth one nearly, so that background, vignetting and the LEDs' gains matter little. The slope of
that loss is ±1 nearly everywhere, whatever the error: an adaptive gradient method (Adam: Kingma & Ba, arXiv:1412.6980)
on the object's pixels takes LED mini-batches in random order, with a step that decays along a cosine.

One object per z-plane.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from fpmtools import PlaneBlocks, PlaneStack, Problem, Progress, Solver, option

BETAS = (0.9, 0.99)
KEPT = ("field", "mean", "square")  # of the state, in a checkpoint


@dataclass(frozen=True)
class Options:
    sweeps: int = option(40, "visits to every LED", minimum=1)
    led_batch: int = option(8, "LEDs per step", minimum=1)
    lr: float = option(0.1, "first step size, in mean bright-field amplitudes", minimum=1e-6, maximum=10)
    final_lr: float = option(0.01, "last step size as a share of the first (cosine decay)", minimum=0, maximum=1)


@dataclass
class State:
    problem: Problem  # with the feature-domain loss
    blocks: PlaneBlocks
    # Of the planes in work:
    field: torch.Tensor  # [z, H, W] complex
    mean: torch.Tensor  # [z, H, W] complex: first moment of the gradient
    square: torch.Tensor  # [z, H, W, (re, im)]: second moment
    count: int = 0  # steps so far


class FeatureDomain(Solver[State]):
    """``fpmtools run --solver fd``."""

    Options = Options
    handles = frozenset({"patterns", "masks"})

    def start(self, problem: Problem) -> State:
        """Every plane starts from the amplitude of the LED nearest to the axis."""
        none = torch.empty(0)
        state = State(problem.minimising("feature"), PlaneBlocks(problem), none, none, none)
        self._begin(state)
        return state

    def _begin(self, state: State) -> None:
        """Start on the planes of the next block."""
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
        steps, total = blocks.number * per_block + state.count, per_block * blocks.count
        if state.count == per_block and not blocks.finish(self._in_work(state)):
            self._begin(state)
        return Progress(steps, total, found.loss, blocks.done, error=found.error, what=problem.loss_name)

    def _descend(self, state: State, gradient: torch.Tensor, rate: float) -> None:
        """One step of Adam; real and imaginary part each have their own scale."""
        gradient = gradient * gradient[0].numel() * len(gradient)
        state.mean.lerp_(gradient, 1 - BETAS[0])
        state.square.lerp_(torch.view_as_real(gradient).square(), 1 - BETAS[1])
        scale = (state.square / (1 - BETAS[1] ** state.count)).sqrt_().add_(1e-12)
        step = -rate / (1 - BETAS[0] ** state.count)
        torch.view_as_real(state.field).addcdiv_(torch.view_as_real(state.mean), scale, value=step)

    def _in_work(self, state: State) -> torch.Tensor:
        """Centred spectra of the planes in work, inside the synthetic aperture."""
        forward = state.problem.forward
        # A step that is scaled pixel by pixel leaks into frequencies that no LED has measured.
        return forward.spectrum(state.field) * torch.from_numpy(forward.synthetic_support()).to(forward.device)

    def spectra(self, state: State) -> torch.Tensor:
        """Centred spectra [z, H, W] of the problem's planes, as they stand."""
        return state.blocks.spectra(None if state.blocks.done else self._in_work(state))

    def result(self, state: State) -> PlaneStack:
        """All planes; those of blocks not yet begun are still the first guess."""
        return state.blocks.stack(None if state.blocks.done else self._in_work(state))

    def dump(self, state: State) -> dict[str, torch.Tensor]:
        """What is finished; of the planes in work the field, Adam's moments and the number of steps."""
        tensors = {name: getattr(state, name) for name in KEPT}
        return {**tensors, "count": torch.tensor(state.count), **state.blocks.dump()}

    def restore(self, problem: Problem, tensors: Mapping[str, torch.Tensor]) -> State:
        """Inverse of :meth:`dump`."""
        state = self.start(problem)
        state.blocks.restore(tensors)
        for name in KEPT:
            setattr(state, name, tensors[name])
        state.count = int(tensors["count"])
        return state
