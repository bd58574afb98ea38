"""Embedded pupil function recovery: Ou, Zheng, Yang, Opt. Express 22, 4960 (2014).

LED by LED, in ascending order of NA, both factors of the estimated spectrum Ψ = P O_i take their share of what the
measured amplitude asks for, Ψ' being the spectrum of the same image with that amplitude:

    O_i ← O_i + s P* (Ψ' − Ψ) / max|P|²,   P ← P + t O_i* (Ψ' − Ψ) / max|O_i|².

The pupil's update, as published, is that of the preset ``paper``. Where the undiffracted wave is strong it moves little
but the place which that wave passes, and ends in wrong pupils of many waves' worth of freedom. So by default the pupil
is held to Zernike modes, whose coefficients go along the same gradient by Adam (Kingma & Ba, arXiv:1412.6980).

Steps are halved when a sweep gains little, so that noise is averaged (Zuo, Sun, Chen, Opt. Express 24, 20724, 2016).
P is the instrument's pupil as it is known, with the defocus of each plane, times a factor that is found, one for all
planes. The factor is smooth, so an LED off the Fourier grid sees it interpolated between samples. Where several LEDs
light an image the changes of the pupil are added, and |P|² and |O_i|² are sums over the LEDs as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from fpmtools import Calibration, PlaneSolver, PlaneStack, PlaneState, Problem, Progress, Pupil, option, take

SMALLEST = 2.0**-7  # share of the first step at which nothing is left to gain
UNSEEN = 3  # modes that no image can tell: piston, and tilts, which move the object
BETAS = (0.9, 0.99)


@dataclass(frozen=True)
class Options:
    sweeps: int = option(60, "visits to every LED, at most", minimum=1)
    step: float = option(1.0, "s, first step size of the object", minimum=1e-3, maximum=2)
    modes: int = option(
        21, "Zernike modes that the pupil is held to, in Noll's order from piston on; 0: free pixels", minimum=0,
        maximum=66,
    )  # fmt: skip
    mode_step: float = option(0.02, "first step size of their coefficients", unit="rad", minimum=0, maximum=1)
    pupil_step: float = option(1.0, "t, first step size of the pupil's free pixels", minimum=0, maximum=2)
    pupil_from: int = option(1, "sweeps before the pupil moves", minimum=0)
    halve_from: int = option(8, "sweeps before steps are halved", minimum=0)
    halve_below: float = option(
        0.05, "halve the steps when the error falls by less than this share in a sweep; 0: never", minimum=0,
        maximum=1,
    )  # fmt: skip


class State(PlaneState):
    rows: torch.Tensor  # [led or 1, box y, box y]: rows of the pupil's factor as an LED's samples see them
    columns: torch.Tensor  # [led or 1, box x, box x]
    basis: torch.Tensor  # Zernike modes, [mode, box y, box x]
    factor: torch.Tensor  # of the pupil, [box y, box x]
    modes: torch.Tensor  # coefficients in rad, Adam's first and second moment, and its steps, [4, mode] float64
    # Of the planes in work:
    step: torch.Tensor  # 0-d, relative to the first
    errors: torch.Tensor  # Σ e² of every image at its last visit, [image]
    last_error: torch.Tensor  # of the whole sweep before, 0-d
    sweep: int
    at: int  # LEDs visited in this sweep


class Epry(PlaneSolver[State]):
    """``fpmtools run --solver epry``."""

    Options = Options
    handles = frozenset({"patterns", "masks"})
    kept = ("spectra", "factor", "modes", "step", "errors", "last_error", "sweep", "at")
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "paper": {"sweeps": 20, "modes": 0, "pupil_from": 0, "halve_below": 0.0}
    }

    def start(self, problem: Problem) -> State:
        """Every plane starts from the amplitude of the LED nearest to the axis, the pupil from what is known of it."""
        forward, state = problem.forward, State(problem)
        (h, w), (y, x) = forward.box_shape, forward.parameters.offset.T
        state.rows, state.columns = _between(y, h).to(forward.dtype), _between(x, w).to(forward.dtype)
        state.basis = _basis(problem, self.options.modes)
        state.factor = torch.ones(forward.box_shape, dtype=forward.dtype, device=forward.device)
        state.modes = torch.zeros(4, len(state.basis), dtype=torch.float64, device=forward.device)
        self.begin(state)
        return state

    def begin(self, state: State) -> None:
        """Every plane at the first guess; the pupil goes on as it was."""
        state.spectra = state.blocks.first_guess()
        one = torch.ones((), dtype=state.problem.forward.real_dtype, device=state.problem.device)
        state.step, state.errors, state.last_error = one, one.repeat(len(state.problem.order)) * 0, one * torch.inf
        state.sweep, state.at = 0, 0

    def step(self, state: State) -> Progress:
        """One LED, at all planes of the block in work."""
        problem, sweeps, leds = state.problem, self.options.sweeps, len(state.problem.order)
        self._visit(state, problem.order[state.at])
        state.at += 1
        seen = len(state.spectra) * (leds if state.sweep else state.at) * problem.forward.counted
        error = state.errors.sum() / seen
        finished = state.at == leds and self._end_sweep(state)
        step, total = self.advance(state, state.sweep * leds + state.at, sweeps * leds, finished=finished)
        at_most = self.options.halve_below > 0
        return Progress(step, total, error / 2, state.blocks.done, at_most, error, "amplitude loss")

    def _visit(self, state: State, image: int) -> None:
        """Move every plane's spectrum, and the pupil, towards the measured amplitude of one image."""
        forward, options, spectra = state.problem.forward, self.options, state.spectra
        leds, measured = list(forward.lit([image]) or ()), state.problem.amplitudes[image : image + 1]
        rows, columns = (take(each, leds) if len(each) > 1 else each for each in (state.rows, state.columns))
        known = state.blocks.kernel(leds)
        kernel = known * (rows @ state.factor @ columns.mT)
        power = _power(kernel[0])
        most = (power if forward.fields_per_image == 1 else forward.coverage([image], power=power)).max()
        share = options.step * state.step / most
        weight = forward.per_led(state.step.new_ones(1, 1, 1, 1), [image])
        ask, peak = state.factor.new_zeros(len(leds), *forward.box_shape), torch.zeros_like(state.step)
        state.errors[image] = 0

        def work(planes: slice, _: slice) -> None:
            pieces, cost = forward.mismatch(spectra[planes], measured, [image], kernel[planes])
            seen = forward.crop(spectra[planes], leds) * known[planes]
            ask.sub_((seen.conj() * pieces).sum(0))
            peak.add_((weight * _power(seen)).sum(1).amax((1, 2)).sum())
            forward.add(spectra[planes], pieces.mul_(kernel[planes].conj() * -share), leds)
            state.errors[image] += 2 * cost.sum()

        forward.in_batches(len(spectra), [image], work)
        if state.sweep >= options.pupil_from:
            ask = (rows.mT @ ask @ columns).sum(0)
            if options.modes:
                self._move_modes(state, ask)
            else:
                state.factor += ask * (options.pupil_step * state.step / peak)

    def _move_modes(self, state: State, ask: torch.Tensor) -> None:
        """One step of Adam along what the pupil's samples ask for, [box y, box x], turned into phases."""
        turn = (state.factor.conj() * ask).imag
        # Down is where the error falls: the other way than what is asked for.
        gradient = -torch.tensordot(state.basis, turn, dims=2).double()
        coefficients, mean, square, count = state.modes
        mean.lerp_(gradient, 1 - BETAS[0])
        square.lerp_(gradient.square(), 1 - BETAS[1])
        count += 1
        scale = (square / (1 - BETAS[1] ** count)).sqrt() + 1e-30
        coefficients -= self.options.mode_step * state.step * mean / (1 - BETAS[0] ** count) / scale
        phase = torch.tensordot(coefficients.to(state.basis.dtype), state.basis, dims=1)
        state.factor = torch.complex(phase.cos(), phase.sin())

    def _end_sweep(self, state: State) -> bool:
        """Smaller steps where little was gained; True when the block is finished."""
        error, limit = state.errors.sum(), (1 - self.options.halve_below) * state.last_error
        if self.options.halve_below and state.sweep >= self.options.halve_from and error > limit:
            state.step = state.step / 2
        state.last_error = error
        state.sweep, state.at = state.sweep + 1, 0
        return state.sweep == self.options.sweeps or bool(state.step < SMALLEST)

    def result(self, state: State) -> PlaneStack:
        """All planes; the pupil is in their calibration."""
        stack = super().result(state)
        if (state.factor != 1).any():
            stack.calibration = self._calibration(state)
        return stack

    def _calibration(self, state: State) -> Calibration:
        """The problem's calibration with the pupil that was found."""
        known, forward = state.problem.calibration, state.problem.forward
        pupil, found = known.pupil, {**known.found, "pupil": {"how": "epry"}}
        if self.options.modes:
            mine = state.modes[0].cpu().numpy()
            total = np.zeros(max(len(mine), len(pupil.zernike_rad)))
            total[: len(mine)] += mine
            total[: len(pupil.zernike_rad)] += pupil.zernike_rad
            return replace(known, pupil=replace(pupil, zernike_rad=total), found=found)
        step = (1 / forward.extent_um[0], 1 / forward.extent_um[1])
        factor = state.factor.cpu().numpy().astype(np.complex128)
        return replace(known, pupil=pupil.times(factor, step), found=found)


def _power(values: torch.Tensor) -> torch.Tensor:
    return values.real.square() + values.imag.square()


def _between(offset: torch.Tensor, count: int) -> torch.Tensor:
    """Matrices [led, position, sample] that interpolate ``count`` samples linearly at k − ``offset`` [led]."""
    at = (torch.arange(count, device=offset.device) - offset[:, None]).clamp(0, count - 1)
    distance = at[:, :, None] - torch.arange(count, device=offset.device)
    return (1 - distance.abs()).clamp_min(0)


def _basis(problem: Problem, modes: int) -> torch.Tensor:
    """Zernike modes [mode, box y, box x] on the pupil box; beyond the aperture they go on as at its edge."""
    forward = problem.forward
    ky, kx = forward.box_frequencies
    y, x = np.meshgrid(ky / forward.optics.cutoff, kx / forward.optics.cutoff, indexing="ij")
    inside = 1 / np.maximum(np.hypot(y, x), 1)
    basis = Pupil.modes(modes, y * inside, x * inside)
    # In a stack the planes say where the focus is.
    basis[: UNSEEN + (len(problem.z_um) > 1)] = 0
    return torch.from_numpy(basis).to(forward.real_dtype).to(forward.device)
