"""Limited-memory BFGS for many planes at once: Liu, Nocedal, Math. Program. 45, 503 (1989).

:class:`Pairs` is its memory, :class:`Search` a descent without line search, for what has a first guess of the inverse
Hessian that never steps too far.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch


class Pair(NamedTuple):
    """A step and the change of the gradient along it, [z, H, W], where they tell something, [z] bool."""

    step: torch.Tensor
    change: torch.Tensor
    told: torch.Tensor


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
        everywhere = torch.ones(len(step), dtype=torch.bool, device=step.device)
        self._pairs.append(Pair(step, change, everywhere if told is None else told.clone()))
        del self._pairs[: -self.most]

    @property
    def last(self) -> Pair | None:
        """The newest pair, which may be changed in place; None where there is none."""
        return self._pairs[-1] if self._pairs else None

    def forget(self, planes: torch.Tensor) -> None:
        """Know nothing any more of these planes, [z] bool."""
        for pair in self._pairs:
            pair.told.logical_and_(~planes)

    def of(self, planes: torch.Tensor) -> Pairs:
        """Those of some planes, by their indices."""
        part = Pairs(self.most)
        part._pairs = [Pair(*(value[planes] for value in pair)) for pair in self._pairs]
        return part

    def direction(
        self, gradient: torch.Tensor, inverse: torch.Tensor, curvature: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Where to go down, by the two loops: the inverse Hessian times the gradient.

        Parameters
        ----------
        gradient
            Of each plane, [z, H, W] complex, ∂/∂Re + i ∂/∂Im.
        inverse
            First guess of the inverse Hessian's diagonal, [z, H, W] real; scaled by the newest pair.
        curvature
            What a quadratic term adds to the Hessian's diagonal that the changes do not have, [z, H, W] real.

        Returns
        -------
        torch.Tensor
            [z, H, W]; to be subtracted.
        """
        down, turned = gradient.clone(), []
        for step, change, told in reversed(self._pairs):
            change = change if curvature is None else torch.addcmul(change, step, curvature)
            bend = dot(step, change) * told
            share = torch.where(bend > 0, dot(step, down) / bend, 0)
            down.sub_(share[:, None, None] * change)
            turned.append((step, change, bend, share))
        down *= inverse
        if turned:
            _, change, bend, _ = turned[0]
            scale = bend / dot(change, change * inverse)
            down *= torch.where(scale > 0, scale, 1)[:, None, None]
        for step, change, bend, share in reversed(turned):
            back = torch.where(bend > 0, dot(change, down) / bend, 0)
            down.add_((share - back)[:, None, None] * step)
        return down

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

    A try that is no better is taken back, all memory of that plane is lost, and a plain step follows: one with the
    first guess of the inverse Hessian alone, which must be small enough to lower the value.
    """

    point: torch.Tensor  # the best so far, [z, H, W]
    misfit: torch.Tensor  # there, without the prior's cost, [z]
    slope: torch.Tensor  # its gradient, [z, H, W]
    known: torch.Tensor  # tries that count since the memory was last lost, [z]; 1: the next one is a plain step
    ahead: torch.Tensor  # what is tried next, [z, H, W]
    pairs: Pairs

    @classmethod
    def begin(cls, point: torch.Tensor, memory: int) -> Search:
        """At spectra [z, H, W] of which nothing is known yet, and which are the first to be tried."""
        misfit, known = torch.zeros_like(point[:, 0, 0].real), torch.zeros(len(point), dtype=torch.int64)
        return cls(point, misfit, torch.zeros_like(point), known.to(point.device), point.clone(), Pairs(memory))

    def of(self, planes: torch.Tensor) -> Search:
        """Some of the planes, by their indices."""
        parts = {name: value[planes] for name, value in vars(self).items() if name != "pairs"}
        return Search(**parts, pairs=self.pairs.of(planes))

    def take(
        self, misfit: torch.Tensor, slope: torch.Tensor, prior: torch.Tensor | None = None, share: float = 0.5
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Go where it was tried, where that is better.

        Parameters
        ----------
        misfit, slope
            At ``ahead``: the value without the prior's cost, [z], and its gradient, [z, H, W]; both are kept.
        prior
            [z, H, W]; it costs ``share`` · Σ prior |spectra|², with the gradient prior · spectra.

        Returns
        -------
        gain
            Share by which the value fell, [z].
        tells
            Where it tells what is left to gain, [z] bool: elsewhere a plain step has not been tried yet.
        """
        before, now = self.misfit, misfit
        if prior is not None:
            before, now = (
                v + share * (prior * squared(x)).sum((1, 2)) for v, x in ((before, self.point), (now, self.ahead))
            )
        gain = torch.where(self.known > 0, 1 - now / before, torch.inf)
        better = gain >= 0
        tells = better | (self.known == 1)
        self.pairs.add(self.ahead - self.point, slope - self.slope, self.known > 0)
        self.pairs.forget(~better)
        self.known = torch.where(better, self.known, 0) + 1
        self.misfit = torch.where(better, misfit, self.misfit)
        self.slope = torch.where(better[:, None, None], slope, self.slope)
        self.point = torch.where(better[:, None, None], self.ahead, self.point)
        return gain, tells

    def aim(self, curvature: torch.Tensor, prior: torch.Tensor | None = None) -> None:
        """Choose what is tried next; ``curvature`` [z, H, W], without the prior, bounds that of the misfit."""
        whole, asked = (
            (curvature, self.slope) if prior is None else (curvature + prior, self.slope + prior * self.point)
        )
        self.ahead = self.point - self.pairs.direction(asked, 1 / whole, prior)

    def stepped(self, curvature: torch.Tensor, prior: torch.Tensor | None = None) -> torch.Tensor:
        """A plain step on from the best so far, which needs no try, [z, H, W]."""
        if prior is None:
            return self.point - self.slope / curvature
        return self.point - (self.slope + prior * self.point) / (curvature + prior)

    def dump(self) -> dict[str, torch.Tensor]:
        """All of it, for a checkpoint."""
        return {name: value for name, value in vars(self).items() if name != "pairs"} | self.pairs.dump()

    @classmethod
    def restore(cls, memory: int, tensors: Mapping[str, torch.Tensor]) -> Search:
        """Inverse of :meth:`dump`; tensors of other names do not matter."""
        own = {name: tensors[name] for name in ("point", "misfit", "slope", "known", "ahead")}
        return cls(**own, pairs=Pairs.restore(memory, tensors))


def squared(values: torch.Tensor) -> torch.Tensor:
    """|values|² of complex numbers."""
    return values.real.square() + values.imag.square()


def dot(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Real inner products of planes [z, H, W], [z]."""
    return (first.real * second.real + first.imag * second.imag).sum((1, 2))
