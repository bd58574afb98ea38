"""The physical forward model: object field → low-resolution amplitudes, its adjoint, losses with their gradients.

Image i at defocus z is √(Σ_l w_il g_l |ψ_l|² + b_i) with ψ_l = F⁻¹{ O(f + na_l/λ) · P(f) · exp(+i k_z(f) z) }, O the
spectrum of the object, P the pupil, g_l the gain of LED l, w_il the pattern that lights image i (usually LED i alone),
b_i its background (Zheng et al., Nat. Photonics 7, 739, 2013; Tian et al., Biomed. Opt. Express 5, 2376, 2014; Zhou
et al., Optica 10, 1679, 2023, eq. 1-2). With a *sub-pixel* shift, the spectrum is cropped at the nearest grid frequency
and P and k_z are evaluated at the remaining offset; this is exact, because a shifted low-resolution spectrum is the
same image times a plane wave, and amplitudes ignore that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fpmtools import losses
from fpmtools.calibration import Calibration
from fpmtools.errors import DataError, OptionError
from fpmtools.forward import batches
from fpmtools.forward.kernel import Kernels
from fpmtools.losses import Loss
from fpmtools.optics import Optics, Shape
from fpmtools.sampling import SamplingPlan, led_shifts, pupil_box

CPU_BATCH_SAMPLES, GPU_BATCH_SAMPLES = 1 << 16, 1 << 26  # of the low-resolution images in work at once
TINY = 1e-30  # an amplitude that may be divided by
LIT = 1e-2  # of the largest transmission: less is outside the recoverable band

Leds = Sequence[int] | None
Planes = Sequence[float] | torch.Tensor | float


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


class ForwardModel:
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
    device, dtype
        Torch device; complex64 or complex128.

    Attributes
    ----------
    version
        Counts the updates: what a solver keeps of the kernels is of one version.
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
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.complex64,
    ) -> None:
        self.optics, self.plan, self.subpixel = optics, plan, subpixel
        self.image_shape, self.object_shape, self.extent_um = plan.image_shape, plan.object_shape, plan.extent_um
        self.device, self.dtype = torch.device(device), dtype
        self.real_dtype = torch.empty(0, dtype=dtype).real.dtype
        self.batch_samples = CPU_BATCH_SAMPLES if self.device.type == "cpu" else GPU_BATCH_SAMPLES
        (self._ky, self._kx) = pupil_box(optics, self.extent_um, self.image_shape, subpixel, calibration.pupil.reach)
        self.box_shape: Shape = (len(self._ky), len(self._kx))
        rows = torch.arange(self.box_shape[0], device=self.device)[:, None] * self.object_shape[1]
        self._offsets = (rows + torch.arange(self.box_shape[1], device=self.device)).view(-1)
        (h, w), (height, width) = self.image_shape, self.object_shape
        # A constant field keeps its amplitude, whatever the sizes of the unnormalised transforms.
        scale = h * w / (height * width)
        axes = torch.from_numpy(self._ky).to(self.device), torch.from_numpy(self._kx).to(self.device)
        self.kernels = Kernels(optics, axes, self.extent_um, scale, dtype)
        window = plan.window(self.real_dtype)
        self.window = None if window is None else window.to(self.device)
        self.counted = h * w if window is None else int(window.sum())
        self.version = -1
        self.update(calibration)

    def update(self, calibration: Calibration) -> None:
        """See the instrument as ``calibration`` does from now on."""
        shift = led_shifts(self.optics, calibration.na, self.extent_um)
        whole = np.rint(shift).astype(int)
        self.corners = self._place(whole, calibration.na)
        offset = shift - whole if self.subpixel else np.zeros((1, 2))
        gain = None if (calibration.gain == 1).all() else calibration.gain
        self.parameters = self.kernels.parameters(calibration.pupil, offset, gain)
        self.kernels.update(calibration.pupil, self.parameters)
        background = torch.from_numpy(calibration.background / self.plan.scale).to(self.real_dtype).to(self.device)
        self.background = background[:, None, None] if calibration.background.any() else None
        self.calibration = calibration
        self._lit = None if calibration.patterns is None else [np.flatnonzero(row) for row in calibration.patterns]
        self.version += 1

    @property
    def na(self) -> NDArray[np.float64]:
        """Direction sines of the LEDs, [led, (x, y)]."""
        return self.calibration.na

    @property
    def box_frequencies(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Frequencies of the pupil box's rows and columns around an LED's grid shift, cycles/µm."""
        return self._ky / self.extent_um[0], self._kx / self.extent_um[1]

    @property
    def images(self) -> int:
        """Number of images."""
        return self.calibration.images

    def _place(self, whole: NDArray[np.int_], na: NDArray[np.float64]) -> list[tuple[int, int]]:
        """First (row, column) of each LED's pupil box in the centred object spectrum."""
        height, width = self.object_shape
        first = whole + np.array([height // 2 + self._ky[0], width // 2 + self._kx[0]])
        outside = (first < 0).any(axis=1) | (first + self.box_shape > self.object_shape).any(axis=1)
        if outside.any():
            i = int(np.flatnonzero(outside)[0])
            raise DataError(
                f"LED {i} at NA ({na[i, 0]:.3f}, {na[i, 1]:.3f}) lies outside the reconstruction grid of "
                f"{self.object_shape[0]}×{self.object_shape[1]}: use a larger upsample, or leave the LED out"
            )
        return [(int(y), int(x)) for y, x in first]

    # ---------------------------------------------------------------- pieces on the pupil box

    def kernel(self, z_um: Planes, leds: Leds = None) -> torch.Tensor:
        """Pupil · √gain · exp(+i (k_z − 2π n/λ) z), [z, led or 1, box y, box x]: multiplies the cropped spectrum."""
        transmission, axial = self.kernels.transmission, self.kernels.axial
        own = [take(values, None if len(values) == 1 else leds) for values in (transmission, axial)]
        return self.kernels.at(self._planes(z_um), *own)

    def crop(self, spectrum: torch.Tensor, leds: Leds = None) -> torch.Tensor:
        """The pupil-sized pieces [z, led, box y, box x] of centred spectra [z, H, W] around +na/λ."""
        bh, bw = self.box_shape
        corners = self.corners if leds is None else [self.corners[i] for i in leds]
        pieces = [spectrum[:, y : y + bh, x : x + bw] for y, x in corners]
        return pieces[0][:, None] if len(pieces) == 1 else torch.stack(pieces, dim=1)

    def add(self, spectrum: torch.Tensor, pieces: torch.Tensor, leds: Leds = None) -> torch.Tensor:
        """Add pieces [z, led, box y, box x] into contiguous spectra [z, H, W] in place: the adjoint of :meth:`crop`."""
        bh, bw = self.box_shape
        corners = self.corners if leds is None else [self.corners[i] for i in leds]
        if len(corners) == 1:
            ((y, x),) = corners
            spectrum[:, y : y + bh, x : x + bw].add_(pieces[:, 0])
        else:
            (height, width), count = self.object_shape, len(spectrum)
            first = torch.tensor([y * width + x for y, x in corners], device=self.device)[:, None]
            plane = torch.arange(0, count * height * width, height * width, device=self.device)[:, None, None]
            spectrum.view(-1).index_add_(0, (plane + first + self._offsets).view(-1), pieces.reshape(-1))
        return spectrum

    def to_image(self, pieces: torch.Tensor) -> torch.Tensor:
        """Inverse FFT of pupil pieces to [z, led, h, w]: the low-resolution field up to a plane wave.

        The piece sits in the corner of the image's spectrum instead of around DC, which saves every shift and leaves
        the amplitude as it is.
        """
        h, w = self.image_shape
        # One axis after the other, so that the empty columns are not transformed.
        image: torch.Tensor = torch.fft.ifft(torch.fft.ifft(pieces, n=h, dim=-2), n=w, dim=-1)
        return image

    def to_piece(self, image: torch.Tensor) -> torch.Tensor:
        """Forward FFT of fields made by :meth:`to_image`, back on the pupil box; its exact inverse there."""
        bh, bw = self.box_shape
        columns = torch.fft.fft(image, dim=-1)[..., :bw]
        piece: torch.Tensor = torch.fft.fft(columns, dim=-2)[..., :bh, :]
        return piece

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
        of_pixels = self.window
        if weights is not None and weights.ndim == 3:
            of_pixels = weights if self.window is None else weights * self.window
        cost, slope = loss(size, amplitudes, of_pixels)
        if weights is not None and weights.ndim < 3:
            cost, slope = cost * weights, slope.mul_(weights[..., None, None])
        return Compared(psi, size, cost, slope.div_(size.clamp_min_(TINY)))

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
        on_device = torch.from_numpy(weight).to(self.real_dtype).to(self.device)
        return torch.from_numpy(owner).to(self.device), on_device[:, None, None]

    def sizes(self, psi: torch.Tensor, images: Leds) -> torch.Tensor:
        """Amplitudes [z, image, h, w] of the fields of the LEDs that light ``images``."""
        grad = psi.requires_grad
        if self._lit is None and self.background is None:
            return psi.abs() if grad else magnitude(psi)
        intensity = psi.real.square() + psi.imag.square()
        if self._lit is not None:
            owner, weight = self._pattern(images)
            count = self.images if images is None else len(images)
            total = intensity.new_zeros((len(psi), count, *psi.shape[2:]))
            intensity = total.index_add(1, owner, intensity * weight)
        if self.background is not None:
            intensity = intensity + take(self.background, images)
        return intensity.sqrt()

    def per_led(self, change: torch.Tensor, images: Leds) -> torch.Tensor:
        """What is known per image [z, image, h, w] for each LED that lights it, times the LED's weight."""
        if self._lit is None:
            return change
        owner, weight = self._pattern(images)
        return change.index_select(1, owner) * weight

    def in_batches(self, planes: int, images: Sequence[int], work: Callable[[slice, slice], None]) -> None:
        """See :func:`fpmtools.forward.batches.in_batches`."""
        batches.in_batches(self, planes, images, work)

    # ---------------------------------------------------------------- the whole model

    def spectrum(self, field: torch.Tensor) -> torch.Tensor:
        """Centred spectrum of object fields [..., H, W]."""
        spectrum: torch.Tensor = torch.fft.fftshift(torch.fft.fft2(field, dim=(-2, -1)), dim=(-2, -1))
        return spectrum

    def field(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Inverse of :meth:`spectrum`."""
        field: torch.Tensor = torch.fft.ifft2(torch.fft.ifftshift(spectrum, dim=(-2, -1)), dim=(-2, -1))
        return field

    def amplitude(self, field: torch.Tensor, z_um: Planes = 0.0, images: Leds = None) -> torch.Tensor:
        """Amplitudes [z, image, h, w] of object fields [z, H, W] (or one [H, W] at every z). Differentiable."""
        leds = self.lit(images)
        pieces = self.crop(self.spectrum(self._batch(field)), leds) * self.kernel(z_um, leds)
        return self.sizes(self.to_image(pieces), images)

    def low_field(self, field: torch.Tensor, z_um: Planes = 0.0, leds: Leds = None) -> torch.Tensor:
        """Complex low-resolution fields [z, led, h, w], with the exact phase of the cropped spectrum; linear."""
        pieces = self.crop(self.spectrum(self._batch(field)), leds) * (self.kernel(z_um, leds) * self._pistons(z_um))
        (h, w), (bh, bw) = self.image_shape, self.box_shape
        y, x = h // 2 + int(self._ky[0]), w // 2 + int(self._kx[0])
        placed = torch.nn.functional.pad(pieces, (x, w - bw - x, y, h - bh - y))
        return self.field(placed)

    def adjoint(self, low: torch.Tensor, z_um: Planes = 0.0, leds: Leds = None) -> torch.Tensor:
        """Adjoint of :meth:`low_field`: low-resolution fields [z, led, h, w] → object fields [z, H, W]."""
        (h, w), (bh, bw), (height, width) = self.image_shape, self.box_shape, self.object_shape
        y, x = h // 2 + int(self._ky[0]), w // 2 + int(self._kx[0])
        placed = torch.fft.fftshift(torch.fft.fft2(low, dim=(-2, -1)), dim=(-2, -1)) / (h * w)
        kernel = self.kernel(z_um, leds) * self._pistons(z_um)
        pieces = placed[..., y : y + bh, x : x + bw] * kernel.conj()
        spectrum = torch.zeros(len(low), height, width, dtype=self.dtype, device=self.device)
        return self.field(self.add(spectrum, pieces, leds)) * (height * width)

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
            Weight of each image's cost, [image], or of each pixel's, [image, h, w].
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
                own = self._part(kernel, planes, images, batch)
            part = None if weights is None else weights[batch]
            compared = self.compare(spectrum[planes], measured, chosen, own, loss, part)
            pieces = self.to_piece(compared.psi.mul_(self.per_led(compared.change, chosen)))
            self.add(gradient[planes], pieces.mul_(own.conj() / (count * math.prod(self.image_shape))), leds)
            costs.append(compared.cost.sum())
            error = compared.size - measured
            errors.append(torch.linalg.vector_norm(error if self.window is None else error * self.window).square())

        self.in_batches(len(spectrum), images, work)
        return Misfit(torch.stack(costs).sum() / count, gradient, torch.stack(errors).sum() / count)

    def _part(self, kernel: torch.Tensor, planes: slice, images: Sequence[int], batch: slice) -> torch.Tensor:
        """Of a kernel [z or 1, led or 1, y, x] of all ``images`` the part of a block."""
        kernel = kernel[planes] if len(kernel) > 1 else kernel
        if kernel.shape[1] == 1:
            return kernel
        if self._lit is None:
            return kernel[:, batch]
        first, count = (len(self.lit(images[part]) or ()) for part in (slice(0, batch.start), batch))
        return kernel[:, first : first + count]

    def synthetic_support(self) -> NDArray[np.bool_]:
        """Where the LEDs' pupils cover the centred object spectrum [H, W]: the recoverable band."""
        cover = torch.zeros(1, *self.object_shape, dtype=self.real_dtype)
        size = self.kernels.transmission.abs().cpu()
        lit = (size > LIT * size.max()).to(self.real_dtype).expand(len(self.corners), -1, -1)
        return (self.add(cover, lit[None])[0] > 0).numpy()

    def _planes(self, z_um: Planes) -> torch.Tensor:
        return torch.as_tensor(z_um, dtype=self.real_dtype, device=self.device).reshape(-1)

    def _pistons(self, z_um: Planes) -> torch.Tensor:
        phase = torch.as_tensor(z_um, dtype=torch.float64).reshape(-1, 1, 1, 1).cpu() * self.kernels.piston
        return torch.polar(torch.ones_like(phase), phase).to(self.dtype).to(self.device)

    def _batch(self, field: torch.Tensor) -> torch.Tensor:
        if field.shape[-2:] != torch.Size(self.object_shape):
            raise OptionError(f"the object is {tuple(field.shape[-2:])}; this forward model needs {self.object_shape}")
        return field if field.ndim == 3 else field.unsqueeze(0)


def magnitude(field: torch.Tensor) -> torch.Tensor:
    """|field| of a tensor without gradient; on a CPU by NumPy, ten times as fast as :func:`torch.abs`."""
    return torch.from_numpy(np.abs(field.numpy())) if field.device.type == "cpu" else field.abs()


def take(tensor: torch.Tensor, leds: Leds) -> torch.Tensor:
    """The rows ``leds`` of a tensor [led, ...], all for None; a view, not a copy, for a single LED."""
    if leds is None:
        return tensor
    return tensor[leds[0] : leds[0] + 1] if len(leds) == 1 else tensor[list(leds)]
