"""Gradient descent on the object's spectrum, scaled by how often the pupil covers each frequency."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from fpmtools import PlaneStack, Problem, Progress, Solver, option


@dataclass(frozen=True)
class Options:
    """Options of :class:`Wirtinger`."""

    iterations: int = option(100, "Passes over all LEDs", minimum=1)
    step: float = option(1.0, "Step, as a fraction of the largest stable one", minimum=0.01, maximum=1.0)
    damping: float = option(0.1, "Regularises rarely covered frequencies, relative to the best covered", minimum=1e-4)


@dataclass
class State:
    """Where a run is: ``spectra`` [z, y, x], the fixed ``scale`` of each frequency's step, and the steps done."""

    problem: Problem
    spectra: torch.Tensor
    scale: torch.Tensor
    done: int = 0


class Wirtinger(Solver[State]):
    """Minimises ½ (|ψ| − √I)² over the spectrum of each plane (amplitude-based cost of Yeh et al., 2015)."""

    Options = Options
    handles = frozenset({"losses", "masks"})

    def start(self, problem: Problem) -> State:
        """Begin with the image of the most central LED in every plane."""
        forward = problem.forward
        spectra = problem.first_guess().repeat(len(problem.z_um), 1, 1)
        power = forward.kernel(problem.z_um[0]).abs().square() * forward.crop(torch.ones_like(spectra[:1]))
        coverage = forward.add(torch.zeros_like(spectra[:1]), power).real
        # The gradient is a mean over LEDs and pixels, and its transform is not normalised.
        count = problem.amplitudes.numel() * problem.amplitudes[0].numel() * len(problem.z_um)
        return State(problem, spectra, self.options.step * count / (coverage + self.options.damping * coverage.max()))

    def step(self, state: State) -> Progress:
        """One pass over all LEDs."""
        problem = state.problem
        loss, gradient, error = problem.loss_and_gradient(state.spectra, problem.z_um)
        state.spectra -= state.scale * gradient
        state.done += 1
        done = state.done >= self.options.iterations
        return Progress(state.done, self.options.iterations, loss, done, error=error, what=problem.loss_name)

    def result(self, state: State) -> PlaneStack:
        """The planes as they stand."""
        problem = state.problem
        extent_um = problem.forward.extent_um
        return PlaneStack.from_spectra(state.spectra.cpu().numpy(), problem.z_um, problem.output_shape, extent_um)

    def dump(self, state: State) -> dict[str, torch.Tensor]:
        """The spectra as (re, im), and the steps done; the rest follows from the problem."""
        return {"spectra": torch.view_as_real(state.spectra), "done": torch.tensor(state.done)}

    def restore(self, problem: Problem, tensors: Mapping[str, torch.Tensor]) -> State:
        """Inverse of :meth:`dump`."""
        state = self.start(problem)
        state.spectra = torch.view_as_complex(tensors["spectra"].contiguous())
        state.done = int(tensors["done"])
        return state
