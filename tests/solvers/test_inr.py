"""FPM-INR: the network against its definition, the published schedule step for step, and quality."""

from __future__ import annotations

import fpmtools_inr.network
import numpy as np
import pytest
import torch
from fpmtools_inr.network import ImplicitField, Layout
from fpmtools_inr.schedule import Epochs, OneCycle
from fpmtools_inr.solver import FpmInr
from torch.nn import functional as F

from fpmtools import engine
from fpmtools.leds import direction_sines, raster
from fpmtools.metrics import score
from fpmtools.options import make_options
from fpmtools.problem import prepare
from fpmtools.reconstruction import PlaneStack
from fpmtools.simulation import simulate


def make(preset=None, **options):
    return FpmInr(make_options(FpmInr, options, preset))


@pytest.fixture(scope="module")
def tilted():
    return simulate("tilted", image_shape=(32, 40))


@pytest.mark.parametrize(("layer_norm", "activation"), [(False, "relu"), (True, "relu"), (False, "silu")])
@pytest.mark.parametrize("branches", [1, 2])
def test_the_network_is_sampled_features_times_axial_ones_through_an_mlp(branches, layer_norm, activation):
    layout = Layout((7, 10), 6, nodes=4, hidden=5, branches=branches, layer_norm=layer_norm, activation=activation)
    activate = {"relu": F.relu, "silu": lambda x: x / (1 + torch.exp(-x))}[activation]
    network = ImplicitField(layout).double().initialise(torch.Generator().manual_seed(2), 0.5)
    z, shape = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64), (15, 18)
    got = network(z, shape)
    # Pixel centres: sample i of n lies at (i + ½)/n of the field of view, and so do the features.
    y, x = ((torch.arange(n, dtype=torch.float64) + 0.5) / n * 2 - 1 for n in shape)
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)[None]
    outputs = []
    for branch in network.branches:
        sampled = F.grid_sample(
            branch.plane.movedim(-1, 0)[None], grid, "bilinear", padding_mode="border", align_corners=False
        )[0].movedim(0, -1)
        at = z * 3
        low = at.floor().clamp_max(2)
        u = (1 - (at - low))[:, None] * branch.axial[low.long()] + (at - low)[:, None] * branch.axial[low.long() + 1]
        v = sampled[None] * u[:, None, None, :]
        hidden = activate(branch.norms[0](branch.first(v)))
        outputs.append(branch.last(activate(branch.norms[1](branch.second(hidden)))))
    want = torch.cat(outputs, -1)
    assert torch.allclose(got[0], want[..., 0])
    assert torch.allclose(got[1], want[..., 1])


def test_bands_change_nothing(monkeypatch):
    network = ImplicitField(Layout((11, 14), 6, nodes=3, hidden=5, branches=1, layer_norm=False, activation="silu"))
    network.double().initialise(torch.Generator().manual_seed(2), 0.5)
    z = torch.tensor([0.2, 0.9], dtype=torch.float64)
    whole = torch.stack(network(z, (11, 14)))
    whole.square().sum().backward()
    slopes = [value.grad.clone() for value in network.parameters()]
    network.zero_grad()
    monkeypatch.setattr(fpmtools_inr.network, "CPU_BAND", 100)  # three rows at two depths
    banded = torch.stack(network(z, (11, 14)))
    banded.square().sum().backward()
    assert torch.allclose(banded, whole)
    assert all(torch.allclose(value.grad, slope) for value, slope in zip(network.parameters(), slopes, strict=True))


def published_problem():
    # The published blood smear: NA 0.256, z from -20 to 20 µm, 68 LEDs.
    data = simulate("tilted", image_shape=(24, 28), tilt_um=2)
    return prepare(data, make("paper"), z_um=np.linspace(-20, 20, 5))


