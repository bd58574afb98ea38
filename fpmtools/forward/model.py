"""The physical forward model: object field → low-resolution amplitudes, and losses with their gradients.

Image i at defocus z is √(Σ_l w_il g_l |ψ_l|² + b_i + s_i) with ψ_l = F⁻¹{ O(f + na_l/λ) · P(f) · exp(+i k_z(f) z) }, O
the spectrum of the object, P the pupil, g_l the gain of LED l, w_il the pattern that lights image i (usually LED i
alone), b_i its background and s_i stray light that differs over the field (Zheng et al., Nat. Photonics 7, 739, 2013;
Tian et al., Biomed. Opt. Express 5, 2376, 2014; Zhou et al., Optica 10, 1679, 2023, eq. 1-2). With a *sub-pixel* shift,
the spectrum is cropped at the nearest grid frequency and P and k_z are evaluated at the remaining offset; this is
exact, because a shifted low-resolution spectrum is the same image times a plane wave, and amplitudes ignore that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from fpmtools import losses
from fpmtools.calibration import Calibration
from fpmtools.forward import batches
from fpmtools.forward.fields import Fields, Leds, Planes
from fpmtools.losses import Loss
from fpmtools.optics import Optics
from fpmtools.sampling import SamplingPlan
from fpmtools.transfer import put, take

CPU_BATCH_SAMPLES, GPU_BATCH_SAMPLES = 1 << 16, 1 << 26  # of the low-resolution images in work at once
TINY = 1e-30  # an amplitude that may be divided by


class Misfit(NamedTuple):
    """See :meth:`ForwardModel.loss_and_gradient`."""

    loss: torch.Tensor
    gradient: torch.Tensor
    error: torch.Tensor


class Compared(NamedTuple):
    """Fields ``psi`` [z, led, h, w], amplitudes ``size`` [z, image, h, w], ``cost`` [z, image], and slope / size."""

    psi: torch.Tensor
    size: torch.Tensor
    cost: torch.Tensor
    change: torch.Tensor


class ForwardModel(Fields):
    """Low-resolution images of a complex object under every LED, at any defocus.

    Parameters
    ----------
    optics
        The microscope.
    calibration
        LED positions, pupil, gains, background and patterns; :meth:`update` takes another one of as many LEDs.
    plan
        Grids, field of view, and the intensity that counts as 1.
    subpixel
        True: each LED's shift is exact. False: it is rounded to the Fourier grid.
    mask
        [image or 1, h, w] bool, False where a pixel was not measured, which no loss looks at; None: all were.
    device, dtype
        Torch device; complex64 or complex128.

    Attributes
    ----------
    version
        Counts the updates: what a solver keeps of the kernels is of one version.
    fields_per_image
        Of how many LEDs, at most, the light adds up to one image.
    window, counted
        [y, x], 1 where the camera has measured, 0 in the margins, which no loss looks at; None without margins. And
        how many pixels of an image count.

    Notes
    -----
    All batches are [z, led, y, x]. Object *spectra* are centred (DC at n // 2) and not normalised: a constant field c
    has c · H W at DC and gives the amplitude c in every bright-field image. Where patterns light an image with several
    LEDs, ``images`` are not ``leds``: kernels and pieces are of LEDs, amplitudes and losses of images.

    Raises
    ------
    OpticsError
        The camera under-samples the pupil.
    DataError
        An LED's pupil does not fit into the object grid.
    """

    def __init__(
        self,
        optics: Optics,
        calibration: Calibration,
        plan: SamplingPlan,
        *,
        subpixel: bool = True,
        mask: torch.Tensor | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.complex64,
    ) -> None:
        super().__init__(optics, calibration, plan, subpixel=subpixel, device=device, dtype=dtype)
        self.batch_samples = CPU_BATCH_SAMPLES if self.device.type == "cpu" else GPU_BATCH_SAMPLES
        window = plan.window(self.real_dtype)
        self.window = None if window is None else window.to(self.device)
        self.counted = math.prod(self.image_shape) if window is None else int(window.sum())
        self.mask = None if mask is None else mask.to(self.device)

    def update(self, calibration: Calibration) -> None:
        """See the instrument as ``calibration`` does from now on."""
        super().update(calibration)
        background = torch.from_numpy(calibration.background / self.plan.scale).to(self.real_dtype).to(self.device)
        self.background = background[:, None, None] if calibration.background.any() else None
        self._stray = None
        if calibration.stray is not None:
            pictures = calibration.stray.at(*self.plan.camera_pixels(self.optics.pixel_um))
            parts = (calibration.stray.levels / self.plan.scale, pictures)
            self._stray = tuple(torch.from_numpy(part).to(self.real_dtype).to(self.device) for part in parts)
        self._lit = None if calibration.patterns is None else [np.flatnonzero(row) for row in calibration.patterns]
        self.fields_per_image = 1 if self._lit is None else max(map(len, self._lit))

    @property
    def images(self) -> int:
        """Number of images."""
        return self.calibration.images

    def mismatch(
        self,
        spectrum: torch.Tensor,
        amplitudes: torch.Tensor,
        images: Sequence[int],
        kernel: torch.Tensor,
        *,
        loss: Loss = losses.squares,
        weights: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the estimated low-resolution fields have too much of, and what that costs.

        Parameters
        ----------
        spectrum, amplitudes, images, kernel
            As for :meth:`loss_and_gradient`; the kernel is of the LEDs that light the images.
        loss
            See :mod:`fpmtools.losses`.
        weights
            Of each image's cost, [image] or [z, image], or of each pixel's, [image, h, w].

        Returns
        -------
        pieces
            Spectra of ∂cost/∂ψ* · 2 = slope · ψ/size on the pupil box, [z, led, box y, box x], before the conjugate
            kernel.
        cost
            Summed over the pixels of each image, [z, image].
        """
        compared = self.compare(spectrum, amplitudes, images, kernel, loss, weights)
        return self.to_piece(compared.psi.mul_(self.per_led(compared.change, images))), compared.cost

    def compare(
        self,
        spectrum: torch.Tensor,
        amplitudes: torch.Tensor,
        images: Sequence[int],
        kernel: torch.Tensor,
        loss: Loss,
        weights: torch.Tensor | None,
    ) -> Compared:
        """Fields of some images, what they cost, and what that asks for; see :meth:`mismatch`."""
        psi = self.to_image(self.crop(spectrum, self.lit(images)) * kernel)
        size = self.sizes(psi, images)
        of_pixels = self.seen(images)
        if weights is not None and weights.ndim == 3:
            of_pixels = weights if of_pixels is None else weights * of_pixels
        cost, slope = loss(size, amplitudes, of_pixels)
        if weights is not None and weights.ndim < 3:
            cost, slope = cost * weights, slope.mul_(weights[..., None, None])
        return Compared(psi, size, cost, slope.div_(size.clamp_min_(TINY)))

    def seen(self, images: Leds = None) -> torch.Tensor | None:
        """What every cost of a pixel is multiplied by: 1 where it was measured, else 0; [image or 1, h, w].

        None where all were. :meth:`compare`, and all that goes through it, does so by itself.
        """
        if self.mask is None:
            return self.window
        mask = self.mask if len(self.mask) == 1 else take(self.mask, images)
        return mask if self.window is None else mask * self.window

    def lit(self, images: Leds) -> Leds:
        """The LEDs that light ``images``, one image after the other."""
        if self._lit is None:
            return images
        chosen = range(self.images) if images is None else images
        return [int(led) for i in chosen for led in self._lit[i]]

    def _pattern(self, images: Leds) -> tuple[torch.Tensor, torch.Tensor]:
        """Of each LED in :meth:`lit`: the place of its image, [led] int64, and its weight, [led, 1, 1]."""
        assert self._lit is not None
        assert self.calibration.patterns is not None
        chosen = list(range(self.images) if images is None else images)
        owner = np.repeat(np.arange(len(chosen)), [len(self._lit[i]) for i in chosen])
        weight = np.concatenate([self.calibration.patterns[i, self._lit[i]] for i in chosen])
        return put(owner, self.device), put(weight, self.device, self.real_dtype)[:, None, None]

    def added(self, images: Leds) -> torch.Tensor | None:
        """What background and stray light add to the intensity of images, [image, h or 1, w or 1]; None: nothing."""
        background = None if self.background is None else take(self.background, images)
        if self._stray is None:
            return background
        levels, pictures = self._stray
        stray: torch.Tensor = torch.tensordot(take(levels, images), pictures, dims=1)
        return stray if background is None else stray + background

    def sizes(self, psi: torch.Tensor, images: Leds) -> torch.Tensor:
        """Amplitudes [z, image, h, w] of the fields of the LEDs that light ``images``."""
        grad = psi.requires_grad
        added = self.added(images)
        if self._lit is None and added is None:
            return psi.abs() if grad else magnitude(psi)
        intensity = psi.real.square() + psi.imag.square()
        if self._lit is not None:
            owner, weight = self._pattern(images)
            count = self.images if images is None else len(images)
            total = intensity.new_zeros((len(psi), count, *psi.shape[2:]))
            intensity = total.index_add(1, owner, intensity * weight)
        if added is not None:
            intensity = intensity + added
        return intensity.sqrt()

    def per_led(self, change: torch.Tensor, images: Leds) -> torch.Tensor:
        """What is known per image [z, image, h, w] for each LED that lights it, times the LED's weight."""
        if self._lit is None:
            return change
        owner, weight = self._pattern(images)
        return change.index_select(1, owner) * weight

    def part(self, values: torch.Tensor, planes: slice, images: Sequence[int], batch: slice) -> torch.Tensor:
        """Of ``values`` [z or 1, led or 1, ...] of the LEDs that light ``images`` those of a block; a view."""
        values = values[planes] if len(values) > 1 else values
        if values.shape[1] == 1:
            return values
        if self._lit is None:
            return values[:, batch]
        first, count = (len(self.lit(images[part]) or ()) for part in (slice(0, batch.start), batch))
        return values[:, first : first + count]

    def coverage(
        self, images: Leds = None, weights: torch.Tensor | None = None, power: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Σ w |kernel|² over the LEDs that light ``images``, on the object's spectrum, [1 or z, H, W].

        ``weights``: of images, besides their patterns, [image] or [z, image]. ``power``: |kernel|² of the LEDs where it
        is another than this model's, [led or 1, box y, box x].
        """
        chosen = range(self.images) if images is None else images
        if power is None:
            through = self.kernels.transmission
            power = squared(through if len(through) == 1 else take(through, self.lit(chosen)))
        weights = torch.ones(len(chosen), dtype=self.real_dtype, device=self.device) if weights is None else weights
        weights = weights.reshape(-1, len(chosen))
        total = torch.zeros(len(weights), *self.object_shape, dtype=self.real_dtype, device=self.device)

        def work(_: slice, batch: slice) -> None:
            own = self.part(power[None], slice(1), chosen, batch)
            self.add(total, self.per_led(weights[:, batch, None, None], chosen[batch]) * own, self.lit(chosen[batch]))

        self.in_batches(1, chosen, work)
        return total

    def in_batches(self, planes: int, images: Sequence[int], work: Callable[[slice, slice], None]) -> None:
        """See :func:`fpmtools.forward.batches.in_batches`."""
        batches.in_batches(self, planes, images, work)

    def amplitude(self, field: torch.Tensor, z_um: Planes = 0.0, images: Leds = None) -> torch.Tensor:
        """Amplitudes [z, image, h, w] of object fields [z, H, W] (or one [H, W] at every z). Differentiable."""
        leds = self.lit(images)
        pieces = self.crop(self.spectrum(self._batch(field)), leds) * self.kernel(z_um, leds)
        return self.sizes(self.to_image(pieces), images)

    def loss_and_gradient(
        self,
        spectrum: torch.Tensor,
        amplitudes: torch.Tensor,
        z_um: Planes = 0.0,
        images: Leds = None,
        *,
        loss: Loss = losses.amplitude,
        weights: torch.Tensor | None = None,
        kernel: torch.Tensor | None = None,
        into: torch.Tensor | None = None,
    ) -> Misfit:
        """The mean cost of the amplitudes, and its gradient, without autograd.

        Parameters
        ----------
        spectrum
            Centred object spectra [z, H, W].
        amplitudes
            Measured amplitudes of the images ``images``, [image, h, w]; compared with every z.
        loss
            See :mod:`fpmtools.losses`.
        weights
            Weight of each image's cost, [image] or [z, image], or of each pixel's, [image, h, w].
        kernel
            ``self.kernel(z_um, leds)`` of the LEDs that light the images, if it is at hand.
        into
            A tensor [z, H, W] to add the gradient to.

        Returns
        -------
        Misfit
            ``loss``, 0-d: mean over z, images and pixels; ``gradient`` [z, H, W] in PyTorch's convention ∂loss/∂Re +
            i ∂loss/∂Im, so that ``spectrum - step * gradient`` descends; ``error``, 0-d: the mean squared amplitude
            error, without weights.
        """
        images = range(self.images) if images is None else images
        z = self._planes(z_um)
        gradient = torch.zeros_like(spectrum) if into is None else into
        count = len(spectrum) * len(amplitudes) * self.counted
        costs, errors = [], []

        def work(planes: slice, batch: slice) -> None:
            chosen, measured = images[batch], amplitudes[batch]
            leds = self.lit(chosen)
            if kernel is None:
                own = self.kernel(z[planes] if len(z) > 1 else z, leds)
            else:
                own = self.part(kernel, planes, images, batch)
            part = None if weights is None else weights[planes, batch] if weights.ndim == 2 else weights[batch]
            compared = self.compare(spectrum[planes], measured, chosen, own, loss, part)
            change = compared.change.mul_(1 / (count * math.prod(self.image_shape)))
            pieces = self.to_piece(compared.psi.mul_(self.per_led(change, chosen)))
            self.add(gradient[planes], pieces.mul_(own.conj()), leds)
            costs.append(compared.cost.sum())
            error, seen = compared.size - measured, self.seen(chosen)
            errors.append(torch.linalg.vector_norm(error if seen is None else error * seen).square())

        self.in_batches(len(spectrum), images, work)
        return Misfit(torch.stack(costs).sum() / count, gradient, torch.stack(errors).sum() / count)


def magnitude(field: torch.Tensor) -> torch.Tensor:
    """|field| of a tensor without gradient; on a CPU by NumPy, ten times as fast as :func:`torch.abs`."""
    return torch.from_numpy(np.abs(field.numpy())) if field.device.type == "cpu" else field.abs()


def squared(field: torch.Tensor) -> torch.Tensor:
    """|field|² of real or complex numbers; on a CPU three times as fast as of :func:`torch.abs`."""
    return field.real.square().addcmul_(field.imag, field.imag) if field.is_complex() else field.square()
