"""Kernels that are needed again and again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from fpmtools.transfer import put, take

if TYPE_CHECKING:
    from fpmtools.forward.model import ForwardModel

CPU_SAMPLES, GPU_SAMPLES = 1 << 22, 1 << 25  # complex, of kernels that are kept


class KeptKernels:
    """Kernels of a forward model's LEDs at some depths, kept where there is room for all until the model changes."""

    def __init__(self, forward: ForwardModel, z_um: Sequence[float]) -> None:
        self.forward, self.z_um = forward, z_um
        self._depths = put(z_um, forward.device, forward.real_dtype)
        self._version = -1
        self._every: torch.Tensor | None = None

    def __call__(self, leds: Sequence[int]) -> torch.Tensor:
        """As :meth:`ForwardModel.kernel`, [z, led or 1, box y, box x]; of neighbours a view."""
        forward = self.forward
        if self._version != forward.version:
            samples = len(self.z_um) * len(forward.na) * math.prod(forward.box_shape)
            room = CPU_SAMPLES if forward.device.type == "cpu" else GPU_SAMPLES
            self._every = forward.kernel(self._depths) if samples <= room else None
            self._version = forward.version
        if self._every is None:
            return forward.kernel(self._depths, leds)
        return self._every if self._every.shape[1] == 1 else take(self._every, leds, 1)
