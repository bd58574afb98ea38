"""Limited-memory BFGS for many planes at once: Liu, Nocedal, Math. Program. 45, 503 (1989).

:class:`Pairs` is its memory, :class:`Search` a descent without line search, for what has a first guess of the inverse
Hessian that never steps too far.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch

from fpmtools.optics import Shape

ROOM, ROOM_ON_CARDS = 1 << 24, 1 << 27  # complex samples that planes and all that is kept of them may take
BESIDES = 6  # spectra of a plane that a solver has besides the pairs, or nearly
SHRINK, SHORTEST = 0.3, 0.05  # of a step that is taken back; below that the memory is lost
SLOWING = 10.0  # times the gain that ends a descent: one that small after a larger one may be followed by large ones


def planes_at_once(shape: Shape, memory: int, device: torch.device) -> int:
    """How many planes of spectra ``shape`` (y, x) there is room for, each with so many pairs; at least 1."""
    room = ROOM if device.type == "cpu" else ROOM_ON_CARDS
    return max(1, room // (shape[0] * shape[1] * (2 * memory + BESIDES)))


class Pair(NamedTuple):
    """A step and the change of the gradient along it, [z, H, W]; their product, [z], 0 where they tell nothing."""

    step: torch.Tensor
    change: torch.Tensor
    bend: torch.Tensor


class Pairs:
    """The last steps of planes and how the gradient changed along each, which is what is known of the curvature.

    Each plane has its own.

    Parameters
    ----------
    most
        Pairs that are kept; older ones are forgotten.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._pairs: list[Pair] = []  # oldest first

    def __len__(self) -> int:
        return len(self._pairs)

    def add(self, step: torch.Tensor, change: torch.Tensor, told: torch.Tensor | None = None) -> None:
        """Remember a step [z, H, W] and the change of the gradient along it, where they tell something, [z] bool."""
        bend = dot(flat(step), flat(change))
        self._pairs.append(Pair(step, change, bend if told is None else bend * told))
        del self._pairs[: -self.most]

    def fill(self, planes: torch.Tensor, step: torch.Tensor, change: torch.Tensor) -> None:
        """Some planes, by their indices, of the newest pair, if there is one."""
        for pair in self._pairs[-1:]:
            pair.step[planes], pair.change[planes], pair.bend[planes] = step, change, dot(flat(step), flat(change))

    def forget(self, planes: torch.Tensor) -> None:
        """Know nothing any more of these planes, [z] bool."""
        for pair in self._pairs:
            pair.bend.masked_fill_(planes, 0)

    def bent(self, more: torch.Tensor) -> None:
        """A quadratic term has come to what is minimised: it adds ``more`` [z, H, W] to the Hessian's diagonal."""
        for step, change, bend in self._pairs:
            change.addcmul_(step, more)
            bend.copy_(torch.where(bend == 0, 0, dot(flat(step), flat(change))))

    def of(self, planes: torch.Tensor) -> Pairs:
        """Those of some planes, by their indices."""
        part = Pairs(self.most)
        part._pairs = [Pair(*(value[planes] for value in pair)) for pair in self._pairs]
        return part

    def direction(self, gradient: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
        """Where to go down, by the two loops: the inverse Hessian times the gradient.

        Parameters
        ----------
        gradient
            Of each plane, [z, H, W] complex, ∂/∂Re + i ∂/∂Im.
        inverse
            First guess of the inverse Hessian's diagonal, [z, H, W] real; scaled by the newest pair.

        Returns
        -------
        torch.Tensor
            [z, H, W]; to be subtracted.
        """
        found = gradient.clone()
        down, turned = flat(found), []
        for step, change, bend in reversed(self._pairs):
            share = torch.where(bend > 0, dot(flat(step), down) / bend, 0)
            down.addcmul_(flat(change), share[:, None], value=-1)
            turned.append((flat(step), flat(change), bend, share))
        found *= inverse
        for _, change, bend in self._pairs[-1:]:
            scale = bend / dot(flat(change), flat(change * inverse))
            found *= torch.where(scale > 0, scale, 1)[:, None, None]
        for along, across, bend, share in reversed(turned):
            back = torch.where(bend > 0, dot(across, down) / bend, 0)
            down.addcmul_(along, (share - back)[:, None])
        return found

    def dump(self) -> dict[str, torch.Tensor]:
        """All of it, for a checkpoint."""
        pairs = enumerate(self._pairs)
        return {f"{name}.{i}": value for i, pair in pairs for name, value in zip(Pair._fields, pair, strict=True)}

    @classmethod
    def restore(cls, most: int, tensors: Mapping[str, torch.Tensor]) -> Pairs:
        """Inverse of :meth:`dump`; tensors of other names do not matter."""
        pairs, count = cls(most), sum(name.startswith(f"{Pair._fields[0]}.") for name in tensors)
        pairs._pairs = [Pair(*(tensors[f"{name}.{i}"] for name in Pair._fields)) for i in range(count)]
        return pairs


@dataclass
class Search:
    """Where planes stand, and what is tried next; each plane on its own.

    What is minimised is a misfit and ½ Σ prior |spectrum|². A try that is no better is taken back, and a shorter step
    follows; in the end all memory of that plane is lost, and a plain step follows: one with the first guess of the
    inverse Hessian alone, which must be small enough to lower the value.
    """

    point: torch.Tensor  # the best so far, [z, H, W]
    misfit: torch.Tensor  # there, [z]
    slope: torch.Tensor  # its gradient, [z, H, W]
    prior: torch.Tensor  # [z, H, W] real
    known: torch.Tensor  # tries that count since the memory was last lost, [z]; 1: the next one is a plain step
    length: torch.Tensor  # of the step that is tried next, in units of what the memory asks for, [z]
    ahead: torch.Tensor  # what is tried next, [z, H, W]
    pairs: Pairs

    @classmethod
    def begin(cls, point: torch.Tensor, memory: int, prior: torch.Tensor | None = None) -> Search:
        """At spectra [z, H, W] of which nothing is known yet, and which are the first to be tried."""
        misfit, prior = torch.zeros_like(point[:, 0, 0].real), torch.zeros_like(point.real) if prior is None else prior
        known = torch.zeros_like(misfit, dtype=torch.int64)
        return cls(
            point, misfit, torch.zeros_like(point), prior, known, torch.ones_like(misfit), point.clone(), Pairs(memory)
        )

    def of(self, planes: torch.Tensor) -> Search:
        """Some of the planes, by their indices."""
        parts = {name: value[planes] for name, value in vars(self).items() if name != "pairs"}
        return Search(**parts, pairs=self.pairs.of(planes))

    def expect(self, prior: torch.Tensor) -> None:
        """Take another prior."""
        self.pairs.bent(prior - self.prior)
        self.prior = prior

    def take(self, misfit: torch.Tensor, slope: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Go where it was tried, where that is better.

        Parameters
        ----------
        misfit, slope
            At ``ahead``, [z], and its gradient, [z, H, W]; both are kept.

        Returns
        -------
        gain
            Share by which the value fell, [z].
        tells
            Where it tells what is left to gain, [z] bool: elsewhere a plain step has not been tried yet.
        """
        gain = torch.where(
            self.known > 0, 1 - self._value(misfit, self.ahead) / self._value(self.misfit, self.point), 1
        )
        better = gain >= 0
        tells = (better | (self.known == 1)) & (self.known > 0)
        step = self.ahead - self.point
        self.pairs.add(step, slope - self.slope + self.prior * step, better & (self.known > 0))
        self.length = torch.where(better, 1.0, self.length * SHRINK)
        lost = self.length < SHORTEST
        self.pairs.forget(lost)
        self.known = torch.where(lost, 1, self.known + better)
        self.length = torch.where(lost, 1.0, self.length)
        self.misfit = torch.where(better, misfit, self.misfit)
        self.slope = torch.where(better[:, None, None], slope, self.slope)
        self.point = torch.where(better[:, None, None], self.ahead, self.point)
        return gain, tells

    def _value(self, misfit: torch.Tensor, spectra: torch.Tensor) -> torch.Tensor:
        power = spectra.real.square().addcmul_(spectra.imag, spectra.imag)
        return misfit + dot(self.prior.flatten(1), power.flatten(1)) / 2

    def aim(self, curvature: torch.Tensor) -> None:
        """Choose what is tried next; ``curvature`` [z, H, W] bounds that of the misfit."""
        asked = self.slope + self.prior * self.point
        down = self.pairs.direction(asked, 1 / (curvature + self.prior))
        self.ahead = self.point - self.length[:, None, None] * down

    def stepped(self, curvature: torch.Tensor) -> torch.Tensor:
        """A plain step on from the best so far, which needs no try, [z, H, W]."""
        return self.point - (self.slope + self.prior * self.point) / (curvature + self.prior)

    def dump(self) -> dict[str, torch.Tensor]:
        """All of it, for a checkpoint."""
        return {name: value for name, value in vars(self).items() if name != "pairs"} | self.pairs.dump()

    @classmethod
    def restore(cls, memory: int, tensors: Mapping[str, torch.Tensor]) -> Search:
        """Inverse of :meth:`dump`; tensors of other names do not matter."""
        own = {name: tensors[name] for name in ("point", "misfit", "slope", "prior", "known", "length", "ahead")}
        return cls(**own, pairs=Pairs.restore(memory, tensors))


def quiet(gain: torch.Tensor, before: torch.Tensor, stop_below: float | torch.Tensor) -> torch.Tensor:
    """Whether a descent is at its end, [z] bool: by the share that a step gained, and the one before it, [z] both.

    A step that gains next to nothing between two that gain much is not the end.
    """
    return (gain < stop_below) & (before < SLOWING * stop_below)


def flat(planes: torch.Tensor) -> torch.Tensor:
    """Complex planes [z, H, W] as the real numbers they are made of, [z, 2 H W]; a view."""
    return torch.view_as_real(planes).flatten(1)


def dot(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Inner products of the rows of real numbers [z, n], [z]."""
    return torch.einsum("zn,zn->z", first, second)
