"""Stacks that are solved a block of planes at a time, so that memory does not grow with the number of planes.

:class:`PlaneBlocks` has the planes, :class:`PlaneSolver` what solvers of them share.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from numpy.typing import NDArray

from fpmtools import storage
from fpmtools.forward import KeptKernels
from fpmtools.problem import Problem
from fpmtools.reconstruction import PlaneStack
from fpmtools.solver import Solver

BLOCK_SAMPLES = 1 << 22  # complex samples of the object planes that are in work at once
BATCHES = 4  # of the forward model's batches that a step of many images takes


class PlaneBlocks:
    """The planes of a problem in blocks of nearly equal size, and the spectra of those that are finished.

    A solver works on the spectra of one block, [z, H, W] on the problem's device, and hands them over when it is done
    with them. What is finished lives in host memory, or on disk where that would be too much.
    """

    def __init__(self, problem: Problem, at_once: int | None = None) -> None:
        """``at_once``: planes that may be in work together, at most, even if their spectra leave room for more."""
        self.problem = problem
        planes, shape = len(problem.z_um), problem.forward.object_shape
        room = max(1, BLOCK_SAMPLES // math.prod(shape))
        self.count = math.ceil(planes / (room if at_once is None else min(room, max(1, at_once))))
        self.first = 0
        self._per_block = math.ceil(planes / self.count)
        self._kernels: KeptKernels | None = None  # of the block in work
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
        if self._kernels is None or self._kernels.z_um != self.z_um:
            self._kernels = KeptKernels(self.problem.forward, self.z_um)
        return self._kernels(leds)

    def first_guess(self) -> torch.Tensor:
        """Centred spectra [z, H, W] that every plane in work starts from."""
        return self.problem.first_guess().repeat(len(self.z_um), 1, 1)

    def finish(self, spectra: torch.Tensor) -> bool:
        """Keep the spectra of the block in work and go on to the next; True when there is none."""
        self._need_all(spectra)
        self._finished[self.block] = spectra.cpu().numpy()
        storage.release(self._finished)
        self.first = self.block.stop
        return self.done

    def stack(self, spectra: torch.Tensor | None = None) -> PlaneStack:
        """All planes: what is finished, ``spectra`` for those in work, and the first guess for the others."""
        problem = self.problem
        extent_um = problem.forward.extent_um
        return PlaneStack.from_spectra(self._planes(spectra), problem.z_um, problem.output_shape, extent_um)

    def spectra(self, spectra: torch.Tensor | None = None) -> tuple[tuple[float, ...], torch.Tensor]:
        """Depths in µm and centred spectra [z, H, W] of what is finished, and of ``spectra`` for those in work."""
        finished = torch.from_numpy(self._finished[: self.first]).to(self.problem.device)
        known = finished if spectra is None else torch.cat([finished, spectra]) if self.first else spectra
        return self.problem.z_um[: len(known)], known

    def images_per_step(self, planes: int) -> int:
        """How many images a step may take at so many planes and still be short."""
        forward = self.problem.forward
        fields = planes * forward.fields_per_image
        return max(1, BATCHES * forward.batch_samples // math.prod(forward.image_shape) // fields)

    def _planes(self, spectra: torch.Tensor | None) -> Iterator[NDArray[Any]]:
        yield from self._finished[: self.first]
        if spectra is not None:
            self._need_all(spectra)
            yield from spectra.cpu().numpy()
        rest = len(self.problem.z_um) - self.first - (0 if spectra is None else len(spectra))
        if rest:
            guess = self.problem.first_guess().cpu().numpy()
            for _ in range(rest):
                yield guess

    def _need_all(self, spectra: torch.Tensor) -> None:
        expected = (len(self.z_um), *self.problem.forward.object_shape)
        if spectra.shape != expected:
            raise ValueError(f"the planes in work have spectra of {expected}, not {tuple(spectra.shape)}")

    def dump(self) -> dict[str, torch.Tensor]:
        """What is finished, for a checkpoint."""
        return {"finished": torch.from_numpy(self._finished[: self.first])}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Inverse of :meth:`dump`."""
        self.first = len(tensors["finished"])
        self._finished[: self.first] = tensors["finished"].cpu().numpy()


class PlaneState:
    """What every state of a :class:`PlaneSolver` has. A subclass declares what else the planes in work need."""

    spectra: torch.Tensor  # of the planes in work, [z, H, W], where the solver works on these

    def __init__(self, problem: Problem, at_once: int | None = None) -> None:
        """``at_once``: see :class:`PlaneBlocks`."""
        self.problem = problem
        self.blocks = PlaneBlocks(problem, at_once)
        self.earlier = 0  # steps that the finished blocks took


State = TypeVar("State", bound=PlaneState)


class PlaneSolver(Solver[State]):
    """Base class of solvers that have one object per plane and solve them a block at a time.

    A subclass implements :meth:`start`, which makes its state and calls :meth:`begin`, :meth:`begin` itself, and
    :meth:`step`, which ends with :meth:`advance`. Results, checkpoints and spectra are made here.
    """

    kept: ClassVar[tuple[str, ...]]  # of the state, tensors and numbers that a checkpoint needs; start makes the rest

    @abstractmethod
    def begin(self, state: State) -> None:
        """Prepare to solve the planes ``state.blocks.block``."""

    def in_work(self, state: State) -> torch.Tensor:
        """Centred spectra [z, H, W] of the planes in work, as a result has them."""
        return state.spectra

    def advance(self, state: State, taken: int, most: int, *, finished: bool) -> tuple[int, int]:
        """After ``taken`` of at most ``most`` steps of this block: step and total of the run, for :class:`Progress`.

        When the block is ``finished`` its planes are kept and the next begins; ``state.blocks.done`` says whether there
        was one.
        """
        blocks, step = state.blocks, state.earlier + taken
        if finished:
            state.earlier = step
            if not blocks.finish(self.in_work(state)):
                self.begin(state)
        return step, state.earlier + (blocks.count - blocks.number) * most

    def spectra(self, state: State) -> tuple[tuple[float, ...], torch.Tensor]:
        """What the object is taken to be: depths in µm and centred spectra [z, H, W], as the forward model takes them.

        Of planes that are finished or in work, on the problem's device; not to be changed in place.
        """
        return state.blocks.spectra(self._unfinished(state))

    def result(self, state: State) -> PlaneStack:
        """All planes; those of blocks not yet begun are still the first guess."""
        return state.blocks.stack(self._unfinished(state))

    def _unfinished(self, state: State) -> torch.Tensor | None:
        return None if state.blocks.done else self.in_work(state)

    def dump(self, state: State) -> dict[str, torch.Tensor]:
        """What is finished, and what is kept of the planes in work."""
        values = {name: torch.as_tensor(getattr(state, name)) for name in (*self.kept, "earlier")}
        return {**values, **state.blocks.dump()}

    def restore(self, problem: Problem, tensors: Mapping[str, torch.Tensor]) -> State:
        """Inverse of :meth:`dump`."""
        state = self.start(problem)
        state.blocks.restore(tensors)
        for name in (*self.kept, "earlier"):
            value = tensors[name]
            setattr(state, name, value if isinstance(getattr(state, name), torch.Tensor) else value.item())
        return state
