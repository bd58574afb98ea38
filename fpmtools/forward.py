"""The physical forward model: object field → low-resolution amplitudes, its adjoint, and the loss with its gradient.

Image i at defocus z is | F⁻¹{ O(f + na_i/λ) · P(f) · exp(+i k_z(f) z) } |, O the spectrum of the object
(Zheng et al., Nat. Photonics 7, 739, 2013; Zhou et al., Optica 10, 1679, 2023, eq. 1-2). With a *sub-pixel* shift,
the spectrum is cropped at the nearest grid frequency and P and k_z are evaluated at the remaining offset; this is
exact, because a shifted low-resolution spectrum is the same image times a plane wave, and amplitudes ignore that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from fpmtools.errors import DataError, OptionError
from fpmtools.optics import Optics, Shape, frequency_axes, interpolate_spectrum
from fpmtools.sampling import led_shifts, pupil_box

CPU_BATCH_SAMPLES, GPU_BATCH_SAMPLES = 1 << 16, 1 << 26  # of the low-resolution images in work at once
TINY = 1e-30  # an amplitude that may be divided by

Leds = Sequence[int] | None
Planes = Sequence[float] | torch.Tensor | float


class ForwardModel:
    """Low-resolution images of a complex object under every LED, at any defocus.

    Parameters
    ----------
    optics
        The microscope.
    na
        Illumination direction sines, [led, (x, y)].
    image_shape
        (h, w) of a low-resolution image.
    object_shape
        (H, W) of the object over the same field of view; large enough to hold every LED's pupil.
    pixel_um
        Pixel (y, x) of the low-resolution grid, µm; the camera's by default.
    pupil
        Complex pupil [h', w'] on a centred frequency grid of the same field of view, used instead of the ideal disc.
    subpixel
        True: each LED's shift is exact. False: it is rounded to the Fourier grid.
    gains
        Amplitude factor of each LED, [led].
    device, dtype
        Torch device; complex64 or complex128.

    Notes
    -----
    All batches are [z, led, y, x]. Object *spectra* are centred (DC at n // 2) and not normalised: a constant field c
    has c · H W at DC and gives the amplitude c in every bright-field image.

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
        na: ArrayLike,
        image_shape: Shape,
        object_shape: Shape,
        *,
        pixel_um: tuple[float, float] | None = None,
        pupil: NDArray[np.complexfloating] | None = None,
        subpixel: bool = True,
        gains: ArrayLike | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.complex64,
    ) -> None:
        self.optics = optics
        self.na = np.asarray(na, dtype=np.float64).reshape(-1, 2)
        self.image_shape = (int(image_shape[0]), int(image_shape[1]))
        self.object_shape = (int(object_shape[0]), int(object_shape[1]))
        self.subpixel = subpixel
        self.device = torch.device(device)
        self.dtype = dtype
        self.real_dtype = torch.empty(0, dtype=dtype).real.dtype
        self.batch_samples = CPU_BATCH_SAMPLES if self.device.type == "cpu" else GPU_BATCH_SAMPLES
        pixel = (optics.pixel_um, optics.pixel_um) if pixel_um is None else pixel_um
        self.extent_um = (self.image_shape[0] * pixel[0], self.image_shape[1] * pixel[1])

        shift = led_shifts(optics, self.na, self.extent_um)
        whole = np.rint(shift).astype(int)
        offset = shift - whole if subpixel else np.zeros_like(shift)
        (self._ky, self._kx) = pupil_box(optics, self.extent_um, self.image_shape, subpixel)
        self.box_shape: Shape = (len(self._ky), len(self._kx))
        self.corners = self._place(whole)
        rows = torch.arange(self.box_shape[0], device=self.device)[:, None] * self.object_shape[1]
        self._offsets = (rows + torch.arange(self.box_shape[1], device=self.device)).view(-1)
        self._make_pupil(offset if subpixel else offset[:1], pupil)
        self.gains = None
        if gains is not None:
            self.gains = torch.as_tensor(np.asarray(gains), dtype=self.real_dtype).to(self.device)

    def _place(self, whole: NDArray[np.int_]) -> list[tuple[int, int]]:
        """First (row, column) of each LED's pupil box in the centred object spectrum."""
        corners = []
        for i, (sy, sx) in enumerate(whole):
            y0 = self.object_shape[0] // 2 + int(self._ky[0]) + int(sy)
            x0 = self.object_shape[1] // 2 + int(self._kx[0]) + int(sx)
            y1, x1 = y0 + self.box_shape[0], x0 + self.box_shape[1]
            if min(y0, x0) < 0 or y1 > self.object_shape[0] or x1 > self.object_shape[1]:
                raise DataError(
                    f"LED {i} at NA ({self.na[i, 0]:.3f}, {self.na[i, 1]:.3f}) lies outside the reconstruction grid of "
                    f"{self.object_shape[0]}×{self.object_shape[1]}: use a larger upsample, or leave the LED out"
                )
            corners.append((y0, x0))
        return corners

    def _make_pupil(self, offset: NDArray[np.float64], pupil: NDArray[np.complexfloating] | None) -> None:
        """Pupil and axial wavenumber on the box, [led or 1, y, x], at each LED's remaining offset."""
        fy = ((self._ky[None, :] - offset[:, :1]) / self.extent_um[0])[:, :, None]
        fx = ((self._kx[None, :] - offset[:, 1:]) / self.extent_um[1])[:, None, :]
        if pupil is None:
            values: NDArray[np.generic] = np.hypot(fy, fx) <= self.optics.cutoff * (1 + 1e-12)
        else:
            pixel = (self.extent_um[0] / pupil.shape[0], self.extent_um[1] / pupil.shape[1])
            axes = (frequency_axes(pupil.shape, pixel[0])[0], frequency_axes(pupil.shape, pixel[1])[1])
            values = interpolate_spectrum(pupil, axes, *np.broadcast_arrays(fy, fx))
            # Outside the objective's aperture no light passes, whatever a calibration file holds there.
            values = values * (np.hypot(fy, fx) <= self.optics.cutoff * (1 + 1e-12))
        self.pupil = torch.from_numpy(values.astype(np.complex128)).to(self.dtype).to(self.device)
        # Without the piston 2π n/λ, which no amplitude sees, the phase k_z z stays small enough for float32.
        self._piston = 2 * math.pi * self.optics.medium_index / self.optics.wavelength_um
        axial = self.optics.axial_wavenumber(fy, fx) - self._piston
        self.axial = torch.from_numpy(axial).to(self.real_dtype).to(self.device)
        (h, w), (height, width) = self.image_shape, self.object_shape
        # A constant field keeps its amplitude, whatever the sizes of the unnormalised transforms.
        self._scaled_pupil = self.pupil * (h * w / (height * width))

    # ---------------------------------------------------------------- pieces on the pupil box

    def kernel(self, z_um: Planes, leds: Leds = None) -> torch.Tensor:
        """Pupil · exp(+i (k_z − 2π n/λ) z), [z, led or 1, box y, box x]: what multiplies the cropped spectrum."""
        z = self._planes(z_um)[:, None, None, None]
        pick = None if len(self.pupil) == 1 else leds
        phase = take(self.axial, pick) * z
        # Twice as fast on a CPU as ``torch.polar``.
        kernel = torch.complex(torch.cos(phase), torch.sin(phase)) * take(self._scaled_pupil, pick)
        if self.gains is not None:
            kernel = kernel * take(self.gains, leds)[:, None, None]
        return kernel

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
            spectrum[:, y : y + bh, x : x + bw] += pieces[:, 0]
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
        leds: Leds,
        kernel: torch.Tensor,
        *,
        bound: float | None = None,
        weights: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the estimated low-resolution fields have too much of, and by how much their amplitudes are too large.

        Parameters
        ----------
        spectrum, amplitudes, leds, kernel
            As for :meth:`loss_and_gradient`.
        weights
            Of each image's squared error, [led] or [z, led].
        bound
            Largest error |ψ| − A that is taken at its full size.

        Returns
        -------
        pieces
            Spectra of w · (|ψ| − A) · ψ/|ψ| on the pupil box, [z, led, box y, box x], before the conjugate kernel.
        error
            Σ w · e² over the pixels of each image, [z, led]; with ``bound`` twice its smooth-L1 form.
        """
        psi = self.to_image(self.crop(spectrum, leds) * kernel)
        size = magnitude(psi)
        error = size - amplitudes
        slope = error if bound is None else error.clamp(-bound, bound)
        squared = slope * (error if bound is None else error.mul_(2).sub_(slope))
        total = squared.sum((-2, -1))
        change = slope.div_(size.clamp_min_(TINY))
        if weights is not None:
            total, change = total * weights, change.mul_(weights[..., None, None])
        return self.to_piece(psi.mul_(change)), total

    def in_batches(self, planes: int, leds: Sequence[int], work: Callable[[slice, slice], None]) -> None:
        """Call ``work(plane slice, LED slice)`` on blocks that together cover ``planes`` planes × the list ``leds``.

        A block holds ``batch_samples`` samples: on a CPU what stays in the processor's cache, on a GPU what fills it.
        A block that runs out of memory is tried again in halves, so ``work`` must leave nothing half done.
        """
        room = max(1, self.batch_samples // math.prod(self.image_shape))
        z_step = min(planes, room)
        led_step = max(1, room // z_step)
        todo = [
            (slice(z, min(z + z_step, planes)), slice(i, min(i + led_step, len(leds))))
            for z in range(0, planes, z_step)
            for i in range(0, len(leds), led_step)
        ]
        while todo:
            z_block, led_block = todo.pop(0)
            try:
                work(z_block, led_block)
            except torch.OutOfMemoryError:
                if z_block.stop - z_block.start + led_block.stop - led_block.start == 2:
                    raise
                self.batch_samples //= 2
                if len(halves := _halves(z_block)) == 2:
                    todo[:0] = [(half, led_block) for half in halves]
                else:
                    todo[:0] = [(z_block, half) for half in _halves(led_block)]

    # ---------------------------------------------------------------- the whole model

    def spectrum(self, field: torch.Tensor) -> torch.Tensor:
        """Centred spectrum of object fields [..., H, W]."""
        spectrum: torch.Tensor = torch.fft.fftshift(torch.fft.fft2(field, dim=(-2, -1)), dim=(-2, -1))
        return spectrum

    def field(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Inverse of :meth:`spectrum`."""
        field: torch.Tensor = torch.fft.ifft2(torch.fft.ifftshift(spectrum, dim=(-2, -1)), dim=(-2, -1))
        return field

    def amplitude(self, field: torch.Tensor, z_um: Planes = 0.0, leds: Leds = None) -> torch.Tensor:
        """Amplitudes [z, led, h, w] of object fields [z, H, W] (or one [H, W] at every z). Differentiable."""
        pieces = self.crop(self.spectrum(self._batch(field)), leds) * self.kernel(z_um, leds)
        return self.to_image(pieces).abs()

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
        leds: Leds = None,
        *,
        weights: torch.Tensor | None = None,
        kernel: torch.Tensor | None = None,
        into: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean smooth-L1 amplitude error, and its gradient, without autograd.

        Parameters
        ----------
        spectrum
            Centred object spectra [z, H, W].
        amplitudes
            Measured amplitudes of the LEDs ``leds``, [led, h, w]; compared with every z.
        weights
            Weight of each LED's squared error, [led].
        kernel
            ``self.kernel(z_um, leds)`` if it is at hand.
        into
            A tensor [z, H, W] to add the gradient to.

        Returns
        -------
        loss
            0-d tensor: mean over z, LEDs and pixels of w · smooth-L1(|ψ| − A), which is ½ e² for |e| ≤ 1 and
            |e| − ½ beyond: half the mean squared error, but for outliers.
        gradient
            [z, H, W] in PyTorch's convention ∂loss/∂Re + i ∂loss/∂Im, so that ``spectrum - step * gradient`` descends.
        """
        leds = range(len(self.corners)) if leds is None else leds
        z = self._planes(z_um)
        gradient = torch.zeros_like(spectrum) if into is None else into
        count = len(spectrum) * amplitudes.numel()
        losses = []

        def work(planes: slice, batch: slice) -> None:
            chosen = leds[batch]
            own = (
                self.kernel(z[planes] if len(z) > 1 else z, chosen) if kernel is None else _part(kernel, planes, batch)
            )
            pieces, error = self.mismatch(
                spectrum[planes],
                amplitudes[batch],
                chosen,
                own,
                bound=1.0,
                weights=None if weights is None else weights[batch],
            )
            pieces = pieces * (own.conj() / (count * math.prod(self.image_shape)))
            self.add(gradient[planes], pieces, chosen)
            losses.append(error.sum())

        self.in_batches(len(spectrum), leds, work)
        return torch.stack(losses).sum() / (2 * count), gradient

    def synthetic_support(self) -> NDArray[np.bool_]:
        """Where the LEDs' pupils cover the centred object spectrum [H, W]: the recoverable band."""
        cover = torch.zeros(1, *self.object_shape, dtype=self.real_dtype)
        size = self.pupil.abs().cpu().expand(len(self.corners), -1, -1)
        return (self.add(cover, size[None])[0] > 0).numpy()

    def _planes(self, z_um: Planes) -> torch.Tensor:
        return torch.as_tensor(z_um, dtype=self.real_dtype, device=self.device).reshape(-1)

    def _pistons(self, z_um: Planes) -> torch.Tensor:
        phase = torch.as_tensor(z_um, dtype=torch.float64).reshape(-1, 1, 1, 1).cpu() * self._piston
        return torch.polar(torch.ones_like(phase), phase).to(self.dtype).to(self.device)

    def _batch(self, field: torch.Tensor) -> torch.Tensor:
        if field.shape[-2:] != torch.Size(self.object_shape):
            raise OptionError(f"the object is {tuple(field.shape[-2:])}; this forward model needs {self.object_shape}")
        return field if field.ndim == 3 else field.unsqueeze(0)


def magnitude(field: torch.Tensor) -> torch.Tensor:
    """|field| of a tensor without gradient; on a CPU by NumPy, ten times as fast as :func:`torch.abs`."""
    return torch.from_numpy(np.abs(field.numpy())) if field.device.type == "cpu" else field.abs()


def _halves(block: slice) -> list[slice]:
    middle = (block.start + block.stop + 1) // 2
    return [half for half in (slice(block.start, middle), slice(middle, block.stop)) if half.start < half.stop]


def _part(kernel: torch.Tensor, planes: slice, leds: slice) -> torch.Tensor:
    """A block of a kernel [z or 1, led or 1, y, x]."""
    kernel = kernel[planes] if len(kernel) > 1 else kernel
    return kernel[:, leds] if kernel.shape[1] > 1 else kernel


def take(tensor: torch.Tensor, leds: Leds) -> torch.Tensor:
    """The rows ``leds`` of a tensor [led, ...], all for None; a view, not a copy, for a single LED."""
    if leds is None:
        return tensor
    return tensor[leds[0] : leds[0] + 1] if len(leds) == 1 else tensor[list(leds)]
