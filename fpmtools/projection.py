"""Alternating projection: replace the amplitude of one image's estimate by the measured one, and go on to the next.

Gerchberg, Saxton, Optik 35, 237 (1972); image by image on the object's spectrum: Zheng, Horstmeyer, Yang, Nat.
Photonics 7, 739 (2013).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from fpmtools.forward import KeptKernels
from fpmtools.transfer import take

if TYPE_CHECKING:
    from fpmtools.forward import ForwardModel
    from fpmtools.problem import Problem

DAMPING = 1e-6


@dataclass(frozen=True)
class Projection:
    """What all visits have in common, as long as the instrument stays the same.

    ``filter`` [led or 1, box y, box x]: |P| / (max|P| (|P|² + ε max|P|²)), by which and by P* a correction is
    multiplied; ``peak``: max|P|, with the scale of the transforms.
    """

    forward: ForwardModel
    filter: torch.Tensor
    peak: float

    @classmethod
    def of(cls, forward: ForwardModel, damping: float = DAMPING) -> Projection:
        """``damping``: ε; 1 in the published baseline."""
        size = forward.kernel(0.0)[0].abs()
        # The kernel carries the scale of the FFTs, so ε is relative to max|P|².
        peak, damped = float(size.max()), size.square() + damping * size.max().square()
        return cls(forward, size / (peak * damped), peak)

    def visit(
        self, spectra: torch.Tensor, amplitudes: torch.Tensor, image: int, kernel: torch.Tensor, step: torch.Tensor
    ) -> torch.Tensor:
        """Move spectra [z, H, W], in place, towards the measured amplitude of one image; Σ e² before, [z].

        ``amplitudes`` [image, y, x] are those of all images, ``kernel`` [z, led or 1, box y, box x] that of the LEDs
        that light this one; ``step`` [z] is 1 for the whole way.
        """
        forward, one = self.forward, range(image, image + 1)
        leds, measured = forward.lit(one) or (), amplitudes[image : image + 1]
        own = self.filter if len(self.filter) == 1 else take(self.filter, leds)
        if forward.fields_per_image > 1:  # whose changes add up where their pupils overlap
            own = own * (self.peak**2 / forward.coverage(one).max())
        errors = torch.empty_like(step)

        def work(planes: slice, _: slice) -> None:
            block, own_kernel = spectra[planes], kernel[planes]
            pieces, cost = forward.mismatch(block, measured, one, own_kernel)
            weight = own_kernel.conj() * (own * -step[planes, None, None, None])
            forward.add(block, pieces.mul_(weight), leds)
            errors[planes] = 2 * cost[:, 0]

        forward.in_batches(len(spectra), one, work)
        return errors


def swept(problem: Problem, z_um: Sequence[float], sweeps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Spectra [z, H, W] at these depths after so many sweeps from the first guess on, by ascending NA.

    And the mean squared amplitude error of each image at its last visit, [z, image].
    """
    forward, order = problem.forward, problem.order
    kernels = KeptKernels(forward, z_um)
    projection, spectra = Projection.of(forward), problem.first_guess().repeat(len(z_um), 1, 1)
    step = torch.ones(len(z_um), dtype=forward.real_dtype, device=forward.device)
    errors = step[:, None].repeat(1, len(order))
    for _ in range(sweeps):
        for image in order:
            kernel = kernels(forward.lit([image]) or ())
            errors[:, image] = projection.visit(spectra, problem.amplitudes, image, kernel, step)
    return spectra, errors / forward.counted
