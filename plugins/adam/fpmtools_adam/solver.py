"""Adam on the object itself, plane by plane, through the analytic gradient of the forward model.

Adam: Kingma & Ba, arXiv:1412.6980. LED mini-batches in random order, the step size decaying along a cosine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from fpmtools import Misfit, PlaneSolver, PlaneState, Problem, Progress, explained, option, take

BETAS = (0.9, 0.99)


@dataclass(frozen=True)
class Options:
    sweeps: int = option(17, "visits to every LED", minimum=1)
    led_batch: int = option(8, "LEDs per step", minimum=1)
    lr: float = option(0.05, "first step size, in mean bright-field amplitudes", minimum=1e-6, maximum=10)
    final_lr: float = option(0.01, "last step size as a share of the first (cosine decay)", minimum=0, maximum=1)
    domain: str = option("pixels", "what Adam steps on", choices=("pixels", "spectrum"))
    start: int = option(4, "sweeps of alternating projection that show what can be explained", minimum=1)
    weights: str = option(explained.EXPLAINED, "what an image counts by", choices=explained.CHOICES)


class State(PlaneState):
    # Of the planes in work:
    weights: torch.Tensor  # [z, image]
    unknown: torch.Tensor  # [z, H, W] complex: fields, or their unitary spectra
    mean: torch.Tensor  # [z, H, W] complex: Adam's first moment
    square: torch.Tensor  # [z, H, W, (re, im)]: Adam's second moment
    count: int  # steps so far


class AdamPixels(PlaneSolver[State]):
    """``fpmtools run --solver adam``."""

    Options = Options
    handles = frozenset({"losses", "patterns", "masks"})
    kept = ("weights", "unknown", "mean", "square", "count")

    def start(self, problem: Problem) -> State:
        """The first planes, see :meth:`begin`."""
        state = State(problem)
        self.begin(state)
        return state

    def begin(self, state: State) -> None:
        """See :func:`fpmtools.explained.start`; at rest."""
        problem, forward, options = state.problem, state.problem.forward, self.options
        spectra, state.weights = explained.start(problem, state.blocks.z_um, options.weights, options.start)
        in_space = options.domain == "pixels"
        state.unknown = forward.field(spectra) if in_space else spectra / math.sqrt(spectra[0].numel())
        state.mean = torch.zeros_like(state.unknown)
        state.square = torch.zeros_like(torch.view_as_real(state.mean))
        state.count = 0

    def step(self, state: State) -> Progress:
        """One batch of LEDs, all planes of the block in work; one block after another."""
        problem, options, blocks = state.problem, self.options, state.blocks
        per_block = options.sweeps * math.ceil(len(problem.order) / options.led_batch)
        leds = problem.led_batch(state.count, options.led_batch)
        found = self._gradient(state, leds)
        rate = options.final_lr + (1 - options.final_lr) * (1 + math.cos(math.pi * state.count / per_block)) / 2
        state.count += 1
        _adam(state.unknown, found.gradient, state.mean, state.square, options.lr * rate, state.count)
        steps, total = self.advance(state, state.count, per_block, finished=state.count == per_block)
        return Progress(steps, total, found.loss, blocks.done, error=found.error, what=problem.loss_name)

    def _gradient(self, state: State, leds: list[int]) -> Misfit:
        """Loss, and its gradient with respect to the unknown, scaled to the size of one pixel's."""
        problem, forward = state.problem, state.problem.forward
        unknown, pixels = state.unknown, math.prod(forward.object_shape)
        in_space = self.options.domain == "pixels"
        spectra = forward.spectrum(unknown) if in_space else unknown * math.sqrt(pixels)
        found = problem.loss_and_gradient(spectra, state.blocks.z_um, leds, weights=take(state.weights, leds, 1))
        # The adjoint of the unnormalised FFT is the inverse one times the number of pixels.
        scaled = forward.field(found.gradient) * pixels if in_space else found.gradient * math.sqrt(pixels)
        return found._replace(gradient=scaled)

    def in_work(self, state: State) -> torch.Tensor:
        """Centred spectra of the planes in work, inside the synthetic aperture."""
        forward, unknown = state.problem.forward, state.unknown
        in_space = self.options.domain == "pixels"
        spectra = forward.spectrum(unknown) if in_space else unknown * math.sqrt(unknown[0].numel())
        # Adam scales every pixel's step on its own, which leaks into frequencies that no LED has measured.
        return spectra * torch.from_numpy(forward.synthetic_support()).to(forward.device)


def _adam(
    unknown: torch.Tensor, gradient: torch.Tensor, mean: torch.Tensor, square: torch.Tensor, lr: float, count: int
) -> None:
    """One Adam step on complex tensors, in place; real and imaginary part each have their own scale."""
    mean.lerp_(gradient, 1 - BETAS[0])
    square.lerp_(torch.view_as_real(gradient).square(), 1 - BETAS[1])
    scale = square.div(1 - BETAS[1] ** count).sqrt_().add_(1e-12)
    torch.view_as_real(unknown).addcdiv_(torch.view_as_real(mean), scale, value=-lr / (1 - BETAS[0] ** count))
