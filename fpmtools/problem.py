"""What a solver is given: amplitudes, forward model and planes, put together from a data set."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, cast

import numpy as np
import torch

from fpmtools.dataset import Dataset
from fpmtools.errors import OptionError
from fpmtools.forward import ForwardModel
from fpmtools.optics import Shape, resize_spectrum, to_spectrum
from fpmtools.sampling import SamplingPlan, intensity_scale

MANY_PIXELS = 1 << 15  # of the object grid, from which on several threads pay


@dataclass(frozen=True)
class Problem:
    """All that a solver is given. Everything is on ``forward.device`` and on the sampling plan's grids.

    ``amplitudes`` [led, y, x] real: square roots of the measured intensities, scaled so that the mean bright-field
    intensity is 1. The LEDs are those of ``forward.na``: the data set's, or, where its images show that
    the board stands elsewhere, moved by ``led_shift_na`` (x, y) and without those that do not agree even then.
    ``z_um``: the planes to reconstruct, ascending, at least one. ``z_range`` = (first, last): a solver with a
    continuous z covers all of it. ``output_shape`` (y, x): the size at which the result is shown by default.
    """

    dataset: Dataset
    forward: ForwardModel
    amplitudes: torch.Tensor
    z_um: tuple[float, ...]
    output_shape: Shape
    intensity_scale: float
    seed: int = 0
    led_shift_na: tuple[float, float] = (0.0, 0.0)

    @property
    def z_range(self) -> tuple[float, float]:
        """Lowest and highest z, µm."""
        return self.z_um[0], self.z_um[-1]

    @property
    def order(self) -> list[int]:
        """LED indices by ascending |NA|."""
        return cast(list[int], np.argsort(np.linalg.norm(self.forward.na, axis=1), kind="stable").tolist())

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.forward.device

    def first_guess(self) -> torch.Tensor:
        """Centred object spectrum [H, W] of the image of the LED nearest to the axis, as an amplitude without phase.

        An image a hundred times darker than the brightest is passed over.

        What no LED's pupil covers is left at zero, since no measurement could ever change it.
        """
        power = self.amplitudes.square().mean((1, 2))
        lit = (power >= 0.01 * power.max()).cpu()
        amplitude = self.amplitudes[next(led for led in self.order if lit[led])].cpu().numpy()
        height, width = self.forward.object_shape
        spectrum = resize_spectrum(to_spectrum(amplitude), (height, width)) * (height * width / amplitude.size)
        spectrum = spectrum * self.forward.synthetic_support()
        return torch.from_numpy(spectrum).to(self.forward.dtype).to(self.device)

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

    def led_weights(self, power: float) -> torch.Tensor:
        """Weight (mean intensity)^-power of each LED's squared amplitude error, [led], scaled to a mean of 1.

        Photon noise is the same in all amplitudes, which asks for 0; more makes up for the dark field's small values.
        """
        weights = self.amplitudes.square().mean((1, 2)).clamp_min(1e-12).pow(-power)
        return weights / weights.mean()


class Wishes(Protocol):
    """Who asks for grids: a solver."""

    def grid(self) -> Mapping[str, bool]:
        """What it asks of :func:`prepare`."""


def choose_device(name: str = "auto") -> torch.device:
    """``auto`` (CUDA if there is any, else the CPU), ``cpu``, ``cuda`` or ``cuda:N``."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name != "cpu" and name.split(":")[0] != "cuda":
        raise OptionError(f"unknown device {name!r}: use auto, cpu or cuda")
    if name != "cpu" and not torch.cuda.is_available():
        raise OptionError(f"device {name}: PyTorch finds no CUDA device here; use --device cpu")
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
    z_um: Sequence[float] | float | None = None,
    device: str = "auto",
    dtype: str = "complex64",
    seed: int = 0,
    upsample: float | None = None,
    critical_grid: bool | None = None,
    subpixel: bool | None = None,
    trust_leds: bool = False,
) -> Problem:
    """Put a data set on a device and on its sampling plan's grids.

    Parameters
    ----------
    z_um
        Planes to reconstruct at, µm, ascending; default: ``dataset.planes_um``.
    device, dtype
        See :func:`choose_device`; "complex64" or "complex128".
    upsample, critical_grid
        See :meth:`SamplingPlan.choose`.
    subpixel
        Keep each LED's exact shift (True) or round it to the Fourier grid.
    trust_leds
        Take the LED positions as they are, and not as the images correct them (:attr:`Dataset.board`).
    solver
        Decides ``critical_grid`` and ``subpixel`` where they are None; without it both are True.
    """
    if z_um is None:
        z_um = dataset.planes_um
    planes = tuple(float(z) for z in np.atleast_1d(np.asarray(z_um, dtype=np.float64)))
    if not planes or not all(map(math.isfinite, planes)) or any(a >= b for a, b in itertools.pairwise(planes)):
        raise OptionError("z must be one or more finite values in ascending order")
    if dtype not in DTYPES:
        raise OptionError(f"unknown dtype {dtype!r}: use complex64 or complex128")
    where = choose_device(device)
    dataset.validate()
    wish = {"critical_grid": True, "subpixel": True, **(solver.grid() if solver else {})}
    critical_grid = wish["critical_grid"] if critical_grid is None else critical_grid
    subpixel = wish["subpixel"] if subpixel is None else subpixel
    used, board, shift = dataset, dataset.board, (0.0, 0.0)
    if (board.shift.any() or board.left_out.any()) and not trust_leds:
        shift = (float(board.shift[0]), float(board.shift[1]))
        used = replace(dataset, na=dataset.na + board.shift).select(np.flatnonzero(~board.left_out))
    plan = SamplingPlan.choose(used, upsample=upsample, critical=critical_grid)
    scale = intensity_scale(used)
    forward = ForwardModel(
        used.optics,
        used.na,
        plan.image_shape,
        plan.object_shape,
        pixel_um=plan.pixel_um,
        pupil=used.pupil,
        subpixel=subpixel,
        device=where,
        dtype=DTYPES[dtype],
    )
    amplitudes = plan.amplitudes(used, scale, forward.real_dtype).to(where)
    return Problem(dataset, forward, amplitudes, planes, plan.output_shape, scale, seed, shift)
