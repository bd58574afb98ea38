"""Gradient descent on the object's spectrum, scaled by how often the pupil covers each frequency."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fpmtools import PlaneSolver, PlaneState, Problem, Progress, option


@dataclass(frozen=True)
class Options:
    """Options of :class:`Wirtinger`."""

    iterations: int = option(100, "Passes over all LEDs", minimum=1)
    step: float = option(1.0, "Step, as a fraction of the largest stable one", minimum=0.01, maximum=1.0)
    damping: float = option(0.1, "Regularises rarely covered frequencies, relative to the best covered", minimum=1e-4)


class State(PlaneState):
    """Where a run is, besides the ``spectra`` [z, y, x] of the planes in work that every such state has."""

    scale: torch.Tensor  # of each frequency's step, [1, y, x]
    done: int  # steps


class Wirtinger(PlaneSolver[State]):
    """Minimises ½ (|ψ| − √I)² over the spectrum of each plane (amplitude-based cost of Yeh et al., 2015)."""

    Options = Options
    handles = frozenset({"losses", "patterns", "masks"})
    kept = ("spectra", "done")

    def start(self, problem: Problem) -> State:
        """Everything that the first block of planes needs."""
        state = State(problem)
        self.begin(state)
        return state

    def begin(self, state: State) -> None:
        """Begin with the image of the most central LED in every plane of the block."""
        amplitudes, coverage = state.problem.amplitudes, state.problem.forward.coverage()
        state.spectra, state.done = state.blocks.first_guess(), 0
        # The gradient is a mean over planes, LEDs and pixels, and its transform is not normalised.
        count = len(state.spectra) * amplitudes.numel() * amplitudes[0].numel()
        state.scale = self.options.step * count / (coverage + self.options.damping * coverage.max())

    def step(self, state: State) -> Progress:
        """One pass over all LEDs."""
        problem, iterations = state.problem, self.options.iterations
        loss, gradient, error = problem.loss_and_gradient(state.spectra, state.blocks.z_um)
        state.spectra -= state.scale * gradient
        state.done += 1
        step, total = self.advance(state, state.done, iterations, finished=state.done == iterations)
        return Progress(step, total, loss, state.blocks.done, error=error, what=problem.loss_name)
