"""Fields: object → low-resolution complex fields under every LED, and the adjoint; all that is linear in the object."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fpmtools.calibration import Calibration
from fpmtools.errors import DataError, OptionError
from fpmtools.forward.kernel import Kernels
from fpmtools.optics import Optics, Shape
from fpmtools.sampling import SamplingPlan, led_shifts, pupil_box
from fpmtools.transfer import put, take

LIT = 1e-2  # of the largest transmission: less is outside the recoverable band

Leds = Sequence[int] | None
Planes = Sequence[float] | torch.Tensor | float


class Fields:
    """ψ_l = F⁻¹{ O(f + na_l/λ) · P(f) · √g_l · exp(+i k_z(f) z) } of an object's spectrum O, for every LED l.

    For the parameters see :class:`fpmtools.forward.ForwardModel`, which makes images of them.
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
        (self._ky, self._kx) = pupil_box(optics, self.extent_um, self.image_shape, subpixel, calibration.pupil.reach)
        self.box_shape: Shape = (len(self._ky), len(self._kx))
        rows = torch.arange(self.box_shape[0], device=self.device)[:, None] * self.object_shape[1]
        self._offsets = (rows + torch.arange(self.box_shape[1], device=self.device)).view(-1)
        (h, w), (height, width) = self.image_shape, self.object_shape
        # A constant field keeps its amplitude, whatever the sizes of the unnormalised transforms.
        scale = h * w / (height * width)
        axes = torch.from_numpy(self._ky).to(self.device), torch.from_numpy(self._kx).to(self.device)
        self.kernels = Kernels(optics, axes, self.extent_um, scale, dtype)
        self.version = -1
        self.update(calibration)

    def update(self, calibration: Calibration) -> None:
        """See the instrument as ``calibration`` does from now on."""
        shift = led_shifts(self.optics, calibration.na, self.extent_um)
        whole = np.rint(shift).astype(int)
        self.corners = self._place(whole, calibration.na)
        self._first = put([y * self.object_shape[1] + x for y, x in self.corners], self.device)
        offset = shift - whole if self.subpixel else np.zeros((1, 2))
        gain = None if (calibration.gain == 1).all() else calibration.gain
        self.parameters = self.kernels.parameters(calibration.pupil, offset, gain)
        self.kernels.update(calibration.pupil, self.parameters)
        self.calibration = calibration
        self.version += 1

    @property
    def na(self) -> NDArray[np.float64]:
        """Direction sines of the LEDs, [led, (x, y)]."""
        return self.calibration.na

    @property
    def box_frequencies(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Frequencies of the pupil box's rows and columns around an LED's grid shift, cycles/µm."""
        return self._ky / self.extent_um[0], self._kx / self.extent_um[1]

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

    def kernel(self, z_um: Planes, leds: Leds = None) -> torch.Tensor:
        """Pupil · √gain · exp(+i (k_z − 2π n/λ) z), [z, led or 1, box y, box x]: multiplies the cropped spectrum."""
        transmission = take(self.kernels.transmission, None if len(self.kernels.transmission) == 1 else leds)
        if isinstance(z_um, (int, float)) and z_um == 0:
            return transmission[None].clone()
        axial = take(self.kernels.axial, None if len(self.kernels.axial) == 1 else leds)
        return self.kernels.at(self._planes(z_um), transmission, axial)

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
        if len(corners) == 1 or self.device.type == "cpu":
            for i, (y, x) in enumerate(corners):
                spectrum[:, y : y + bh, x : x + bw].add_(pieces[:, i])
        else:  # one kernel instead of many
            (height, width), count = self.object_shape, len(spectrum)
            first = take(self._first, leds)[:, None]
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

    def spectrum(self, field: torch.Tensor) -> torch.Tensor:
        """Centred spectrum of object fields [..., H, W]."""
        spectrum: torch.Tensor = torch.fft.fftshift(torch.fft.fft2(field, dim=(-2, -1)), dim=(-2, -1))
        return spectrum

    def field(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Inverse of :meth:`spectrum`."""
        field: torch.Tensor = torch.fft.ifft2(torch.fft.ifftshift(spectrum, dim=(-2, -1)), dim=(-2, -1))
        return field

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

    def synthetic_support(self) -> NDArray[np.bool_]:
        """Where the LEDs' pupils cover the centred object spectrum [H, W]: the recoverable band."""
        cover = torch.zeros(1, *self.object_shape, dtype=self.real_dtype, device=self.device)
        size = self.kernels.transmission.abs()
        lit = (size > LIT * size.max()).to(self.real_dtype).expand(len(self.corners), -1, -1)
        return (self.add(cover, lit[None])[0] > 0).cpu().numpy()

    def _planes(self, z_um: Planes) -> torch.Tensor:
        return put(z_um, self.device, self.real_dtype).reshape(-1)

    def _pistons(self, z_um: Planes) -> torch.Tensor:
        phase = torch.as_tensor(z_um, dtype=torch.float64).reshape(-1, 1, 1, 1).cpu() * self.kernels.piston
        return torch.polar(torch.ones_like(phase), phase).to(self.dtype).to(self.device)

    def _batch(self, field: torch.Tensor) -> torch.Tensor:
        if field.shape[-2:] != torch.Size(self.object_shape):
            raise OptionError(f"the object is {tuple(field.shape[-2:])}; this forward model needs {self.object_shape}")
        return field if field.ndim == 3 else field.unsqueeze(0)
