"""
A solver of one's own in 30 lines
=================================

Gradient descent on the object's spectrum. fpmtools gives images, forward model, gradient, loop, files and numbers; a
solver says how to step. As a package of its own it is known by name to every command: :doc:`/writing-a-solver`.
"""

from dataclasses import dataclass

import fpmtools
from fpmtools import PlaneSolver, PlaneState, Progress, option


@dataclass(frozen=True)
class Options:
    iterations: int = option(60, "passes over all LEDs", minimum=1)
    damping: float = option(0.1, "of frequencies that few LEDs see, relative to the best seen", minimum=1e-4)


class Descent(PlaneSolver[PlaneState]):
    Options = Options
    kept = ("spectra", "done")

    def start(self, problem):
        state = PlaneState(problem)
        self.begin(state)
        return state

    def begin(self, state):
        amplitudes, coverage = state.problem.amplitudes, state.problem.forward.coverage()
        state.spectra, state.done = state.blocks.first_guess(), 0
        # The gradient is a mean over planes, images and pixels; this makes the step a Newton step.
        count = len(state.spectra) * amplitudes.numel() * amplitudes[0].numel()
        state.scale = count / (coverage + self.options.damping * coverage.max())

    def step(self, state):
        loss, gradient, error = state.problem.loss_and_gradient(state.spectra, state.blocks.z_um)
        state.spectra -= state.scale * gradient
        state.done += 1
        most = self.options.iterations
        step, total = self.advance(state, state.done, most, finished=state.done == most)
        return Progress(step, total, loss, state.blocks.done, error=error)


# %%
# It goes wherever the name of a solver goes:

data = fpmtools.simulate("thin", image_shape=(64, 80), leds="grid", upsample=3)
result = fpmtools.reconstruct(data, Descent(Options(iterations=60)), z_um=0)
axes = result.plot()

# %%
# and is measured as all others are:

fpmtools.evaluate(result, data, ["psnr", "ssim"])
