"""Stacks of low rank: within the stated error, in few bytes, at any z, and never coarser than the data allow."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import fpmtools
from fpmtools import low_rank
from fpmtools.compact import MOST, allowed_error, compact
from fpmtools.errors import DataError
from fpmtools.low_rank import LowRankStack
from fpmtools.metrics import score
from fpmtools.optics import to_field
from fpmtools.problem import prepare
from fpmtools.reconstruction import Grid, PlaneStack

SHAPE, Z = (24, 35), tuple(np.linspace(-8, 8, 17))


def rms(values):
    return float(np.sqrt(np.mean(np.abs(values) ** 2)))


def smooth(z):
    """Weights [z, 3] of three components."""
    return np.stack([np.ones_like(z) + 0j, np.exp(0.2j * z), np.sin(z / 5) + 0j], -1)


@pytest.fixture
def components():
    """Spectra [3, y, x] inside a small aperture, strong at the centre; fields of about 1."""
    rng = np.random.default_rng(8)
    y, x = np.meshgrid(*(np.arange(n) - n // 2 for n in SHAPE), indexing="ij")
    radius = np.hypot(y / SHAPE[0], x / SHAPE[1])
    noise = rng.normal(size=(3, *SHAPE)) + 1j * rng.normal(size=(3, *SHAPE))
    spectra = noise * np.exp(-8 * radius) * (radius < 0.4) * math.sqrt(math.prod(SHAPE)) * 0.3
    spectra[0, SHAPE[0] // 2, SHAPE[1] // 2] += math.prod(SHAPE)
    return spectra


@pytest.fixture
def grid():
    return Grid((48, 70), (6.0, 8.75), (Z[0], Z[-1]))


@pytest.mark.parametrize("error", [1e-5, 1e-3, 1e-2])
def test_every_plane_is_within_the_error(components, grid, error):
    stack = LowRankStack.of(components, smooth(np.array(Z)), Z, grid, error)
    planes = to_field(np.tensordot(smooth(np.array(Z)), components, 1))
    errors = [rms(stack.native_field(z) - plane) for z, plane in zip(Z, planes, strict=True)]
    assert stack.rank <= 3
    assert 0.05 * error < max(errors) < error


def test_between_its_depths_it_follows_the_object(components, grid):
    z = np.linspace(-7.5, 7.5, 16)
    stack = LowRankStack.of(components, smooth(np.array(Z)), Z, grid, 1e-6)
    truth = to_field(np.tensordot(smooth(z), components, 1))
    for one, expected in zip(z, truth, strict=True):
        assert rms(stack.native_field(one) - expected) < 2e-3 * rms(expected)


def test_planes_of_a_few_components_need_few_bytes(components, grid, monkeypatch):
    planes = to_field(np.tensordot(smooth(np.array(Z)), components, 1)).astype(np.complex64)
    stack = PlaneStack(planes, Z, grid, {"intensity_scale": 2.0})
    coded = LowRankStack.of_planes(stack, 3e-3)
    assert coded.rank == 3
    assert coded.stored_bytes < stack.stored_bytes / 20
    assert coded.metadata == stack.metadata
    monkeypatch.setattr(low_rank, "PART_SAMPLES", 100)  # in many parts, of which the last is shorter
    again = LowRankStack.of_planes(stack, 3e-3)
    assert max(rms(again.native_field(z) - coded.native_field(z)) for z in Z) < 3e-4


@pytest.mark.parametrize("count", [1, 2, 17])
def test_saved_and_opened_is_the_same_to_the_bit(components, grid, count, tmp_path):
    z_um = Z[:count]
    grid = replace(grid, z_range=(z_um[0], z_um[-1]))
    weights = smooth(np.array(z_um))
    stack = LowRankStack.of(np.tensordot(weights, components, 1), np.eye(count), z_um, grid, 1e-3)
    again = fpmtools.open_result(stack.save(tmp_path / "a.safetensors"))
    assert isinstance(again, LowRankStack)
    assert again.stored_bytes == stack.stored_bytes
    for z in np.linspace(*grid.z_range, 4):
        assert np.array_equal(again.field(z), stack.field(z))


def test_damaged_components_are_refused(components, grid):
    tensors, config = LowRankStack.of(components, np.eye(3), Z[:3], grid, 1e-3).dump()
    with pytest.raises(ValueError, match="coded numbers"):
        LowRankStack.restore(grid, {**tensors, "components": tensors["components"][:-40]}, config)
    with pytest.raises(ValueError, match="3 depths"):
        LowRankStack.restore(grid, {**tensors, "basis": tensors["basis"][:2]}, {**config})


def test_an_error_of_nothing_cannot_be_coded(components, grid):
    for error in (0.0, math.nan, 1e-12):
        with pytest.raises(OverflowError):
            LowRankStack.of(components, np.eye(3), Z[:3], grid, error)


@pytest.mark.parametrize(
    ("sample", "how"),
    [
        ("thin", {"photons": 500}),
        ("bars", {"photons": 5000}),
        ("tilted", {}),
        ("thin", {"photons": 50, "leds": "grid"}),
    ],
)
def test_what_is_lost_is_less_than_the_data_can_tell(sample, how):
    data = fpmtools.simulate(sample, image_shape=(40, 48), **how)
    exact = fpmtools.reconstruct(data, "ap", exact=True)
    coded = fpmtools.reconstruct(data, "ap")
    assert isinstance(exact, PlaneStack)
    assert isinstance(coded, LowRankStack)
    assert coded.stored_bytes < exact.stored_bytes / 4
    assert score(coded, data)["psnr"] > score(exact, data)["psnr"] - 0.2


def test_less_noise_allows_less():
    allowed = []
    for photons in (500, 50_000):
        data = fpmtools.simulate("thin", image_shape=(40, 48), photons=photons)
        stack = fpmtools.reconstruct(data, "ap", exact=True)
        allowed.append(allowed_error(stack, prepare(data)))
    assert allowed[1] == pytest.approx(allowed[0] / 10, rel=0.15)
    assert allowed[0] < MOST


@pytest.mark.parametrize("error", [1e-12, 0.0])
def test_where_nothing_may_be_lost_nothing_is(error, monkeypatch):
    data = fpmtools.simulate("thin", image_shape=(40, 48))
    assert score(fpmtools.reconstruct(data, "ap"), data)["psnr"] > 100
    monkeypatch.setattr("fpmtools.compact.allowed_error", lambda *_: error)
    assert isinstance(fpmtools.reconstruct(data, "ap", options={"sweeps": 2}), PlaneStack)


def test_what_a_solver_found_of_the_instrument_counts(monkeypatch):
    """The misfit is that of the pupil that was found, not of the one that was given."""
    data = fpmtools.simulate("thin", image_shape=(64, 64), aberration_rad=0.8, photons=20_000)
    found, problem = fpmtools.reconstruct(data, "epry", exact=True), prepare(data)
    assert isinstance(found, PlaneStack)
    monkeypatch.setattr("fpmtools.compact.MOST", 1.0)
    allowed = allowed_error(found, problem)
    found.calibration = problem.calibration
    assert allowed < 0.6 * allowed_error(found, problem)


def test_only_plain_planes_are_coded(components, grid):
    class Own(PlaneStack):
        pass

    data = fpmtools.simulate("thin", image_shape=(20, 24))
    own = Own(np.ones((1, 20, 24), np.complex64), (0.0,), Grid((20, 24), data.extent_um, (0.0, 0.0)))
    assert compact(own, prepare(data)) is own


def test_a_file_without_depths_is_refused(components, grid, tmp_path):
    stack = LowRankStack.of(components, np.eye(3), Z[:3], grid, 1e-3)
    stack.basis = stack.basis[:, :2]
    with pytest.raises(DataError, match="not a complete reconstruction"):
        fpmtools.open_result(stack.save(tmp_path / "a.safetensors"))
