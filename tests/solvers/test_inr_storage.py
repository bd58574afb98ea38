"""How an FPM-INR is stored: within the stated error, in few bytes, and exactly what was scored."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fpmtools_inr.codec import CodedPlane
from fpmtools_inr.network import ImplicitField, Layout
from fpmtools_inr.reconstruction import code
from fpmtools_inr.solver import FpmInr
from safetensors.numpy import load_file

from fpmtools import engine, storage
from fpmtools.errors import DataError
from fpmtools.metrics import score
from fpmtools.options import make_options
from fpmtools.problem import prepare
from fpmtools.results import open_result
from fpmtools.simulation import simulate

Z = np.linspace(-10, 10, 3)


@pytest.fixture(scope="module")
def tilted():
    return simulate("tilted", image_shape=(48, 60))


@pytest.fixture(scope="module")
def found(tilted):
    """One fit, stored in float32 and with 0.007 and 0.03 of rounding."""
    solvers = {
        error: FpmInr(make_options(FpmInr, {"steps": 300, "stored_error": error})) for error in (0.0, 0.007, 0.03)
    }
    problem = prepare(tilted, solvers[0.0], z_um=Z)
    state = solvers[0.0].start(problem)
    while not solvers[0.0].step(state).done:
        pass
    return {error: solver.result(state) for error, solver in solvers.items()}


def network(branches=1, plane=(21, 34), features=6):
    layout = Layout(plane, features, nodes=3, hidden=8, branches=branches, layer_norm=False, activation="silu")
    made = ImplicitField(layout).initialise(torch.Generator().manual_seed(5), 0.5)
    with torch.no_grad():
        made.planes()[0][..., 1] *= 40  # features are never equally large
    return made


def field(net, z):
    with torch.no_grad():
        amplitude, phase = net(torch.tensor([z]), net.layout.plane_shape)
    return (amplitude * torch.exp(1j * phase))[0]


def rms(values):
    return float(np.sqrt(np.mean(np.abs(np.asarray(values)) ** 2)))


def test_a_stored_plane_says_the_same_after_packing():
    rng = np.random.default_rng(4)
    plane = rng.normal(0, [1e-3, 1, 20000], (9, 14, 3)).astype(np.float32)
    coded = CodedPlane.encode(plane, np.diag([1.0, 1e-2, 1e-5]), 1e-3)
    assert np.abs(coded.levels).max() > 1 << 16  # takes more than two bytes
    again = CodedPlane.unpack(coded.packed, coded.basis, (9, 14))
    assert np.array_equal(again.levels, coded.levels)
    assert np.array_equal(again.plane(), coded.plane())


@pytest.mark.parametrize("step", [1e-3, 1e-2])
def test_rounding_errors_are_small_and_alike_where_the_field_would_see_them(step):
    rng = np.random.default_rng(6)
    mixing = rng.normal(size=(5, 5)) * [1, 1, 0.1, 0.1, 0.01]
    plane = (rng.normal(size=(33, 40, 5)) @ mixing).astype(np.float32)
    slopes = rng.normal(size=(200, 5)) * [3, 1, 1, 0.3, 0.1]
    sensitivity = slopes.T @ slopes / 200
    error = CodedPlane.encode(plane, sensitivity, step).plane() - plane
    seen = np.einsum("yxi,ij,yxj->yx", error, sensitivity, error).mean()
    # Five independent errors, uniform within one step, some a little further from 0.
    assert 0.7 * 5 * step**2 / 12 < seen < 2.0 * 5 * step**2 / 12


@pytest.mark.parametrize("branches", [1, 2])
def test_sensitivity_predicts_the_change_of_the_field(branches):
    net = network(branches)
    change = 1e-5 * torch.randn(branches, *net.layout.plane_shape, 6, generator=torch.Generator().manual_seed(1))
    depths = [(i + 0.5) / 60 for i in range(60)]
    before = [field(net, z) for z in depths]
    predicted = 0.0
    for plane, delta, sensitivity in zip(net.planes(), change, net.sensitivity(), strict=True):
        predicted += float(torch.einsum("yxi,ij,yxj->yx", delta, sensitivity, delta).mean())
        with torch.no_grad():
            plane += delta
    measured = np.mean([rms(field(net, z) - old) ** 2 for z, old in zip(depths, before, strict=True)])
    assert measured == pytest.approx(predicted, rel=0.1)


@pytest.mark.parametrize("branches", [1, 2])
@pytest.mark.parametrize("error", [0.003, 0.03])
def test_the_field_changes_by_about_the_stated_error(branches, error):
    net = network(branches)
    before = {z: field(net, z) for z in (0.1, 0.7)}
    coded = code(net, error)
    assert len(coded) == branches
    assert all(0.3 * error < rms(field(net, z) - old) < 2 * error for z, old in before.items())


def test_what_is_not_finite_is_left_for_the_engine_to_report():
    net = network()
    with torch.no_grad():
        net.planes()[0][3, 4, 0] = torch.nan
    assert code(net, 0.01) == []
    assert net.planes()[0].isnan().any()


def test_a_network_without_any_answer_can_be_stored():
    net = network()
    with torch.no_grad():
        net.branches[0].last.weight.zero_()
    (coded,) = code(net, 0.01)
    assert coded.levels.shape == (0, 21, 34)
    assert not CodedPlane.unpack(coded.packed, coded.basis, (21, 34)).plane().any()


def test_storing_costs_bytes_and_little_quality(tilted, found):
    exact, default, short = (score(found[error], tilted) for error in (0.0, 0.007, 0.03))
    assert found[0.007].stored_bytes < found[0.0].stored_bytes / 8
    assert found[0.03].stored_bytes < 0.8 * found[0.007].stored_bytes
    assert default["psnr"] > exact["psnr"] - 0.4
    assert default["ssim"] > exact["ssim"] - 0.02
    assert exact["in_band_db"] > default["in_band_db"] > short["in_band_db"]
    for error in (0.007, 0.03):
        assert 0.3 * error < rms(found[error].field(2.0) - found[0.0].field(2.0)) < 3 * error


@pytest.mark.parametrize("error", [0.0, 0.007])
@pytest.mark.parametrize("joint", [True, False])
def test_a_saved_result_is_the_one_that_was_scored(tilted, tmp_path, joint, error):
    options = {"steps": 20, "joint": joint, "stored_error": error}
    found = engine.reconstruct(tilted, "inr", z_um=[-3.0, 3.0], options=options)
    first = found.save(tmp_path / "first.safetensors")
    again = open_result(first)
    assert again.stored_bytes == found.stored_bytes
    for z in (-3.0, 0.123, 2.9999):
        assert np.array_equal(found.field(z), again.field(z))
    assert not np.allclose(found.field(-3.0), found.field(0.0))
    assert again.save(tmp_path / "second.safetensors").read_bytes() == first.read_bytes()


@pytest.mark.parametrize("damage", ["cut", "noise", "size"])
def test_a_damaged_plane_is_refused(found, tmp_path, damage):
    tensors, config = found[0.03].dump()
    name = "branches.0.plane"
    packed = tensors[name]
    tensors[name] = {"cut": packed[:-40], "noise": packed[::-1], "size": packed}[damage]
    if damage == "size":
        config["layout"]["plane_shape"] = [40, 400]
    grid = {"shape": (48, 60), "extent_um": (1.0, 1.0), "z_range": (-10.0, 10.0)}
    header = {"kind": "inr", "grid": grid, "config": config, "metadata": {}}
    path = storage.write_tensors(tmp_path / "damaged.safetensors", tensors, "reconstruction", header)
    assert name in load_file(path)
    with pytest.raises(DataError, match="not a complete reconstruction"):
        open_result(path)
