"""The memory of L-BFGS against dense BFGS."""

from __future__ import annotations

import itertools
import math

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
    steps = [some() for _ in range(5)]
    for i, step in enumerate(steps):
        uphill = torch.tensor([1.0, 1.0, -1.0 if i == 3 else 1.0])[:, None, None]  # no curvature of a minimum
        memory.add(step, step * bend * uphill, torch.tensor([True, i != 4, True]))
        if i == 2:
            memory.forget(torch.tensor([False, True, False]))
    assert len(memory) == 3
    if added:
        memory.bent(more)
    again = quasi_newton.Pairs.restore(3, memory.dump() | {"other": gradient})
    for pairs, chosen in ((memory, [0, 1, 2]), (again, [0, 1, 2]), (memory.of(torch.tensor([2, 1])), [2, 1])):
        found = pairs.direction(gradient[chosen], inverse[chosen])
        for plane, own in zip(chosen, found, strict=True):
            extra = more[plane] if added else 0
            known = {0: [2, 3, 4], 1: [3], 2: [2, 4]}[plane]
            used = [(real(steps[i][plane]), real(steps[i][plane] * (bend[plane] + extra))) for i in known]
            first = np.repeat(inverse[plane].numpy().ravel(), 2)
            expected = dense(used, first, real(gradient[plane]), scaled=4 in known)
            assert np.allclose(real(own), expected, rtol=1e-10, atol=1e-12)


def test_a_search_minimises_what_it_is_given_and_takes_back_what_is_worse() -> None:
    """Two planes, one quadratic and one of fourth order; the first guess of the curvature is far too small at first."""
    generator = torch.Generator().manual_seed(2)
    real, imaginary = (torch.randn((2, *SHAPE), generator=generator, dtype=torch.float64) for _ in range(2))
    goal = torch.complex(real, imaginary)
    prior = torch.full((2, *SHAPE), 0.25, dtype=torch.float64)

    def misfit(at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        off = at - goal
        power = off.abs().square().sum((1, 2))
        higher = torch.tensor([0.0, 1.0], dtype=torch.float64)
        return power / 2 + higher * power.square() / 4, off * (1 + higher * power)[:, None, None]

    def slope(at: torch.Tensor) -> float:
        return float((misfit(at)[1] + prior * at).abs().max())

    search = quasi_newton.Search.begin(torch.zeros_like(goal), 4)
    values, taken_back = [], 0
    for i in range(60):
        before = search.point.clone()
        gain, tells = search.take(*misfit(search.ahead))
        values.append(search.misfit + (prior * search.point.abs().square()).sum((1, 2)) / 2)
        taken_back += int((gain < 0).sum())
        assert (search.point[gain < 0] == before[gain < 0]).all()
        assert not tells.any() if i == 0 else True
        if i == 3:
            search.expect(prior)
        if i == 20:
            search = quasi_newton.Search.restore(4, search.dump())
        search.aim(torch.full_like(prior, 0.3 if i < 3 else 60.0))
    assert taken_back > 0
    assert all((new <= old * (1 + 1e-12)).all() for old, new in itertools.pairwise(values[3:]))
    assert slope(search.point) < 1e-6 < slope(torch.zeros_like(goal))
    assert slope(search.stepped(torch.full_like(prior, 60.0))) <= slope(search.point)


def test_memory_is_bounded_by_what_is_kept_of_each_plane() -> None:
    for shape, memory in (((64, 70), 8), ((700, 500), 8), ((700, 500), 2), ((5000, 5000), 8)):
        planes = quasi_newton.planes_at_once(shape, memory, torch.device("cpu"))
        kept = planes * math.prod(shape) * (2 * memory + quasi_newton.BESIDES)
        assert planes == 1 or kept <= quasi_newton.ROOM < kept * (planes + 1) / planes


def test_a_descent_ends_where_it_has_slowed_down() -> None:
    gain = torch.tensor([0.001, 0.001, 0.02, -0.1])
    before = torch.tensor([0.02, 0.2, 0.001, 0.2])
    assert quasi_newton.quiet(gain, before, 0.003).tolist() == [True, False, False, False]
    assert not quasi_newton.quiet(gain, before, 0.0).any()
