"""The alternating direction method of multipliers for Fourier ptychography: Wang et al., Cells 11, 1512 (2022).

Each image has a wave Z_i of its own that agrees with its measured amplitude A_i as far as it agrees with the object's,
and a multiplier u_i, on which their difference adds up. In turn, for all LEDs alike, whatever their order,

    v_i = ψ_i + u_i,   |Z_i| = (A_i + μ |v_i|) / (1 + μ) with the phase of v_i,   u_i ← v_i − Z_i,
    O = (Σ P_i* F(Z_i − u_i) + ρ D(O)) / (Σ |P_i|² + ρ),

ψ_i the object's wave under LED i and P_i its pupil. The last line is the object in closed form. Where several LEDs
light an image each has a wave, |v_i|² is the sum Σ w |v|² over them, and their sums count with the same weights w. D
is a denoiser of choice, by which any picture of what objects look like may come in; without one, ρ only holds back
what few LEDs see. Multipliers are kept on the pupil, where the object can answer them. One object per z-plane.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fpmtools import PlaneSolver, PlaneState, Problem, Progress, option

ROOM = 1 << 25  # complex samples that the multipliers of the planes in work may take

Denoiser = Callable[[NDArray[Any], float], NDArray[Any]]  # of [y, x, (re, im)], float32


def total_variation(image: NDArray[Any], strength: float) -> NDArray[Any]:
    """Least total variation of both parts together (Chambolle, J. Math. Imaging Vis. 20, 89, 2004)."""
    from skimage.restoration import denoise_tv_chambolle

    found = denoise_tv_chambolle(image, weight=strength, max_num_iter=20, channel_axis=-1)  # type: ignore[no-untyped-call]
    return np.asarray(found)


def non_local_means(image: NDArray[Any], strength: float) -> NDArray[Any]:
    """Means over places that look alike (Buades, Coll, Morel, CVPR 2005)."""
    from skimage.restoration import denoise_nl_means

    fast = {"patch_size": 5, "patch_distance": 6, "fast_mode": True}
    return np.asarray(denoise_nl_means(image, h=strength, channel_axis=-1, **fast))


def median(image: NDArray[Any], strength: float) -> NDArray[Any]:
    """Medians of 3 × 3 pixels, by the share ``strength``, at most 1."""
    from scipy.ndimage import median_filter

    middle = median_filter(image, size=(3, 3, 1), mode="wrap")
    return np.asarray(image + min(strength, 1.0) * (middle - image))


DENOISERS: dict[str, Denoiser] = {"tv": total_variation, "nl-means": non_local_means, "median": median}


@dataclass(frozen=True)
class Options:
    sweeps: int = option(150, "visits to every LED, at most", minimum=1)
    penalty: float = option(0.5, "μ: how closely the images' waves keep to the object's", minimum=1e-3, maximum=1e3)
    prior: float = option(0.01, "ρ, as a share of the largest Σ |P|²", minimum=0, maximum=1)
    denoiser: str = option("none", "D", choices=("none", *DENOISERS))
    strength: float = option(0.02, "of the denoiser, in mean bright-field amplitudes", minimum=0, maximum=10)
    stop_below: float = option(
        5e-4, "stop when a sweep lowers the error by less than this share; 0: never", minimum=0, maximum=1
    )


class State(PlaneState):
    coverage: torch.Tensor  # Σ |P|², [1, H, W]
    version: int = -1  # of the forward model that it is of
    # Of the planes in work:
    multipliers: torch.Tensor  # spectra of u on the pupil, [z, led, box y, box x]
    answer: torch.Tensor  # Σ P* F(Z − u) of this sweep's LEDs so far, [z, H, W]
    errors: torch.Tensor  # Σ e² of this sweep's LEDs so far, 0-d
    last_error: torch.Tensor  # of the whole sweep before, 0-d
    sweep: int
    at: int  # LEDs visited in this sweep


class Admm(PlaneSolver[State]):
    """``fpmtools run --solver admm``."""

    Options = Options
    handles = frozenset({"patterns", "masks"})
    kept = ("spectra", "multipliers", "answer", "errors", "last_error", "sweep", "at")

    def start(self, problem: Problem) -> State:
        """Every plane starts from the amplitude of the LED nearest to the axis."""
        state = State(problem, ROOM // math.prod(self._waves(problem)))
        self.begin(state)
        return state

    def begin(self, state: State) -> None:
        """Every plane at the first guess, with multipliers of zero."""
        forward = state.problem.forward
        state.spectra = state.blocks.first_guess()
        shape = (len(state.spectra), *self._waves(state.problem))
        state.multipliers = torch.zeros(shape, dtype=forward.dtype, device=forward.device)
        state.answer = torch.zeros_like(state.spectra)
        zero = torch.zeros((), dtype=forward.real_dtype, device=forward.device)
        state.errors, state.last_error, state.sweep, state.at = zero, zero + torch.inf, 0, 0

    def _waves(self, problem: Problem) -> tuple[int, ...]:
        """Number and size of the waves: an LED has one in every image that it lights."""
        forward = problem.forward
        return len(forward.lit(range(forward.images)) or ()), *forward.box_shape

    def step(self, state: State) -> Progress:
        """Some LEDs, at all planes of the block in work."""
        problem, forward, leds = state.problem, state.problem.forward, len(state.problem.order)
        if state.version != forward.version:
            state.coverage, state.version = forward.coverage(), forward.version
        last = min(state.at + state.blocks.images_per_step(len(state.spectra)), leds)
        self._gather(state, range(state.at, last))
        state.at = last
        error = state.errors / (len(state.spectra) * last * problem.amplitudes[0].numel())
        finished = last == leds and self._end_sweep(state)
        visits, most = state.sweep * leds + state.at, self.options.sweeps * leds
        step, total = self.advance(state, visits, most, finished=finished)
        at_most = self.options.stop_below > 0
        return Progress(step, total, error / 2, state.blocks.done, at_most, error, "amplitude loss")

    def _gather(self, state: State, images: range) -> None:
        """New waves and multipliers of these images, and what they say of the object."""
        forward, measured, everything = state.problem.forward, state.problem.amplitudes, range(len(state.problem.order))
        kernel, penalty = state.blocks.kernel(forward.lit(images) or ()), self.options.penalty

        def work(planes: slice, batch: slice) -> None:
            chosen = images[batch]
            kept, leds = slice(chosen.start, chosen.stop), forward.lit(chosen) or ()
            own, multipliers = forward.part(kernel, planes, images, batch), state.multipliers[planes]
            multipliers = forward.part(multipliers, slice(None), everything, kept)
            wave = forward.crop(state.spectra[planes], leds) * own
            error, seen = forward.sizes(forward.to_image(wave), chosen) - measured[kept], forward.seen(chosen)
            state.errors += (error if seen is None else error * seen).square().sum()
            wave += multipliers
            image = forward.to_image(wave)
            size = forward.sizes(image, chosen)
            # Z = v + (A − |v|) / (1 + μ) · v / |v|
            ratio = (measured[kept] - size) / ((1 + penalty) * size.clamp_min(1e-12))
            if seen is not None:  # elsewhere Z = v
                ratio *= seen
            weight = forward.per_led(torch.ones_like(size[:1, :, :1, :1]), chosen)
            change = forward.to_piece(image.mul_(forward.per_led(ratio, chosen) / weight))
            multipliers.copy_(-change)
            forward.add(state.answer[planes], own.conj() * weight * (wave + 2 * change), leds)

        forward.in_batches(len(state.spectra), images, work)

    def _end_sweep(self, state: State) -> bool:
        """The object in closed form; True when the block is finished."""
        prior = self.options.prior * state.coverage.max()
        pull = self._denoised(state) if self.options.denoiser != "none" else state.spectra
        found = (state.answer + prior * pull) / (state.coverage + prior).clamp_min(1e-30)
        # What no LED covers stays at zero, whatever the denoiser would like there.
        state.spectra = torch.where(state.coverage > 0, found, 0)
        state.answer.zero_()
        settled = state.errors > (1 - self.options.stop_below) * state.last_error
        state.last_error, state.errors = state.errors, torch.zeros_like(state.errors)
        state.sweep, state.at = state.sweep + 1, 0
        return state.sweep == self.options.sweeps or (self.options.stop_below > 0 and bool(settled))

    def _denoised(self, state: State) -> torch.Tensor:
        """Spectra [z, H, W] of the denoised fields."""
        forward, denoise = state.problem.forward, DENOISERS[self.options.denoiser]
        parts = torch.view_as_real(forward.field(state.spectra)).cpu().numpy()
        clean = np.stack([denoise(plane, self.options.strength) for plane in parts]).astype(parts.dtype)
        return forward.spectrum(torch.view_as_complex(torch.from_numpy(clean).to(forward.device)))
