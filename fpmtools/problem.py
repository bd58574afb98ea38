"""What a solver is given: amplitudes, forward model and planes, put together from a data set."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray

from fpmtools import losses
from fpmtools.calibration import Calibration
from fpmtools.dataset import Dataset, as_planes
from fpmtools.errors import DataError, OptionError, expect
from fpmtools.forward import ForwardModel, Misfit
from fpmtools.forward.fields import Planes
from fpmtools.losses import Loss
from fpmtools.noise import measure
from fpmtools.optics import Shape, resize_spectrum, to_spectrum
from fpmtools.reconstruction import Grid
from fpmtools.sampling import SamplingPlan, suggested_margin
from fpmtools.transfer import take

MANY_PIXELS = 1 << 15  # of the object grid, from which on several threads pay


@dataclass(frozen=True)
class Problem:
    """All that a solver is given. Everything is on ``forward.device`` and on the sampling plan's grids.

    ``amplitudes`` [image, y, x] real: square roots of the measured intensities, scaled so that the mean bright-field
    intensity is 1. They are those of the images that ``calibration`` uses, and ``forward`` has no others.
    ``z_um``: the planes to reconstruct, ascending, at least one. ``z_range`` = (first, last): a solver with a
    continuous z covers all of it. ``loss``: what is to be minimised, see :meth:`loss_and_gradient`.
    """

    dataset: Dataset
    forward: ForwardModel
    amplitudes: torch.Tensor
    z_um: tuple[float, ...]
    calibration: Calibration
    seed: int = 0
    loss: Loss = losses.amplitude
    curved: bool = False

    @property
    def loss_name(self) -> str:
        """What the number that :meth:`loss_and_gradient` gives is called."""
        return f"{getattr(self.loss, '__name__', 'other')} loss"

    @property
    def output_shape(self) -> Shape:
        """(y, x): the size at which the result is shown by default."""
        return self.forward.plan.output_shape

    @property
    def grid(self) -> Grid:
        """Where its reconstruction lives: the camera's field of view, and what is solved beyond it."""
        plan = self.forward.plan
        y, x = (e - 2 * m for e, m in zip(plan.extent_um, plan.margin_um, strict=True))
        return Grid(plan.output_shape, (y, x), self.z_range, plan.margin_um)

    @property
    def intensity_scale(self) -> float:
        """The measured intensity that counts as 1."""
        return self.forward.plan.scale

    @property
    def z_range(self) -> tuple[float, float]:
        """Lowest and highest z, µm."""
        return self.z_um[0], self.z_um[-1]

    @property
    def masked(self) -> bool:
        """Whether there are saturated or stuck pixels, which do not count; see :meth:`ForwardModel.seen`."""
        return self.forward.mask is not None

    @property
    def order(self) -> list[int]:
        """Image indices by ascending |NA|."""
        return cast(list[int], self.forward.calibration.order.tolist())

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.forward.device

    def minimising(self, loss: str | Loss) -> Problem:
        """The same problem with another loss, by name or as a function: for a solver that has its own."""
        return replace(self, loss=losses.find(loss)[1])

    def loss_and_gradient(
        self,
        spectra: torch.Tensor,
        z_um: Planes,
        images: Sequence[int] | None = None,
        *,
        weights: torch.Tensor | None = None,
        kernel: torch.Tensor | None = None,
    ) -> Misfit:
        """:meth:`ForwardModel.loss_and_gradient` of this problem's loss and of its amplitudes of ``images``.

        A solver that descends along it takes any loss, patterns, gains and background, without a line of its own.
        """
        return self.forward.loss_and_gradient(
            spectra, take(self.amplitudes, images), z_um, images, loss=self.loss, weights=weights, kernel=kernel
        )

    def first_guess(self) -> torch.Tensor:
        """Centred object spectrum [H, W] of the image of the LED nearest to the axis, as an amplitude without phase.

        An image a hundred times darker than the brightest is passed over. Where several LEDs add up to the image the
        object is as much darker. ``curved``: with the phase that LEDs at a known height give all of the field.

        What no LED's pupil covers is left at zero, since no measurement could ever change it.
        """
        power = self.amplitudes.square().mean((1, 2))
        lit = (power >= 0.01 * power.max()).cpu()
        image = next(image for image in self.order if lit[image])
        amplitude = self.amplitudes[image].cpu().numpy() / math.sqrt(self._direct_light(image))
        guess = amplitude * self._curvature() if self.curved else amplitude
        height, width = self.forward.object_shape
        spectrum = resize_spectrum(to_spectrum(guess), (height, width)) * (height * width / guess.size)
        spectrum = spectrum * self.forward.synthetic_support()
        return torch.from_numpy(spectrum).to(self.forward.dtype).to(self.device)

    def _curvature(self) -> NDArray[np.complex128] | complex:
        """exp(ik|s|²/2h) [y, x] on the images' grid, s from the middle; 1 where no LED's height is known."""
        plan, height_mm = self.forward.plan, self.forward.calibration.height_mm
        if height_mm is None:
            return 1.0
        rate = self.forward.optics.curvature(1e3 * float(height_mm.mean()))
        y, x = (
            np.exp(1j * rate * ((np.arange(n) / n - 0.5) * extent) ** 2)
            for n, extent in zip(plan.image_shape, plan.extent_um, strict=True)
        )
        return np.asarray(y[:, None] * x)

    def _direct_light(self, image: int) -> float:
        """Of how many bright-field LEDs an image has the light; 1 where that is not known."""
        known, optics = self.forward.calibration, self.forward.optics
        if known.patterns is None:
            return 1.0
        inside = np.linalg.norm(known.na, axis=1) <= optics.na
        return float(known.patterns[image, inside].sum()) or 1.0

    def generator(self, step: int = 0) -> torch.Generator:
        """A fresh CPU generator for this run's seed and a step: the same numbers on every device, no state to keep."""
        # The CPU generator takes 32 bits only, so seed and step are mixed instead of set side by side.
        word = np.random.SeedSequence(self.seed, spawn_key=(step,)).generate_state(1, np.uint32)[0]
        return torch.Generator().manual_seed(int(word))

    def led_batch(self, step: int, size: int) -> list[int]:
        """LEDs of a step that takes ``size`` at a time: every sweep visits each LED once, in a new random order."""
        leds = len(self.amplitudes)
        sweep, batch = divmod(step, -(-leds // size))
        order = torch.randperm(leds, generator=self.generator(sweep))
        return cast(list[int], order[batch * size : (batch + 1) * size].tolist())

    @cached_property
    def noise(self) -> torch.Tensor:
        """Variance of each image's amplitudes that noise alone makes, [image] float64 on the CPU."""
        used = self.dataset.select(np.flatnonzero(self.calibration.used))
        found, plan, scale = measure(used), self.forward.plan, self.intensity_scale
        pixel = math.prod(plan.extent_um) / math.prod(plan.image_shape)
        share = min(1.0, self.dataset.optics.pixel_um**2 / pixel)  # that band-limited resampling leaves
        light = self.amplitudes.square().mean((1, 2)).double().cpu().numpy()
        variance = [float(found.variance(i, np.asarray(own * scale))) for i, own in enumerate(light)]
        of_amplitudes = np.array(variance) * share / scale**2 / np.maximum(4 * light, 1e-12)
        return torch.from_numpy(np.minimum(of_amplitudes, light))


class Wishes(Protocol):
    """Who asks for grids, and says what it can take: a solver."""

    handles: ClassVar[frozenset[str]]

    def grid(self) -> Mapping[str, bool]:
        """What it asks of :func:`prepare`."""


def choose_device(name: str = "auto") -> torch.device:
    """``auto`` (CUDA if there is any, else the CPU), ``cpu``, ``cuda`` or ``cuda:N``."""
    expect(name, str, "device", "auto, cpu, cuda or cuda:N")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name != "cpu" and name.split(":")[0] != "cuda":
        raise OptionError(f"unknown device {name!r}: use auto, cpu or cuda")
    if name != "cpu" and not torch.cuda.is_available():
        raise OptionError(f"device {name}: PyTorch finds no CUDA device here; use device cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise OptionError(f"unknown device {name!r}: use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise OptionError(f"device {name}: there are only {torch.cuda.device_count()} CUDA devices")
    return device


def suggested_threads(problem: Problem) -> int:
    """CPU threads that suit a problem: one for small object grids, where handing work over costs more than it saves."""
    height, width = problem.forward.object_shape
    return 1 if height * width < MANY_PIXELS else torch.get_num_threads()


DTYPES = {"complex64": torch.complex64, "complex128": torch.complex128}


def prepare(
    dataset: Dataset,
    solver: Wishes | None = None,
    *,
    calibration: Calibration | None = None,
    z_um: Sequence[float] | float | None = None,
    loss: str | Loss | None = None,
    device: str = "auto",
    dtype: str = "complex64",
    seed: int = 0,
    upsample: float | None = None,
    critical_grid: bool | None = None,
    subpixel: bool | None = None,
    margin: int | str | None = None,
    mask: bool = True,
    curved: bool = False,
) -> Problem:
    """Put a data set on a device and on its sampling plan's grids.

    Parameters
    ----------
    calibration
        The instrument as it is taken to be; default: the data set's nominal one.
    z_um
        Planes to reconstruct at, µm, ascending; default: where the calibration has looked for the sample, else
        ``dataset.planes_um``: a calibration of another sample says nothing of this one's depth.
    loss
        What is to be minimised, by name or as a function (:mod:`fpmtools.losses`); default: the solver's own.
    device, dtype
        See :func:`choose_device`; "complex64" or "complex128".
    upsample, critical_grid
        See :meth:`SamplingPlan.choose`.
    subpixel
        Keep each LED's exact shift (True) or round it to the Fourier grid.
    margin
        Camera pixels that are solved beyond each border and not shown, or "auto": :func:`suggested_margin`. Default:
        what the calibration has found to pay.
    mask
        Leave saturated and stuck pixels out, see :attr:`fpmtools.images.Images.bad`.
    curved
        Begin with the phase k|s|²/2h, s from the middle of the field, that LEDs at a known height h light it with. It
        is the same for all of them and so belongs to what is found; a solver that begins without finds but a part.
    solver
        Decides ``critical_grid`` and ``subpixel`` where they are None; without it both are True.

    Raises
    ------
    OptionError
        A name or a value that does not fit, or that the solver cannot take.
    DataError
        Measurements that cannot be used.
    """
    calibration = dataset.calibration if calibration is None else calibration
    focused = dataset if calibration.depth_um is None else replace(dataset, calibration=calibration)
    planes = as_planes(focused.planes_um if z_um is None else z_um)
    expect(seed, numbers.Integral, "seed", "a whole number")
    expect(upsample, (numbers.Real, type(None)), "upsample", "a number of output pixels per camera pixel")
    if dtype not in DTYPES:
        raise OptionError(f"unknown dtype {dtype!r}: use complex64 or complex128")
    where = choose_device(device)
    dataset.validate()
    if not calibration.used.any():
        raise DataError(f"{dataset.name}: the calibration leaves no image to use")
    if solver is not None:
        _check_can(solver, "losses", loss is not None, "minimises its own loss and no other")
        _check_can(solver, "patterns", calibration.patterns is not None, "takes images lit by one LED each")
    wish = {"critical_grid": True, "subpixel": True, **(solver.grid() if solver else {})}
    critical_grid = wish["critical_grid"] if critical_grid is None else critical_grid
    subpixel = wish["subpixel"] if subpixel is None else subpixel
    margin = calibration.margin if margin is None else margin
    pixels = suggested_margin(dataset, planes) if margin == "auto" else margin
    if not isinstance(pixels, int):
        raise OptionError(f"margin must be a whole number of camera pixels, or auto; got {margin!r}")
    plan = SamplingPlan.choose(dataset, calibration, upsample=upsample, critical=critical_grid, margin=pixels)
    used = dataset.select(np.flatnonzero(calibration.used))
    bad = dataset.images.bad if mask and dataset.images.bad else None
    left = None if bad is None else plan.mask(used, bad)
    if left is not None and not left.any():
        raise DataError(f"{dataset.name}: all pixels are saturated or stuck")
    forward = ForwardModel(
        dataset.optics, calibration.selected(), plan, subpixel=subpixel, mask=left, device=where, dtype=DTYPES[dtype]
    )
    amplitudes = plan.amplitudes(used, forward.real_dtype, bad).to(where)
    function = losses.find(losses.DEFAULT if loss is None else loss)[1]
    return Problem(dataset, forward, amplitudes, planes, calibration, seed, function, curved)


def _check_can(solver: Wishes, what: str, asked: bool, instead: str) -> None:
    if asked and what not in solver.handles:
        raise OptionError(f"{type(solver).__name__} {instead}; choose a solver that can do {what!r}")
