"""Gradients of a loss with respect to the object and to the numbers of the instrument."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from fpmtools import losses
from fpmtools.errors import OptionError, unknown
from fpmtools.forward.fields import Leds, Planes
from fpmtools.forward.kernel import LARGEST, cubic, interpolate, polynomial, polynomials, powers, stop_passes
from fpmtools.forward.model import ForwardModel
from fpmtools.losses import Loss
from fpmtools.transfer import put, take

WRT = ("object", "pupil", "apodization", "pupil_map", "stop", "gain", "na", "background")


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
        Any of :data:`WRT`: ``object`` [z, H, W], the spectra; ``pupil`` [mode], its Zernike coefficients in rad, and
        ``apodization`` [mode]; ``pupil_map`` [y, x] complex, its residual; ``stop`` [x, y, radius]; ``gain`` [led];
        ``na`` [led, (x, y)], which feels the aperture's edge only where the pupil is soft; ``background`` [image], in
        units of ``plan.scale``.
        Complex ones are in PyTorch's convention ∂loss/∂Re + i ∂loss/∂Im.

    Other arguments are those of :meth:`ForwardModel.loss_and_gradient`. Raises :class:`OptionError` for an unknown
    name, and for a pupil without the coefficients or the map that are asked for.
    """
    for name in wrt:
        if name not in WRT:
            raise unknown("gradient", name, WRT)
    images = range(forward.images) if images is None else images
    z = put(z_um, forward.device, forward.real_dtype).reshape(-1)
    count = len(spectrum) * len(amplitudes) * forward.counted
    flat = not z.any()
    slopes = _Slopes.of(forward, wrt, sorted(set(forward.lit(images) or ())), flat)
    found: dict[str, torch.Tensor] = {}
    if "object" in wrt:
        found["object"] = torch.zeros_like(spectrum)
    if "background" in wrt:
        found["background"] = torch.zeros(forward.images, dtype=torch.float64, device=forward.device)
    costs, samples = [], math.prod(forward.image_shape)

    def work(planes: slice, batch: slice) -> None:
        chosen, own_z = images[batch], z[planes] if len(z) > 1 else z
        leds = forward.lit(chosen)
        kernel, part = forward.kernel(0.0 if flat else own_z, leds), None if weights is None else weights[batch]
        compared = forward.compare(spectrum[planes], amplitudes[batch], chosen, kernel, loss, part)
        change = compared.change.mul_(1 / (count * samples))
        costs.append(compared.cost.sum())
        if "background" in wrt:
            found["background"][list(chosen)] += change.sum((0, 2, 3)).double() * (samples / 2)
        pieces = forward.to_piece(compared.psi.mul_(forward.per_led(change, chosen)))
        through = pieces * kernel.conj()
        if slopes is not None:
            slopes.take(pieces, through, forward.crop(spectrum[planes], leds), own_z, leds)
        if "object" in wrt:
            forward.add(found["object"][planes], through, leds)

    forward.in_batches(len(spectrum), images, work)
    if slopes is not None:
        found |= slopes.mean(wrt)
    return torch.stack(costs).sum() / count, found


