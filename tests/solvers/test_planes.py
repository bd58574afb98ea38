"""What the solvers of plane stacks share: blocks of planes, what is told on the way, checkpoints between blocks."""

from __future__ import annotations

import math

import pytest
import torch

from fpmtools import planes, registry
from fpmtools.options import make_options
from fpmtools.problem import prepare
from fpmtools.simulation import simulate

OPTIONS = {"ap": {"sweeps": 3}, "fd": {"sweeps": 2}, "mpie": {"sweeps": 2, "halve_below": 0}}


@pytest.mark.parametrize(("name", "options"), OPTIONS.items(), ids=OPTIONS)
def test_one_plane_after_the_other(name, options, monkeypatch):
    problem = prepare(simulate("tilted", image_shape=(20, 24), tilt_um=3), z_um=[-2.0, 0.0, 2.0], device="cpu")
    monkeypatch.setattr(planes, "BLOCK_SAMPLES", math.prod(problem.forward.object_shape))
    cls = registry.solver_class(name)
    solver = cls(make_options(cls, options))
    state, told, done = solver.start(problem), [], False
    assert solver.spectra(state)[0] == (-2.0,)
    while not done:
        progress = solver.step(state)
        done = progress.done
        told.append((progress.step, progress.total, len(solver.spectra(state)[0])))
        if len(told) % 7 == 0 and not done:
            state = solver.restore(problem, {key: value.clone() for key, value in solver.dump(state).items()})
    steps, totals, begun = zip(*told, strict=True)
    assert list(steps) == sorted(set(steps))
    assert steps[-1] == totals[-1] == totals[0]
    # A block that ends begins the next; of the last nothing is left to begin.
    assert [steps[begun.index(count)] for count in (1, 2, 3)] == [steps[0], steps[-1] // 3, 2 * steps[-1] // 3]
    z_um, spectra = solver.spectra(state)
    assert z_um == problem.z_um
    alone = solver.start(prepare(problem.dataset, z_um=0.0, device="cpu"))
    while not solver.step(alone).done:
        pass
    assert torch.equal(solver.spectra(alone)[1][0], spectra[1])


def test_all_planes_of_a_block_must_come_back():
    problem = prepare(simulate("tilted", image_shape=(20, 24), tilt_um=3), z_um=[-2.0, 2.0], device="cpu")
    blocks = planes.PlaneBlocks(problem)
    with pytest.raises(ValueError, match=r"the planes in work have spectra of \(2, "):
        blocks.finish(blocks.first_guess()[:1])
