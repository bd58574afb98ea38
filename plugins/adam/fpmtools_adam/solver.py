"""Adam on the object itself, plane by plane, through the analytic gradient of the forward model.

Adam: Kingma & Ba, arXiv:1412.6980. LED mini-batches in random order, the step size decaying along a cosine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from fpmtools import PlaneStack, Problem, Progress, Solver, option

BLOCK_SAMPLES = 1 << 22  # complex samples of the object planes that are in work at once
BETAS = (0.9, 0.99)


@dataclass(frozen=True)
class Options:
    sweeps: int = option(20, "visits to every LED", minimum=1)
    led_batch: int = option(8, "LEDs per step", minimum=1)
    lr: float = option(0.05, "first step size, in mean bright-field amplitudes", minimum=1e-6, maximum=10)
    final_lr: float = option(0.01, "last step size as a share of the first (cosine decay)", minimum=0, maximum=1)
    domain: str = option("pixels", "what Adam steps on", choices=("pixels", "spectrum"))
    dark_weight: float = option(
        0.5, "p in the weights (mean intensity)^-p of the LEDs; 0 treats all alike", minimum=0, maximum=2
    )


@dataclass
class State:
    problem: Problem
    weights: torch.Tensor  # [led], mean 1
    planes_per_block: int
    unknown: torch.Tensor  # [z, H, W] complex: every plane, as a field or as its unitary spectrum
    mean: torch.Tensor  # [planes of the block, H, W] complex: Adam's first moment
    square: torch.Tensor  # [planes of the block, H, W, (re, im)]: Adam's second moment
    count: int = 0  # steps so far, over all blocks


class AdamPixels(Solver[State]):
    """``fpmtools run --solver adam``."""

    Options = Options

    def start(self, problem: Problem) -> State:
        """Every plane starts from the amplitude of the LED nearest to the axis."""
        height, width = problem.forward.object_shape
        spectra = problem.first_guess().repeat(len(problem.z_um), 1, 1)
        planes = max(1, min(len(spectra), BLOCK_SAMPLES // (height * width)))
        unknown = (
            spectra / math.sqrt(height * width) if self.options.domain == "spectrum" else problem.forward.field(spectra)
        )
        mean = torch.zeros_like(unknown[:planes])
        square = torch.zeros_like(torch.view_as_real(mean))
        return State(problem, problem.led_weights(self.options.dark_weight), planes, unknown, mean, square)

    def step(self, state: State) -> Progress:
        """One batch of LEDs, all planes of the block in work; one block after another."""
        problem, options = state.problem, self.options
        batches = math.ceil(len(problem.order) / options.led_batch)
        per_block = options.sweeps * batches
        block, at = divmod(state.count, per_block)
        planes = slice(block * state.planes_per_block, (block + 1) * state.planes_per_block)
        leds = problem.led_batch(at, options.led_batch)
        if at == 0:
            state.mean.zero_()
            state.square.zero_()
        loss, gradient = self._gradient(state, planes, leds)
        rate = options.final_lr + (1 - options.final_lr) * (1 + math.cos(math.pi * at / per_block)) / 2
        _adam(state.unknown[planes], gradient, state.mean, state.square, options.lr * rate, at + 1)
        state.count += 1
        total = per_block * -(-len(state.unknown) // state.planes_per_block)
        return Progress(state.count, total, loss, state.count >= total)

    def _gradient(self, state: State, planes: slice, leds: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss, and its gradient with respect to the unknown, scaled to the size of one pixel's."""
        problem, forward = state.problem, state.problem.forward
        unknown, pixels = state.unknown[planes], math.prod(forward.object_shape)
        in_space = self.options.domain == "pixels"
        spectra = forward.spectrum(unknown) if in_space else unknown * math.sqrt(pixels)
        loss, gradient = forward.loss_and_gradient(
            spectra, problem.amplitudes[leds], problem.z_um[planes], leds, weights=state.weights[leds]
        )
        # The adjoint of the unnormalised FFT is the inverse one times the number of pixels.
        return loss, forward.field(gradient) * pixels if in_space else gradient * math.sqrt(pixels)

    def result(self, state: State) -> PlaneStack:
        """All planes, inside the synthetic aperture; those of blocks not yet begun are still the first guess."""
        problem, forward = state.problem, state.problem.forward
        unknown = state.unknown
        in_space = self.options.domain == "pixels"
        spectra = forward.spectrum(unknown) if in_space else unknown * math.sqrt(unknown[0].numel())
        # Adam scales every pixel's step on its own, which leaks into frequencies that no LED has measured.
        planes = spectra.to(torch.complex64).cpu().numpy() * forward.synthetic_support()
        return PlaneStack.from_spectra(planes, problem.z_um, problem.output_shape, forward.extent_um)

    def dump(self, state: State) -> dict[str, torch.Tensor]:
        """The planes, Adam's moments and the number of steps."""
        moments = {"mean": state.mean, "square": state.square}
        return {"unknown": state.unknown, **moments, "count": torch.tensor(state.count)}

    def restore(self, problem: Problem, tensors: Mapping[str, torch.Tensor]) -> State:
        """Inverse of :meth:`dump`."""
        state = self.start(problem)
        state.unknown, state.mean, state.square = tensors["unknown"], tensors["mean"], tensors["square"]
        state.count = int(tensors["count"])
        return state


def _adam(
    unknown: torch.Tensor, gradient: torch.Tensor, mean: torch.Tensor, square: torch.Tensor, lr: float, count: int
) -> None:
    """One Adam step on complex tensors, in place; real and imaginary part each have their own scale."""
    mean, square = mean[: len(unknown)], square[: len(unknown)]  # the last block may be smaller
    mean.lerp_(gradient, 1 - BETAS[0])
    square.lerp_(torch.view_as_real(gradient).square(), 1 - BETAS[1])
    scale = square.div(1 - BETAS[1] ** count).sqrt_().add_(1e-12)
    torch.view_as_real(unknown).addcdiv_(torch.view_as_real(mean), scale, value=-lr / (1 - BETAS[0] ** count))