def test_the_paper_preset_follows_the_published_schedule_step_for_step():
    problem = published_problem()
    solver = make("paper")
    schedule = Epochs(solver.options, problem)
    assert schedule.total == 5236
    steps = [schedule.at(i) for i in range(schedule.total)]
    assert [leds for _, leds, _ in steps[:68]] == [[led] for led in problem.order]
    epochs = [7 if epoch % 2 == 0 else 3 for epoch in range(15)]
    assert schedule.total == 68 * sum(epochs)
    start = 0
    for epoch, planes in enumerate(epochs):
        block = steps[start : start + 68 * planes]
        start += 68 * planes
        assert [lr for _, _, lr in block] == pytest.approx([1e-3 * 0.1 ** (epoch // 6)] * len(block))
        depths = [block[68 * i][0][0] for i in range(planes)]
        assert all(block[68 * i + k][0] == [depths[i]] for i in range(planes) for k in range(68))
        if epoch % 2 == 0:
            assert depths == pytest.approx(np.linspace(-20, 20, 7))
        else:
            cells = [int((z + 20) // (40 / 6)) for z in depths]
            assert len(set(cells)) == 3
            assert all(-20 <= z <= 20 for z in depths)


def test_the_paper_preset_draws_from_the_whole_range():
    # The published spacing is floored, so that the top of the range is never drawn.
    problem = published_problem()
    depths = [z for epoch in range(1, 400, 2) for z in Epochs(make("paper").options, problem)._planes(epoch, 7)]
    assert max(depths) > 19.5
    assert min(depths) < -19.5
    assert abs(np.mean(depths)) < 1.5


def test_the_paper_presets_network_is_the_published_one():
    solver = make("paper")
    problem = published_problem()
    state = solver.start(problem)
    assert state.network.layout == Layout((12, 14), 32, 5, 32, 2, False, "relu")
    assert problem.forward.image_shape == problem.dataset.image_shape
    assert problem.forward.object_shape == problem.output_shape
    assert float(state.network.branches[0].plane.detach().std()) == pytest.approx(2e-4, rel=0.05)
    flat = make("paper").start(prepare(problem.dataset, solver, z_um=0.0))
    assert flat.network.layout == Layout((24, 28), 32, 1, 32, 2, False, "relu")
    assert flat.schedule.total == 15 * 68


def test_the_more_can_be_explained_the_longer_it_fits():
    def steps(photons, sample="thin", **options):
        data = simulate(sample, image_shape=(32, 40), photons=photons, seed=1)
        return FpmInr(make_options(FpmInr, options)).start(prepare(data, device="cpu")).schedule.total

    assert steps(300.0) == steps(1e6, "tilted") == steps(1e6, weights="equal") == 600
    assert 600 < steps(1e3) < steps(2e3) < 1800
    assert steps(1e6) == 1800
    assert steps(1e6, steps=70) == 70


def test_one_cycle_visits_every_led_and_the_whole_range(tilted):
    problem = prepare(tilted, z_um=[-5.0, 10.0])
    schedule = OneCycle(make(steps=400, led_batch=16).options, problem, left=0.0)
    steps = [schedule.at(i) for i in range(400)]
    for sweep in range(80):
        leds = [led for _, batch, _ in steps[5 * sweep : 5 * sweep + 5] for led in batch]
        assert sorted(leds) == list(range(68))
    depths = [z for (z,), _, _ in steps]
    assert min(depths) < -4.5
    assert max(depths) > 9.5
    for first in range(0, 380, 7):  # random depths would leave larger holes
        assert np.diff(sorted(depths[first : first + 20])).max() < 0.12 * 15
    rates = [lr for _, _, lr in steps]
    assert max(rates) == pytest.approx(0.003, rel=1e-3)
    assert rates[0] < 1e-4
    assert rates[-1] < 1e-4


@pytest.mark.slow
def test_the_default_is_at_least_as_good_as_the_paper_preset():
    data = simulate("tilted", image_shape=(24, 30), leds=direction_sines(raster(4, 4, 9.0), 74.0), tilt_um=5.0)
    z = np.linspace(-5, 5, 3)
    # In float32: most processors only imitate bfloat16, slowly.
    options = {"mixed_precision": "off"}
    published = score(engine.reconstruct(data, "inr", preset="paper", options=options, z_um=z), data)
    default = score(engine.reconstruct(data, "inr", z_um=z), data)
    assert default["psnr"] >= max(published["psnr"], 26)
    assert default["ssim"] >= max(published["ssim"], 0.9)


@pytest.mark.parametrize(
    "options",
    [
        {"coarse_to_fine": True},
        {"layer_norm": True},
        {"joint": False},
        {"mixed_precision": "on"},
        {"z_nodes": 3, "plane": 0.6},
    ],
)
def test_every_option_still_fits(tilted, options):
    z = np.linspace(-10, 10, 3)
    early = engine.reconstruct(tilted, "inr", z_um=z, options={**options, "steps": 1})
    late = engine.reconstruct(tilted, "inr", z_um=z, options={**options, "steps": 100})
    assert score(late, tilted)["in_band_db"] > score(early, tilted)["in_band_db"] + 3


def test_in_2d_the_result_is_the_plane(tilted):
    found = engine.reconstruct(tilted, "inr", z_um=0.0, options={"steps": 20}, exact=True)
    assert isinstance(found, PlaneStack)
    assert found.stored_bytes == 8 * np.prod(prepare(tilted).forward.object_shape)


def test_the_seed_matters(tilted):
    one, two, again = (
        engine.reconstruct(tilted, "inr", z_um=[-3.0, 3.0], options={"steps": 5}, seed=seed) for seed in (3, 4, 3)
    )
    assert np.array_equal(one.field(1.0), again.field(1.0))
    assert not np.allclose(one.field(1.0), two.field(1.0))


def test_float64_is_float64(tilted):
    solver = make(steps=3)
    problem = prepare(tilted, solver, z_um=[-3.0, 3.0], dtype="complex128")
    state = solver.start(problem)
    solver.step(state)
    assert {p.dtype for p in state.network.parameters()} == {torch.float64}
    assert not state.bfloat16
