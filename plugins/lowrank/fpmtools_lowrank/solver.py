"""Amplitude and phase of low rank over z, fitted to the images of all depths at once; no network.

Amplitude 1 + Σ u_r(z) a_r(x, y) and phase Σ u_r(z) p_r(x, y), or real and imaginary part, u_r being cubic B-splines.
It is FPM-INR (Zhou, Feng et al., Optica 10, 1679, 2023, doi:10.1364/OPTICA.505283) with its decoder taken away: what is
left is a factorisation with more terms than the splines have coefficients, which under gradient descent prefers few
strong ones (Gunasekar et al., arXiv:1705.09280). See docs/lowrank.md for what that is worth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import BSpline

from fpmtools import Adam, PlaneStack, Problem, Progress, Solver, explained, one_cycle, option, put, take

GOLDEN = (5**0.5 - 1) / 2  # multiples of it, modulo 1, are spread evenly however many they are
CUBIC = 3


@dataclass(frozen=True)
class Options:
    terms: int | None = option(None, "terms of the sum; none: 64 in 3-D, 16 in 2-D", minimum=1)
    splines: int | None = option(
        None, "cubic B-splines in z; none: one for every two recovered depths of field, and one", minimum=1
    )
    parts: str = option("polar", "what is a sum of terms", choices=("polar", "cartesian"))
    detail: float | None = option(
        None, "pixels of V per object pixel along each axis, interpolated; none: √(NA / half the synthetic NA), "
        "at most in 3-D, 1 in 2-D", minimum=0.1, maximum=1,
    )  # fmt: skip
    steps: int = option(600, "steps, each at one depth", minimum=1)
    led_batch: int = option(12, "LEDs per step", minimum=1)
    lr: float = option(0.003, "Adam's highest step size", minimum=1e-6, maximum=1)
    map_lr: float | None = option(
        None, "that of V(x, y) as a multiple of lr; none: 5 in 3-D, 20 in 2-D", minimum=0.01, maximum=1000
    )
    weights: str = option(explained.EXPLAINED, "what an image counts by", choices=explained.CHOICES)
    start: float = option(2e-4, "standard deviation of V(x, y) before the first step", minimum=0)


@dataclass
class State:
    problem: Problem
    # V as "maps" [y, x, term]; u as "axial" [spline, term], coefficients of B-splines in z; "mix" [term, 2], how much
    # each term has of the two parts; "offset" [2].
    unknowns: dict[str, torch.nn.Parameter]
    adam: Adam
    support: torch.Tensor  # [H, W] bool, the synthetic aperture
    weights: torch.Tensor  # [image]
    first: float  # where in the range the first depth is, 0 … 1
    count: int = 0


class LowRank(Solver[State]):
    """``fpmtools run --solver lowrank``."""

    Options = Options
    handles = frozenset({"losses", "patterns", "masks"})

    def start(self, problem: Problem) -> State:
        """Near the clear sample: small random V; u ~ N(0, 1) may change sign with z."""
        options, forward = self.options, problem.forward
        deep = problem.z_range[1] > problem.z_range[0]
        terms, detail = options.terms or (64 if deep else 16), options.detail or self._carried(problem)
        generator = problem.generator()

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, dtype=forward.real_dtype)

        drawn = {
            "maps": normal(*(max(2, round(n * detail)) for n in forward.object_shape), terms) * options.start,
            "axial": normal(self._splines(problem), terms),
            "mix": normal(terms, 2) / math.sqrt(terms),
            "offset": torch.zeros(2, dtype=forward.real_dtype),
        }
        unknowns = {name: torch.nn.Parameter(values.to(forward.device)) for name, values in drawn.items()}
        others = [value for name, value in unknowns.items() if name != "maps"]
        adam = Adam([([unknowns["maps"]], options.map_lr or (5.0 if deep else 20.0)), (others, 1.0)])
        weights = torch.ones_like(problem.amplitudes[:, 0, 0])
        if options.weights == explained.EXPLAINED:
            weights = explained.Look.of(problem).weights()
        support = put(forward.synthetic_support(), forward.device)
        first = float(torch.rand((), generator=problem.generator()))
        return State(problem, unknowns, adam, support, weights, first)

    def _carried(self, problem: Problem) -> float:
        """Share of the synthetic aperture's detail: with depth, images are explained less well towards its edge."""
        optics, (low, high) = problem.forward.optics, problem.z_range
        share = math.sqrt(2 * optics.na / optics.synthetic_na(problem.forward.na))
        return min(1.0, share) if high > low else 1.0

    def _splines(self, problem: Problem) -> int:
        forward, (low, high) = problem.forward, problem.z_range
        if low == high:
            return 1
        depth = forward.optics.recovered_depth_of_field_um(forward.na) / self._carried(problem) ** 2
        return self.options.splines or max(CUBIC + 1, math.ceil((high - low) / (2 * depth)) + 1)

    def step(self, state: State) -> Progress:
        """One batch of LEDs at one depth, far from those of the steps before."""
        problem, options, (low, high) = state.problem, self.options, state.problem.z_range
        z_um = low + (high - low) * ((state.first + state.count * GOLDEN) % 1)
        leds = problem.led_batch(state.count, options.led_batch)
        spectrum = self._spectra(state, [z_um])
        found = problem.loss_and_gradient(spectrum.detach(), z_um, leds, weights=take(state.weights, leds))
        torch.autograd.backward(spectrum, found.gradient)
        state.adam.step(options.lr * one_cycle(state.count, options.steps))
        state.count += 1
        done = state.count >= options.steps
        return Progress(state.count, options.steps, found.loss, done, error=found.error, what=problem.loss_name)

    def _spectra(self, state: State, z_um: Sequence[float]) -> torch.Tensor:
        """Centred spectra [z, H, W]."""
        maps, axial, mix, offset = state.unknowns.values()
        splines = put(_splines_at(z_um, state.problem.z_range, len(axial)), axial.device, axial.dtype)
        terms = (splines @ axial)[:, :, None] * mix
        parts, shape = (maps @ terms.unsqueeze(1) + offset).movedim(-1, 1), state.problem.forward.object_shape
        if parts.shape[2:] != shape:
            parts = torch.nn.functional.interpolate(parts, shape, mode="bilinear", align_corners=False)
        one, other = parts.unbind(1)
        if self.options.parts == "cartesian":
            field = torch.complex(1 + one, other)
        else:
            field = torch.polar(torch.ones_like(other), other) * (1 + one)
        return state.problem.forward.spectrum(field) * state.support

    @torch.no_grad()
    def result(self, state: State) -> PlaneStack:
        """Planes at the depths that were asked for, and between them as many as the splines can tell apart."""
        problem, (low, high) = state.problem, state.problem.z_range
        gap = (high - low) / (2 * len(state.unknowns["axial"]))
        z_um = [low]
        for lower, upper in zip(problem.z_um, problem.z_um[1:], strict=False):
            z_um += np.linspace(lower, upper, math.ceil((upper - lower) / gap - 1e-9) + 1)[1:].tolist()
        spectra = (self._spectra(state, [z])[0].cpu().numpy() for z in z_um)
        return PlaneStack.from_spectra(spectra, tuple(z_um), problem.output_shape, problem.forward.extent_um)

    def dump(self, state: State) -> dict[str, torch.Tensor]:
        """What is fitted, Adam's moments and the number of steps."""
        return {**state.unknowns, **state.adam.dump(), "count": torch.tensor(state.count)}

    def restore(self, problem: Problem, tensors: Mapping[str, torch.Tensor]) -> State:
        """Inverse of :meth:`dump`."""
        state = self.start(problem)
        with torch.no_grad():
            for name, value in state.unknowns.items():
                value.copy_(tensors[name])
        state.adam.restore(tensors)
        state.count = int(tensors["count"])
        return state


def _splines_at(z_um: Sequence[float], z_range: tuple[float, float], count: int) -> torch.Tensor:
    """Values of ``count`` B-splines over the range, [z, spline], cubic where there are four or more."""
    low, high = z_range
    if count == 1:
        return torch.ones(len(z_um), 1, dtype=torch.float64)
    degree = min(CUBIC, count - 1)
    knots = np.concatenate([[low] * degree, np.linspace(low, high, count - degree + 1), [high] * degree])
    return torch.from_numpy(BSpline.design_matrix(np.clip(z_um, low, high), knots, degree).toarray())
