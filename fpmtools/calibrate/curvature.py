"""How strongly the images feel the numbers of the instrument: the Gauss-Newton matrix of board and pupil."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from fpmtools.calibrate.instrument import FIXED, FREE, MODES, Instrument
from fpmtools.forward import ForwardModel
from fpmtools.forward.kernel import LARGEST, polynomial, polynomials, powers, stop_passes
from fpmtools.sampling import led_shifts

STEP = 0.02  # Fourier pixels, of the differences by which LED positions are told
TINY = 1e-6


def matrix(
    forward: ForwardModel,
    spectrum: torch.Tensor,
    instrument: Instrument,
    z_um: float,
    images: Mapping[int, float],
    groups: Sequence[str],
) -> torch.Tensor:
    """Σ over images and pixels of J Jᵀ, J = ∂amplitude / ∂numbers of ``groups`` (of :data:`FREE`) in their order.

    [number, number] float64. ``images``: their indices, and what each counts. ``forward`` is as ``instrument`` is;
    ``spectrum`` [1, H, W].
    """
    leds = list(images)
    derivatives, kernel = _kernels(forward, z_um, leds, groups), forward.kernel(z_um, leds)[0]
    by_board = instrument.by_board()
    count = sum(FREE[name] for name in groups)
    total = torch.zeros(count, count, dtype=torch.float64)
    for at, (led, weight) in enumerate(images.items()):
        piece = forward.crop(spectrum, [led])[0]
        psi = forward.to_image(piece * kernel[at])[0]
        change = forward.to_image(piece * torch.stack([own[at] for own in derivatives]))
        size = forward.sizes(psi[None, None], [led])[0, 0].clamp_min(TINY)
        slopes = (change * psi.conj()).real / size
        seen = forward.seen([led])
        slopes = (slopes if seen is None else slopes * seen).flatten(1)
        gram = weight * (slopes @ slopes.T).double()
        parts = [by_board[led] if name == "board" else torch.eye(FREE[name], dtype=torch.float64) for name in groups]
        chain: torch.Tensor = torch.block_diag(*parts)  # type: ignore[no-untyped-call]
        total += chain.T @ gram @ chain
    return total


def _kernels(forward: ForwardModel, z_um: float, leds: list[int], groups: Sequence[str]) -> list[torch.Tensor]:
    """Derivatives of these LEDs' kernels [led, box y, box x] by the free numbers of each group; of the board's LEDs by
    na_x and na_y."""
    every, cutoff, kernel = forward.parameters, forward.optics.cutoff, forward.kernel(z_um, leds)[0]
    numbers = replace(every, offset=every.offset[leds], gain=None if every.gain is None else every.gain[leds])

    def by_modes(name: str) -> list[torch.Tensor]:
        axes = zip((forward.kernels.ky, forward.kernels.kx), numbers.offset.T, forward.extent_um, strict=True)
        table = polynomials(torch.zeros(MODES[name], dtype=torch.float64))
        at = [(k - own[:, None]) / extent / cutoff for k, own, extent in axes]
        y, x = (powers(own, table.shape[1]) for own in at)
        changed = 1j * kernel if name == "pupil" else kernel * (polynomial(every.apodization, *at) < LARGEST)
        return [(y @ mode @ x.mT).to(forward.real_dtype) * changed for mode in table[FIXED[name] :]]

    def by_na() -> list[torch.Tensor]:
        z, found = torch.as_tensor([z_um], dtype=forward.real_dtype), []
        pupil = forward.calibration.pupil
        for axis in (0, 1):
            there = []
            for step in (STEP, -STEP):
                moved = numbers.offset.clone()
                moved[:, 1 - axis] += step
                transmission = forward.kernels.evaluate(pupil, replace(numbers, offset=moved), forward.real_dtype)
                there.append(forward.kernels.at(z, transmission.to(forward.dtype), forward.kernels.axial_at(moved))[0])
            by_sample = (there[0] - there[1]) / (2 * STEP)
            per_na = led_shifts(forward.optics, torch.eye(2).double().numpy(), forward.extent_um)[axis, 1 - axis]
            found.append(by_sample * per_na)
        return found

    def by_stop() -> list[torch.Tensor]:
        axes = zip((forward.kernels.ky, forward.kernels.kx), numbers.offset.T, forward.extent_um, strict=True)
        y, x = ((k - own[:, None]) / extent / cutoff for k, own, extent in axes)
        stop = forward.calibration.pupil.stop
        assert stop is not None
        by_x, by_y, by_radius = (slope.to(forward.real_dtype) * kernel for slope in stop_passes(stop, y, x)[1])
        return [by_x, by_y, -by_radius]

    of = {"board": by_na, "vignetting": by_stop}
    return [kernel for name in groups for kernel in (of[name]() if name in of else by_modes(name))]
