"""What a solver is: options, start, step, result. The host (engine.py) owns loop, clock, screen and files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch

from fpmtools.errors import OptionError
from fpmtools.problem import Problem
from fpmtools.reconstruction import Reconstruction

State = TypeVar("State")


@dataclass(frozen=True)
class Progress:
    """What one step reports. ``loss`` and ``error`` may stay tensors on the device: they are read only when shown.

    ``total``: steps in all, or with ``at_most`` a bound that the solver hopes not to reach. ``what`` says what number
    ``loss`` is. ``error``: mean squared amplitude error of the images that the step has seen, without weights, from
    which a PSNR follows; None where there is none.
    """

    step: int
    total: int
    loss: torch.Tensor | float
    done: bool = False
    at_most: bool = False
    error: torch.Tensor | float | None = None
    what: str = "loss"


class Solver(ABC, Generic[State]):
    """Base class of all solvers.

    A subclass names its frozen ``Options`` dataclass, and optionally ``presets`` (name → option values), and
    implements :meth:`start`, :meth:`step` and :meth:`result`. For runs that can be resumed it also implements
    :meth:`dump` and :meth:`restore`.
    """

    Options: ClassVar[type[Any]]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    handles: ClassVar[frozenset[str]] = frozenset()  # of "losses", "patterns", "masks": what else it can take

    def __init__(self, options: Any = None) -> None:
        self.options = self.Options() if options is None else options

    @abstractmethod
    def start(self, problem: Problem) -> State:
        """Allocate everything; nothing is timed as a step before this returns."""

    @abstractmethod
    def step(self, state: State) -> Progress:
        """Advance by a small piece of work (well under a second where possible) and say how far it is."""

    @abstractmethod
    def result(self, state: State) -> Reconstruction:
        """The reconstruction as it stands; may be called after any number of steps, also none."""

    def dump(self, state: State) -> dict[str, torch.Tensor]:
        """The state as named tensors, for a checkpoint."""
        raise OptionError(f"{type(self).__name__} cannot be checkpointed: it has no dump and restore")

    def restore(self, problem: Problem, tensors: Mapping[str, torch.Tensor]) -> State:
        """The state that :meth:`dump` wrote; continuing from it gives the same result as never having stopped."""
        raise OptionError(f"{type(self).__name__} cannot be resumed: it has no dump and restore")

    def grid(self) -> Mapping[str, bool]:
        """What it asks of :func:`fpmtools.problem.prepare` (``critical_grid``, ``subpixel``); users can overrule it."""
        return {}

    @classmethod
    def resumable(cls) -> bool:
        """Whether the solver implements dump and restore."""
        return cls.dump is not Solver.dump and cls.restore is not Solver.restore