@dataclass
class _Slopes:
    """What a loss's slopes by the kernels, K = ``bare`` · residual · exp(i axial z), amount to for all z together.

    All are of the LEDs ``leds``, in ascending order. ``by_map`` [led, box y, box x] complex: ∂loss/∂K · conj(bare ·
    exp(i axial z)), which by the residual is the gradient itself; times its conjugate, the real part is that by log |K|
    and the imaginary one that by arg K. ``by_axial``: the latter times z, for the part of the phase that z multiplies;
    None where all z are 0, or nothing asks for it.
    """

    forward: ForwardModel
    leds: list[int]
    bare: torch.Tensor
    by_map: torch.Tensor
    by_axial: torch.Tensor | None

    @classmethod
    def of(cls, forward: ForwardModel, wrt: Sequence[str], leds: list[int], flat: bool) -> _Slopes | None:
        """Nothing gathered yet; None where no number of the kernels is asked for."""
        numbers, pupil, kernels = forward.parameters, forward.calibration.pupil, forward.kernels
        for name, values in (("pupil", numbers.zernike), ("apodization", numbers.apodization)):
            if name in wrt and not values.numel():
                raise OptionError(f"{name}: there are no Zernike coefficients to take a gradient of")
        if "pupil_map" in wrt and numbers.residual is None:
            raise OptionError("the pupil has no map to take a gradient of")
        if "stop" in wrt and pupil.stop is None:
            raise OptionError("the pupil has no stop to take a gradient of")
        if "na" in wrt and not forward.subpixel:
            raise OptionError("LEDs that are rounded to the Fourier grid have no gradient")
        if not set(wrt) & {"pupil", "apodization", "pupil_map", "stop", "gain", "na"}:
            return None
        bare = kernels.transmission
        if numbers.residual is not None:
            bare = kernels.evaluate(pupil, replace(numbers, residual=None), forward.real_dtype).to(forward.dtype)
        by_map = torch.zeros(len(leds), *forward.box_shape, dtype=forward.dtype, device=forward.device)
        return cls(forward, leds, bare, by_map, torch.zeros_like(by_map.real) if "na" in wrt and not flat else None)

    def take(
        self, pieces: torch.Tensor, through: torch.Tensor, cropped: torch.Tensor, z: torch.Tensor, leds: Leds
    ) -> None:
        """Add what some LEDs' slopes by their fields' spectra, ``pieces`` [z, led, box y, box x], say of their kernels.

        ``through``: the same by the object, after the conjugate kernel; ``cropped``: the object's spectrum there.
        """
        kernels = self.forward.kernels
        place = {led: at for at, led in enumerate(self.leds)}
        index = put([place[led] for led in leds or ()], pieces.device)
        slope = through * cropped.conj()
        if self.by_axial is not None:
            self.by_axial.index_add_(0, index, (slope.imag * z[:, None, None, None]).sum(0))
        if self.bare is not kernels.transmission:
            own = [take(values, None if len(values) == 1 else leds) for values in (self.bare, kernels.axial)]
            slope = pieces * (cropped * kernels.at(z, *own)).conj()
        self.by_map.index_add_(0, index, slope[0] if len(slope) == 1 else slope.sum(0))

    def mean(self, wrt: Sequence[str]) -> dict[str, torch.Tensor]:
        """The gradients by the numbers of the calibration, float64 (the map's complex128)."""
        forward, numbers, pupil = self.forward, self.forward.parameters, self.forward.calibration.pupil
        precision, cutoff = forward.real_dtype, forward.optics.cutoff
        offset = take(numbers.offset, self.leds) if forward.subpixel else numbers.offset
        axes = zip((forward.kernels.ky, forward.kernels.kx), offset.T, forward.extent_um, strict=True)
        f = [((k - own[:, None]) / extent).to(precision) for k, own, extent in axes]
        found: dict[str, torch.Tensor] = {}
        through, maps = self.by_map, []
        if numbers.residual is not None:
            maps = list(zip(f, pupil.step, numbers.residual.shape, strict=True))
            rows, columns = (cubic(own / step, n) for own, step, n in maps)
            through = through * interpolate(numbers.residual, rows, columns).conj()
            if "pupil_map" in wrt:
                pulled = rows.to(forward.dtype).mT @ self.by_map @ columns.to(forward.dtype)
                found["pupil_map"] = pulled.to(torch.complex128).sum(0)
        if "gain" in wrt:
            gain = 1.0 if numbers.gain is None else take(numbers.gain, self.leds)
            found["gain"] = self._of_all(through.real.double().sum((1, 2)) / (2 * gain))
        by_f = torch.zeros(len(through), 2, dtype=torch.float64, device=through.device)
        for name, zernike, slope, own in (
            ("pupil", numbers.zernike, through.imag, pupil.zernike_rad),
            ("apodization", numbers.apodization, through.real, pupil.apodization),
        ):
            if name not in wrt and not ("na" in wrt and own.any()):
                continue
            table = polynomials(zernike)
            if name == "apodization":
                slope = slope * (polynomial(zernike, *(axis.double() / cutoff for axis in f)) < LARGEST)
            y, x = (powers(axis / cutoff, table.shape[1]) for axis in f)
            moments = (y.mT @ slope @ x).double()
            if name in wrt:
                found[name] = torch.tensordot(table, moments.sum(0), dims=2)
            by_f += _by_polynomial(zernike, table, moments) / cutoff
        if pupil.stop is not None and {"stop", "na"} & set(wrt):
            slopes = stop_passes(pupil.stop, *(own.double() / cutoff for own in f))[1]
            by_stop = (slopes * through.real).sum((2, 3))
            if "stop" in wrt:
                found["stop"] = by_stop.sum(1)
            by_f -= by_stop[:2].flip(0).T / cutoff
        if "na" in wrt:
            by_f += self._by_distance(f, through.real)
            if numbers.residual is not None:
                by_f = by_f + self._by_place(numbers.residual, maps)
            by_na = -by_f.flip(1) / forward.optics.wavelength_um  # the pupil moves with the LED, f against it
            found["na"] = self._of_all(by_na)
        return found

    def _of_all(self, values: torch.Tensor) -> torch.Tensor:
        """What is known of :attr:`leds`, [led, ...], of all LEDs of the model: zero for the others."""
        every = values.new_zeros(len(self.forward.na), *values.shape[1:])
        every[self.leds] = values
        return every

    def _by_distance(self, f: Sequence[torch.Tensor], size: torch.Tensor) -> torch.Tensor:
        """By f, [led, (y, x)], what depends on |f| alone: k_z and the soft edge."""
        forward, softness, cutoff = self.forward, self.forward.calibration.pupil.softness, self.forward.optics.cutoff
        square, radial = f[0].square()[:, :, None] + f[1].square()[:, None, :], torch.zeros_like(size)
        if self.by_axial is not None:
            waves = (forward.optics.medium_index / forward.optics.wavelength_um) ** 2
            radial += self.by_axial * (-2 * math.pi) / (waves - square).clamp_min(1e-12 * waves).sqrt()
        if softness:
            width = softness / math.sqrt(math.prod(forward.extent_um))
            r = square.add_(1e-12 * cutoff**2).sqrt_()
            radial -= torch.sigmoid((r - cutoff) / width).mul_(size).div_(r.mul_(width))
        return torch.stack([(radial.sum(2 - axis) * f[axis]).double().sum(1) for axis in (0, 1)], dim=1)

    def _by_place(self, residual: torch.Tensor, maps: Sequence[tuple[torch.Tensor, float, int]]) -> torch.Tensor:
        """By f, [led, (y, x)], what the pupil's map changes."""
        slopes = []
        for axis in (0, 1):
            rows, columns = (cubic(own / step, n, slope=a == axis) for a, (own, step, n) in enumerate(maps))
            change = interpolate(residual, rows, columns) / maps[axis][1]
            slopes.append((self.by_map.conj() * change).real.double().sum((1, 2)))
        return torch.stack(slopes, dim=1)


def _by_polynomial(zernike: torch.Tensor, table: torch.Tensor, moments: torch.Tensor) -> torch.Tensor:
    """By f in units of the cutoff, [led, (y, x)], what a sum of polynomials changes.

    ``moments``: of the slopes by that sum, with the powers of y and x, [led, power of y, power of x].
    """
    factors = torch.tensordot(zernike, table, dims=1)
    n = torch.arange(1, len(factors), dtype=torch.float64, device=factors.device)
    by_y = (factors[1:] * n[:, None] * moments[:, :-1]).sum((1, 2))
    by_x = (factors[:, 1:] * n * moments[:, :, :-1]).sum((1, 2))
    return torch.stack([by_y, by_x], dim=1)
