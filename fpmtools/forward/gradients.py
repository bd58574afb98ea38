"""Gradients of a loss with respect to the object and to the numbers of the instrument."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from fpmtools import losses
from fpmtools.errors import OptionError, unknown
from fpmtools.forward.kernel import Parameters
from fpmtools.forward.model import ForwardModel, Leds, Planes
from fpmtools.losses import Loss

WRT = ("object", "pupil", "pupil_map", "gain", "na", "background")


def gradients(
    forward: ForwardModel,
    spectrum: torch.Tensor,
    amplitudes: torch.Tensor,
    z_um: Planes = 0.0,
    images: Leds = None,
    *,
    wrt: Sequence[str] = WRT[:1],
    loss: Loss = losses.amplitude,
    weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss of :meth:`ForwardModel.loss_and_gradient`, and its gradients by name.

    Parameters
    ----------
    wrt
        Any of :data:`WRT`: ``object`` [z, H, W], the spectra; ``pupil`` [mode], its Zernike coefficients in rad;
        ``pupil_map`` [y, x] complex, its residual; ``gain`` [led]; ``na`` [led, (x, y)], which feels the aperture's
        edge only where the pupil is soft; ``background`` [image], in units of ``plan.scale``. Complex ones are in
        PyTorch's convention ∂loss/∂Re + i ∂loss/∂Im.

    Other arguments are those of :meth:`ForwardModel.loss_and_gradient`. Raises :class:`OptionError` for an unknown
    name, and for a pupil without the coefficients or the map that are asked for.
    """
    for name in wrt:
        if name not in WRT:
            raise unknown("gradient", name, WRT)
    images = range(forward.images) if images is None else images
    z = torch.as_tensor(z_um, dtype=forward.real_dtype, device=forward.device).reshape(-1)
    count = len(spectrum) * amplitudes.numel()
    leaves, numbers = _leaves(forward, wrt)
    found: dict[str, torch.Tensor] = {}
    if "object" in wrt:
        found["object"] = torch.zeros_like(spectrum)
    if "background" in wrt:
        found["background"] = torch.zeros(forward.images, dtype=torch.float64, device=forward.device)
    costs = []

    def work(planes: slice, batch: slice) -> None:
        chosen, own_z = images[batch], z[planes] if len(z) > 1 else z
        leds = forward.lit(chosen)
        kernel, part = forward.kernel(own_z, leds), None if weights is None else weights[batch]
        compared = forward.compare(spectrum[planes], amplitudes[batch], chosen, kernel, loss, part)
        change = compared.change / count
        costs.append(compared.cost.sum())
        if "background" in wrt:
            found["background"][list(chosen)] += change.sum((0, 2, 3)).double() / 2
        pieces = forward.to_piece(compared.psi * forward.per_led(change, chosen)) / math.prod(forward.image_shape)
        if leaves:
            _carry_on(forward, numbers.of(leds), pieces * forward.crop(spectrum[planes], leds).conj(), own_z)
        if "object" in wrt:
            forward.add(found["object"][planes], pieces * kernel.conj(), leds)

    forward.in_batches(len(spectrum), images, work)
    for name, leaf in leaves.items():
        found[name] = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    if "na" in leaves:  # from samples (y, x) that the pupil moves by to direction sines (x, y)
        extent = torch.tensor(forward.extent_um, dtype=torch.float64, device=forward.device)
        found["na"] = (found["na"] * extent / forward.optics.wavelength_um).flip(-1)
    return torch.stack(costs).sum() / count, found


def _leaves(forward: ForwardModel, wrt: Sequence[str]) -> tuple[dict[str, torch.Tensor], Parameters]:
    """Fresh leaves of autograd for the numbers of the kernels that are asked for, and all numbers with these."""
    numbers = forward.parameters
    if "pupil" in wrt and not numbers.zernike.numel():
        raise OptionError("the pupil has no Zernike coefficients to take a gradient of")
    if "pupil_map" in wrt and numbers.residual is None:
        raise OptionError("the pupil has no map to take a gradient of")
    if "na" in wrt and not forward.subpixel:
        raise OptionError("LEDs that are rounded to the Fourier grid have no gradient")
    gain = torch.ones(len(forward.na), dtype=torch.float64, device=forward.device)
    of = {
        "na": numbers.offset,
        "gain": gain if numbers.gain is None else numbers.gain,
        "pupil": numbers.zernike,
        "pupil_map": numbers.residual,
    }
    leaves = {
        name: values.detach().clone().requires_grad_()
        for name, values in of.items()
        if name in wrt and values is not None
    }
    return leaves, Parameters(
        leaves.get("na", numbers.offset),
        leaves.get("gain", numbers.gain),
        leaves.get("pupil", numbers.zernike),
        leaves.get("pupil_map", numbers.residual),
    )


def _carry_on(forward: ForwardModel, numbers: Parameters, slopes: torch.Tensor, z: torch.Tensor) -> None:
    """Add to the leaves what ∂loss/∂kernel, ``slopes`` [z, led, box y, box x], means for them."""
    with torch.enable_grad():
        kernels = forward.kernels
        kernel = kernels.at(z.double(), *kernels.evaluate(forward.calibration.pupil, numbers))
    for axis in (0, 1):
        if kernel.shape[axis] == 1:
            slopes = slopes.sum(axis, keepdim=True)
    kernel.backward(slopes.to(kernel.dtype))  # type: ignore[no-untyped-call]
