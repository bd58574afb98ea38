"""The memory of L-BFGS against dense BFGS."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fpmtools import quasi_newton

SHAPE = (3, 5)


def real(plane: torch.Tensor) -> np.ndarray:
    return torch.view_as_real(plane).numpy().ravel()


def dense(
    pairs: list[tuple[np.ndarray, np.ndarray]], first: np.ndarray, gradient: np.ndarray, *, scaled: bool
) -> np.ndarray:
    """The inverse Hessian of BFGS times a gradient; pairs oldest first, the newest scales the first guess."""
    inverse = np.diag(first)
    if scaled:
        step, change = pairs[-1]
        inverse *= (step @ change) / (change @ (first * change))
    for step, change in pairs:
        turn = np.eye(len(first)) - np.outer(step, change) / (step @ change)
        inverse = turn @ inverse @ turn.T + np.outer(step, step) / (step @ change)
    return inverse @ gradient


@pytest.mark.parametrize("added", [False, True])
def test_each_plane_has_its_own_memory(added: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    planes = (3, *SHAPE)

    def some() -> torch.Tensor:
        return torch.complex(*(torch.randn(planes, generator=generator, dtype=torch.float64) for _ in range(2)))

    bend = 1 + torch.rand(planes, generator=generator, dtype=torch.float64)
    more = torch.rand(planes, generator=generator, dtype=torch.float64)
    gradient, inverse = some(), 1 / bend.square()
    memory = quasi_newton.Pairs(3)
    assert memory.last is None
    steps = [some() for _ in range(5)]
    for i, step in enumerate(steps):
        uphill = torch.tensor([1.0, 1.0, -1.0 if i == 3 else 1.0])[:, None, None]  # no curvature of a minimum
        memory.add(step, step * bend * uphill, torch.tensor([True, i != 4, True]))
        if i == 2:
            memory.forget(torch.tensor([False, True, False]))
    assert len(memory) == 3
    again = quasi_newton.Pairs.restore(3, memory.dump() | {"other": gradient})
    for pairs, chosen in ((memory, [0, 1, 2]), (again, [0, 1, 2]), (memory.of(torch.tensor([2, 1])), [2, 1])):
        found = pairs.direction(gradient[chosen], inverse[chosen], more[chosen] if added else None)
        for plane, own in zip(chosen, found, strict=True):
            extra = more[plane] if added else 0
            known = {0: [2, 3, 4], 1: [3], 2: [2, 4]}[plane]
            used = [(real(steps[i][plane]), real(steps[i][plane] * (bend[plane] + extra))) for i in known]
            first = np.repeat(inverse[plane].numpy().ravel(), 2)
            expected = dense(used, first, real(gradient[plane]), scaled=4 in known)
            assert np.allclose(real(own), expected, rtol=1e-10, atol=1e-12)
