"""Which depth, which LEDs and which step size each step of the fit takes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch

from fpmtools import Problem, explained, one_cycle

STEPS, LONGEST = 600, 3.0  # and times as many at most
PLENTY = 5e-4  # share of all light that is not explained, from which on more steps would fit noise and misfit
GOLDEN = (5**0.5 - 1) / 2  # multiples of it, modulo 1, are spread evenly however many they are


class Schedule(ABC):
    """Steps are numbered from 0 to ``total`` − 1, and step i is the same however often a run was interrupted."""

    total: int

    def __init__(self, options: Any, problem: Problem) -> None:
        self.options = options
        self.problem = problem

    @staticmethod
    def choose(options: Any, problem: Problem, look: explained.Look | None) -> Schedule:
        """The schedule that ``options.schedule`` names; how long it is may depend on a ``look`` at the data."""
        if options.schedule == "epochs":
            return Epochs(options, problem)
        return OneCycle(options, problem, 1.0 if look is None else look.left())

    @abstractmethod
    def at(self, step: int) -> tuple[list[float], list[int], float]:
        """Depths in µm, LED indices, and Adam's step size."""

    def coarseness(self, step: int) -> int:
        """By how much the object grid is coarsened: 4, 2, 1, for a third of the steps each."""
        return (4, 2, 1)[min(3 * step // self.total, 2)]


class OneCycle(Schedule):
    """Random LED batches, depths evenly spread; the step size rises along a cosine, then falls to zero along one."""

    def __init__(self, options: Any, problem: Problem, left: float) -> None:
        """``left``: share of all light that is not explained however long one fits."""
        super().__init__(options, problem)
        self.total = options.steps or round(STEPS * min(max(1.0, math.sqrt(PLENTY / max(left, 1e-12))), LONGEST))
        self._start = float(torch.rand((), generator=problem.generator()))

    def at(self, step: int) -> tuple[list[float], list[int], float]:
        """One depth, far from those of the steps before."""
        low, high = self.problem.z_range
        z = low + (high - low) * ((self._start + step * GOLDEN) % 1)
        lr = self.options.lr * one_cycle(step, self.total)
        return [z], self.problem.led_batch(step, self.options.led_batch), lr


class Epochs(Schedule):
    """The published schedule.

    Even epochs go through uniform planes, odd epochs through half as many random ones; at each plane all LEDs are
    visited in order of NA; the step size falls by ``lr_decay`` every ``lr_decay_epochs`` epochs. The number of planes
    is ⌈range / (0.8 · 0.5 µm / NA²)⌉; one in 2-D.
    """

    def __init__(self, options: Any, problem: Problem) -> None:
        super().__init__(options, problem)
        low, high = problem.z_range
        # The published code takes λ = 0.5 µm in the depth of field whatever the data's wavelength.
        count = math.ceil((high - low) / (0.8 * 0.5 / problem.dataset.optics.na**2))
        planes = [self._planes(epoch, count) for epoch in range(options.epochs)]
        batches = math.ceil(len(problem.order) / options.led_batch)
        self._steps = [
            (z, batch, epoch) for epoch, depths in enumerate(planes) for z in depths for batch in range(batches)
        ]
        self.total = len(self._steps)

    def _planes(self, epoch: int, count: int) -> list[float]:
        low, high = self.problem.z_range
        if count <= 1:
            # Too thin a range for two planes: the middle one, or in an odd epoch a random one.
            if epoch % 2 == 0 or high == low:
                return [(low + high) / 2]
            return [low + (high - low) * float(torch.rand((), generator=self.problem.generator(epoch)))]
        if epoch % 2 == 0:
            return [low + (high - low) * i / (count - 1) for i in range(count)]
        generator = self.problem.generator(epoch)
        cells = torch.randperm(count - 1, generator=generator)[: count // 2]
        return [
            low + (float(cell) + float(torch.rand((), generator=generator))) * (high - low) / (count - 1)
            for cell in cells
        ]

    def at(self, step: int) -> tuple[list[float], list[int], float]:
        """One plane, the next LEDs by NA."""
        z, batch, epoch = self._steps[step]
        size = self.options.led_batch
        lr = self.options.lr * self.options.lr_decay ** (epoch // self.options.lr_decay_epochs)
        return [z], self.problem.order[batch * size : (batch + 1) * size], lr
