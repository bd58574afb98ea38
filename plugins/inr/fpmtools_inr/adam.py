"""Adam as ``torch.optim.Adam(…, fused=True)``, whose class imports PyTorch's compiler: a second or two at the start."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.optim.adam import adam

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


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
