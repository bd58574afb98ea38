"""Stacks that are solved a block of planes at a time, so that memory does not grow with the number of planes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fpmtools import storage
from fpmtools.problem import Problem
from fpmtools.reconstruction import PlaneStack

BLOCK_SAMPLES = 1 << 22  # complex samples of the object planes that are in work at once
KERNEL_SAMPLES = 1 << 22  # complex samples of the kernels that are kept from one step to the next


class PlaneBlocks:
    """The planes of a problem in blocks of nearly equal size, and the spectra of those that are finished.

    A solver works on the spectra of one block, [z, H, W] on the problem's device, and hands them over when it is done
    with them. What is finished lives in host memory, or on disk where that would be too much.
    """

    def __init__(self, problem: Problem, at_once: int | None = None) -> None:
        """``at_once``: planes that may be in work together, at most; None: as many as their spectra leave room for."""
        self.problem = problem
        planes, shape = len(problem.z_um), problem.forward.object_shape
        room = BLOCK_SAMPLES // math.prod(shape) if at_once is None else at_once
        self.count = math.ceil(planes / max(1, room))
        self.first = 0
        self._per_block = math.ceil(planes / self.count)
        self._kernel: torch.Tensor | None = None
        self._kernel_of = (-1, -1)  # which version of the forward model, and which block
        dtype = torch.empty(0, dtype=problem.forward.dtype).numpy().dtype
        self._finished = storage.scratch((planes, *shape), dtype)

    @property
    def block(self) -> slice:
        """The planes in work."""
        return slice(self.first, min(self.first + self._per_block, len(self.problem.z_um)))

    @property
    def number(self) -> int:
        """Number of the block in work, from 0; ``count`` when all are finished."""
        return math.ceil(self.first / self._per_block)

    @property
    def done(self) -> bool:
        """Whether all planes are finished."""
        return self.first == len(self.problem.z_um)

    @property
    def z_um(self) -> tuple[float, ...]:
        """Depths of the planes in work, µm."""
        return self.problem.z_um[self.block]

    def kernel(self, leds: Sequence[int]) -> torch.Tensor:
        """Kernels [z, led or 1, box y, box x] of some LEDs at the planes in work; kept where there is room for all."""
        forward = self.problem.forward
        if self._kernel_of != (forward.version, self.first):
            room = len(self.z_um) * len(forward.na) * math.prod(forward.box_shape) <= KERNEL_SAMPLES
            self._kernel = forward.kernel(self.z_um) if room else None
            self._kernel_of = (forward.version, self.first)
        if self._kernel is None:
            return forward.kernel(self.z_um, leds)
        if self._kernel.shape[1] == 1:
            return self._kernel
        return self._kernel[:, leds[0] : leds[0] + 1] if len(leds) == 1 else self._kernel[:, list(leds)]

    def first_guess(self) -> torch.Tensor:
        """Centred spectra [z, H, W] that every plane in work starts from."""
        return self.problem.first_guess().repeat(len(self.z_um), 1, 1)

    def finish(self, spectra: torch.Tensor) -> bool:
        """Keep the spectra of the block in work and go on to the next; True when there is none."""
        self._finished[self.block] = spectra.cpu().numpy()
        storage.release(self._finished)
        self.first = self.block.stop
        return self.done

    def stack(self, spectra: torch.Tensor | None = None) -> PlaneStack:
        """All planes: what is finished, ``spectra`` for those in work, and the first guess for the others."""
        problem = self.problem
        extent_um = problem.forward.extent_um
        return PlaneStack.from_spectra(self._planes(spectra), problem.z_um, problem.output_shape, extent_um)

    def spectra(self, spectra: torch.Tensor | None = None) -> torch.Tensor:
        """Centred spectra [z, H, W] of all planes, as :meth:`stack` takes them."""
        if spectra is not None and len(spectra) == len(self.problem.z_um):
            return spectra
        return torch.from_numpy(np.stack(list(self._planes(spectra)))).to(self.problem.device)

    def _planes(self, spectra: torch.Tensor | None) -> Iterator[NDArray[Any]]:
        yield from self._finished[: self.first]
        if spectra is not None:
            yield from spectra.cpu().numpy()
        rest = len(self.problem.z_um) - self.first - (0 if spectra is None else len(spectra))
        if rest:
            guess = self.problem.first_guess().cpu().numpy()
            for _ in range(rest):
                yield guess

    def dump(self) -> dict[str, torch.Tensor]:
        """What is finished, for a checkpoint."""
        return {"finished": torch.from_numpy(self._finished[: self.first])}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Inverse of :meth:`dump`."""
        self.first = len(tensors["finished"])
        self._finished[: self.first] = tensors["finished"].cpu().numpy()
