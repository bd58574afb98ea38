"""Adam, and the course of its step size over a run of known length.

It is ``torch.optim.Adam(…, fused=True)``, whose class imports PyTorch's compiler: a second or two at the start.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch.optim.adam import adam

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
WARM_UP = 0.2  # share of the steps in which a one-cycle rate rises


def one_cycle(step: int, total: int) -> float:
    """Share of the highest rate that step 0 … ``total`` − 1 takes: up along a cosine, then down to 0 along one."""
    rise = max(1.0, WARM_UP * total)
    turn = (step + 1) / rise - 1 if step < rise else (step - rise) / (total - rise)
    return (1 + math.cos(math.pi * turn)) / 2


class Adam:
    """The moments of parameters, and steps along them; each group of parameters has its share of the rate.

    ``moments``: for each parameter a 0-d count of its steps, and the mean of its gradients and of their squares.
    """

    def __init__(self, groups: Sequence[tuple[Sequence[torch.nn.Parameter], float]]) -> None:
        self.groups = groups
        self.moments = {
            one: {
                "step": torch.zeros((), dtype=torch.float32, device=one.device),
                "exp_avg": torch.zeros_like(one),
                "exp_avg_sq": torch.zeros_like(one),
            }
            for parameters, _ in groups
            for one in parameters
        }

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move every parameter against its gradient, which is gone afterwards."""
        for parameters, share in self.groups:
            steps, means, squares = ([self.moments[one][name] for one in parameters] for name in MOMENTS)
            adam(
                list(parameters),
                [one.grad for one in parameters if one.grad is not None],
                means,
                squares,
                [],
                steps,
                fused=True,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=rate * share,
                weight_decay=0.0,
                eps=1e-8,
                maximize=False,
            )
            for one in parameters:
                one.grad = None

    def dump(self) -> dict[str, torch.Tensor]:
        """The moments by name, for a checkpoint."""
        every = enumerate(self.moments.values())
        return {f"adam.{i}.{name}": value for i, moments in every for name, value in moments.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Inverse of :meth:`dump`, for as many parameters in the same order."""
        for i, one in enumerate(self.moments):
            self.moments[one] = {name: tensors[f"adam.{i}.{name}"] for name in MOMENTS}
