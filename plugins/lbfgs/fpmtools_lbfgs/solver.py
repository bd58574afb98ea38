"""Limited-memory BFGS on the object's spectrum: Liu, Nocedal, Math. Program. 45, 503 (1989).

Minimises, for every plane on its own, the mean cost of all images plus ``tv`` times the mean over the object's pixels
of √(|∇o|² + ε²) − ε. The first guess of the inverse Hessian is that of amplitudes with known phases, 1 / Σ w |P|²;
steps start at length 1 and shrink until the value falls as it should (Armijo). All LEDs count in every step, so nothing
is random, and any loss and pattern will do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from fpmtools import PlaneSolver, PlaneState, Problem, Progress, explained, option, quasi_newton

SUFFICIENT = 1e-4  # share of the decrease that the slope promises, which a step must bring
SHORTEST = 1e-4  # length of a step at which a plane is given up
SHRINK = 0.3
SMOOTH = 0.01  # ε: a difference between neighbouring pixels that counts as none, in mean bright-field amplitudes
UNCOVERED = 0.02  # of the largest coverage: less moves as slowly as this


@dataclass(frozen=True)
class Options:
    sweeps: int = option(150, "visits to every LED, at most", minimum=1)
    memory: int = option(8, "pairs of steps and changes of the gradient that are kept", minimum=1, maximum=100)
    tv: float = option(3e-5, "weight of the total variation; 0 where there is no noise", minimum=0)
    start: int = option(
        explained.SWEEPS,
        "sweeps of alternating projection that show what can be explained",
        minimum=1,
    )
    weights: str = option(explained.EQUAL, "what an image counts by", choices=explained.CHOICES)
    stop_below: float = option(
        1e-3, "stop when an iteration lowers the value by less than this share; 0: never", minimum=0, maximum=1
    )


class State(PlaneState):
    inverse: torch.Tensor  # first guess of the inverse Hessian, [z, H, W]
    version: int  # of the forward model that all values are of
    # Of the planes in work:
    weights: torch.Tensor  # [z, image]
    value: torch.Tensor  # [z]; infinite before the first sweep
    gradient: torch.Tensor  # [z, H, W]
    direction: torch.Tensor  # [z, H, W]
    slope: torch.Tensor  # along the direction, [z]
    length: torch.Tensor  # of the step that is tried, [z]
    trial: torch.Tensor  # [z, H, W]
    costs: torch.Tensor  # of the trial, the images of this sweep so far, [z]
    ask: torch.Tensor  # its gradient so far, [z, H, W]
    moving: torch.Tensor  # planes that still gain, [z] bool
    gain: torch.Tensor  # share by which the last iteration lowered the value, [z]
    pending: torch.Tensor  # planes that are tried, their indices
    pairs: quasi_newton.Pairs
    squares: torch.Tensor  # Σ e² of this sweep so far, mean over the planes tried, 0-d
    error: torch.Tensor  # of the last whole sweep, per pixel, 0-d
    sweep: int
    at: int  # images visited in this sweep


class Lbfgs(PlaneSolver[State]):
    """``fpmtools run --solver lbfgs``."""

    Options = Options
    handles = frozenset({"losses", "patterns", "masks"})
    kept = (
        "weights", "spectra", "value", "gradient", "direction", "slope", "length", "trial", "costs", "ask", "moving",
        "gain", "pending", "squares", "error", "sweep", "at",
    )  # fmt: skip

    def start(self, problem: Problem) -> State:
        """The first planes, see :meth:`begin`."""
        forward = problem.forward
        state = State(problem, quasi_newton.planes_at_once(forward.object_shape, self.options.memory, forward.device))
        self.begin(state)
        return state

    def begin(self, state: State) -> None:
        """See :func:`fpmtools.explained.start`; nothing known of the surroundings."""
        problem, options = state.problem, self.options
        begun = explained.start(problem, state.blocks.z_um, options.weights, options.start)
        (state.spectra, state.weights), state.sweep = begun, 0
        state.error = torch.zeros((), dtype=state.problem.forward.real_dtype, device=state.problem.device)
        self._renew(state)

    def _renew(self, state: State) -> None:
        """Forget all that depends on the instrument: the next sweep looks where the spectra are."""
        forward = state.problem.forward
        state.version, state.inverse = forward.version, self._inverse(state)
        planes = torch.ones(len(state.spectra), dtype=forward.real_dtype, device=forward.device)
        state.value, state.slope, state.length, state.costs = planes * torch.inf, planes * 0, planes, planes * 0
        state.trial, state.gradient = state.spectra.clone(), torch.zeros_like(state.spectra)
        state.direction, state.ask = torch.zeros_like(state.spectra), torch.zeros_like(state.spectra)
        state.moving, state.gain = planes > 0, planes.clone()
        state.pairs = quasi_newton.Pairs(self.options.memory)
        state.at, state.squares = 0, torch.zeros_like(state.error)
        state.pending = torch.arange(len(planes), device=forward.device)

    def _inverse(self, state: State) -> torch.Tensor:
        """One over Σ w |P|² over all LEDs, in units of the mean loss, [z, H, W]."""
        problem, forward = state.problem, state.problem.forward
        coverage = forward.coverage(weights=state.weights)
        count = problem.amplitudes.numel() * math.prod(forward.image_shape)
        # What no LED covers stays at zero, whatever the total variation would like there.
        return torch.where(coverage > 0, count / coverage.clamp_min(UNCOVERED * float(coverage.max())), 0)

    def step(self, state: State) -> Progress:
        """Some images, at those planes of the block in work whose next step is not found yet."""
        problem, images = state.problem, len(state.problem.order)
        if state.version != problem.forward.version:
            self._renew(state)
        last = min(state.at + state.blocks.images_per_step(len(state.pending)), images)
        self._gather(state, range(state.at, last))
        state.at = last
        finished = last == images and self._end_sweep(state)
        visits, most = state.sweep * images + state.at, self.options.sweeps * images
        samples, known = problem.amplitudes[0].numel(), state.value.isfinite().all()
        loss = torch.where(known, state.value.mean(), state.costs.mean() / (samples * last))
        error = state.error if state.sweep else state.squares / (samples * last)
        step, total = self.advance(state, visits, most, finished=finished)
        what, at_most = problem.loss_name, self.options.stop_below > 0
        return Progress(step, total, loss, state.blocks.done, at_most, error, what)

    def _gather(self, state: State, images: range) -> None:
        """Add these images' costs, and what they ask for, at the trial."""
        problem, forward, blocks = state.problem, state.problem.forward, state.blocks
        kernel, trial = blocks.kernel(forward.lit(images) or ())[state.pending], state.trial[state.pending]
        chosen = slice(images.start, images.stop)
        measured, weights = problem.amplitudes[chosen], state.weights[state.pending, chosen]
        costs, ask = torch.zeros_like(trial[:, 0, 0].real), torch.zeros_like(trial)

        def work(planes: slice, batch: slice) -> None:
            own_images = images[batch]
            leds = forward.lit(own_images) or ()
            own, counts = forward.part(kernel, planes, images, batch), weights[planes, batch]
            found = forward.compare(trial[planes], measured[batch], own_images, own, problem.loss, counts)
            pieces = forward.to_piece(found.psi.mul_(forward.per_led(found.change, own_images)))
            forward.add(ask[planes], pieces.mul_(own.conj()), leds)
            costs[planes] += found.cost.sum(1)
            error, seen = found.size - measured[batch], forward.seen(own_images)
            state.squares += (error if seen is None else error * seen).square().sum() / len(trial)

        forward.in_batches(len(trial), images, work)
        state.costs[state.pending] += costs
        state.ask[state.pending] += ask

    def _end_sweep(self, state: State) -> bool:
        """Take the steps that lower the value enough, shorten the others; True when the block is finished."""
        count, tried = state.problem.amplitudes.numel(), state.pending
        value = state.costs[tried] / count
        gradient = state.ask[tried] / (count * math.prod(state.problem.forward.image_shape))
        if self.options.tv:
            rough, down = self._variation(state, state.trial[tried])
            value, gradient = value + rough, gradient + down
        limit = state.value[tried] + SUFFICIENT * state.length[tried] * state.slope[tried]
        good = (value <= limit) | state.value[tried].isinf()
        self._take(state, tried[good], value[good], gradient[good])
        bad = tried[~good]
        state.length[bad] *= SHRINK
        stuck = bad[state.length[bad] < SHORTEST]
        state.moving[stuck] = False
        state.pending = bad[state.moving[bad]]
        state.error, state.squares = state.squares / count, torch.zeros_like(state.squares)
        state.sweep, state.at = state.sweep + 1, 0
        state.costs.zero_()
        state.ask.zero_()
        if not len(state.pending) and state.moving.any():
            self._aim(state)
        step = state.length[:, None, None] * state.direction
        state.trial[state.pending] = (state.spectra + step)[state.pending]
        return state.sweep == self.options.sweeps or not state.moving.any()

    def _take(self, state: State, planes: torch.Tensor, value: torch.Tensor, gradient: torch.Tensor) -> None:
        """Go to the trial at these planes; remember the pair of step and change of gradient."""
        state.pairs.fill(planes, state.trial[planes] - state.spectra[planes], gradient - state.gradient[planes])
        gain = 1 - value / state.value[planes]
        state.moving[planes] = ~quasi_newton.quiet(gain, state.gain[planes], self.options.stop_below)
        state.gain[planes] = gain
        state.spectra[planes], state.value[planes], state.gradient[planes] = state.trial[planes], value, gradient

    def _aim(self, state: State) -> None:
        """The next direction, by the two loops over the pairs, and a step of length 1 along it."""
        down = state.pairs.direction(state.gradient, state.inverse)
        gradient = quasi_newton.flat(state.gradient)
        uphill = quasi_newton.dot(gradient, quasi_newton.flat(down)) <= 0
        state.direction = -torch.where(uphill[:, None, None], state.gradient * state.inverse, down)
        state.slope = quasi_newton.dot(gradient, quasi_newton.flat(state.direction))
        state.length = torch.ones_like(state.length)
        state.pending = state.moving.nonzero()[:, 0]
        state.pairs.add(torch.zeros_like(state.spectra), torch.zeros_like(state.spectra))

    def _variation(self, state: State, spectra: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weighted total variation of fields with these spectra [z, H, W], [z], and its gradient [z, H, W]."""
        forward, pixels = state.problem.forward, math.prod(state.problem.forward.object_shape)
        field = forward.field(spectra)
        right, lower = (field.roll(-1, axis) - field for axis in (-1, -2))
        size = (_power(right) + _power(lower) + SMOOTH**2).sqrt()
        right, lower = right / size, lower / size
        slope = right.roll(1, -1) - right + lower.roll(1, -2) - lower
        return self.options.tv * (size - SMOOTH).mean((1, 2)), forward.spectrum(slope) * (self.options.tv / pixels**2)

    def dump(self, state: State) -> dict[str, torch.Tensor]:
        """The pairs besides."""
        return super().dump(state) | state.pairs.dump()

    def restore(self, problem: Problem, tensors: Mapping[str, torch.Tensor]) -> State:
        """Inverse of :meth:`dump`."""
        state = super().restore(problem, tensors)
        state.pairs = quasi_newton.Pairs.restore(self.options.memory, tensors)
        return state


def _power(values: torch.Tensor) -> torch.Tensor:
    return values.real.square() + values.imag.square()
