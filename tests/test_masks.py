"""Saturated and stuck pixels: found, told of, and without any say in what is solved and in how it is judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fpmtools
from fpmtools import losses, registry
from fpmtools.dataset import Dataset
from fpmtools.forward.gradients import gradients
from fpmtools.metrics import prediction_error, residual, score
from fpmtools.problem import prepare
from fpmtools.reconstruction import Grid, PlaneStack
from fpmtools.runs import running
from fpmtools.runs.spec import DataSpec, Outputs, RunSpec
from fpmtools.simulation import simulate

DEAD = ((3, 4), (20, 31), (20, 32), (40, 0))  # y, x


def clipped(data: Dataset, share: float = 0.02) -> Dataset:
    """The brightest ``share`` of all pixels saturated."""
    return data.with_images(np.minimum(data.intensities, np.quantile(data.intensities, 1 - share)))


def with_dead(data: Dataset) -> Dataset:
    images = data.intensities.copy()
    for y, x in DEAD:
        images[:, y, x] = 0
    return data.with_images(images)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return simulate("thin", image_shape=(48, 56))


@pytest.fixture(scope="module")
def fine() -> Dataset:
    """Camera pixels far smaller than the optics need: solved on a coarser grid."""
    return simulate("thin", image_shape=(96, 88), optics={"camera_pixel_um": 3.45 / 2})


# ---------------------------------------------------------------- found


@pytest.mark.parametrize("name", ["sim:thin@48x56", "sim:bars+noise@48x56", "sim:tilted+tile@48x48", "sim:siemens"])
def test_nothing_is_found_where_nothing_is_wrong(name: str) -> None:
    data = fpmtools.load(name)
    assert not data.images.bad
    assert prepare(data).forward.mask is None
    assert not data.with_images(np.ones(data.images.shape)).images.bad  # a blank sample


def test_saturated_pixels_are_those_that_pile_up_at_the_end(data: Dataset) -> None:
    cut = clipped(data)
    bad = cut.images.bad
    assert bad.top == cut.intensities.max()
    assert bad.saturated.tolist() == (cut.intensities == bad.top).sum(axis=(1, 2)).tolist()
    assert bad.saturated.sum() == pytest.approx(0.02 * data.intensities.size, rel=0.01)
    assert not bad.stuck.any()
    assert np.array_equal(bad.of(cut.images[5]), cut.images[5] == bad.top)
    counts = np.round(250 * data.intensities / data.intensities.max()).astype(np.uint8)
    assert not data.with_images(counts).images.bad
    assert data.with_images(np.minimum(counts, 150)).images.bad.top == 150


def test_stuck_pixels_are_those_that_no_light_can_make(data: Dataset) -> None:
    bad = with_dead(data).images.bad
    assert [tuple(at) for at in np.argwhere(bad.dead)] == sorted(DEAD)
    assert not bad.hot.any()
    images = data.intensities.copy()
    images[:, 9, 9] += 0.5
    images[:, 12, 30] = 0.37
    hot = data.with_images(images).images.bad
    assert [tuple(at) for at in np.argwhere(hot.stuck)] == [(9, 9), (12, 30)]
    assert "1 hot and 1 dead pixels of every image" in str(hot)


def test_saturation_is_still_seen_behind_a_dark_frame(data: Dataset, tmp_path: Path) -> None:
    counts = np.minimum(np.round(180 * data.intensities), 255).astype(np.uint8)
    np.save(tmp_path / "counts.npy", counts)
    np.savetxt(tmp_path / "leds.csv", data.na, delimiter=",", header="na_x,na_y", comments="")
    dark = np.random.default_rng(0).integers(0, 9, data.image_shape)
    known = {name: value for name, value in data.optics.to_dict().items() if name != "medium_index"}
    read = fpmtools.load(tmp_path / "counts.npy", leds=tmp_path / "leds.csv", optics=known, dark=dark)
    bad = read.images.bad
    assert (counts == 255).sum() > 1000
    assert all(np.array_equal(bad.of(image), own == 255) for image, own in zip(read.images, counts, strict=True))


# ---------------------------------------------------------------- on the solver's grid


def test_the_mask_is_exact_on_the_cameras_grid_and_covers_what_is_touched_on_another(fine: Dataset) -> None:
    cut = clipped(with_dead(fine)).crop(2, 3, 80, 72)
    bad = cut.images.bad
    own = prepare(cut, critical_grid=False).forward.mask
    assert own is not None
    assert np.array_equal(~own.numpy(), np.stack([bad.of(image) for image in cut.images]))
    for margin in (0, 7):
        problem = prepare(cut, margin=margin)
        mask, (h, w) = problem.forward.mask, problem.forward.image_shape
        assert h < 80 + 2 * margin
        assert mask is not None
        assert mask.shape == (cut.n_images, h, w)
        extent = [n + 2 * margin for n in cut.image_shape]
        for image in (0, 30):
            for y, x in np.argwhere(bad.of(cut.images[image]))[::9]:
                row, column = round((y + margin) * h / extent[0]) % h, round((x + margin) * w / extent[1]) % w
                assert not mask[image, row, column]
        share = float((~mask).float().mean())
        assert float(bad.saturated.sum()) / cut.intensities.size / 2 < share < 0.15


@pytest.mark.parametrize("loss", ["squares", "amplitude", "poisson", "feature"])
def test_no_loss_looks_at_masked_pixels(data: Dataset, loss: str) -> None:
    function = getattr(losses, loss)
    problem = prepare(clipped(with_dead(data)), loss=function, margin=3, dtype="complex128")
    forward, seen = problem.forward, problem.forward.seen()
    assert seen is not None
    spectrum = problem.first_guess()[None]
    other = problem.amplitudes + 3 * (1 - seen)
    weights = torch.rand(len(other), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for given in (None, weights, weights[:, None, None].expand_as(other)):
        known = problem.loss_and_gradient(spectrum, 0.0, weights=given)
        changed = forward.loss_and_gradient(spectrum, other, 0.0, loss=function, weights=given)
        assert torch.equal(known.gradient, changed.gradient)
        assert known.loss == changed.loss
        assert known.error == changed.error
    cost, found = gradients(forward, spectrum, other, loss=function, wrt=("object", "gain"))
    assert float(cost) == pytest.approx(float(problem.loss_and_gradient(spectrum, 0.0).loss))
    step = 1e-6 * float(spectrum.abs().max()) / float(found["object"].abs().max())
    moved = forward.loss_and_gradient(spectrum - step * found["object"], other, 0.0, loss=function).loss
    assert float(cost - moved) == pytest.approx(step * float(found["object"].abs().square().sum()), rel=1e-2)


# ---------------------------------------------------------------- what it is good for


def errors(data: Dataset, truth: Dataset, solver: str = "ap", **settings: Any) -> list[float]:
    """PSNR of the amplitude without and with a mask."""
    return [
        float(score(fpmtools.reconstruct(data, solver, mask=mask, **settings), truth)["psnr"]) for mask in (False, True)
    ]


def test_a_clipped_object_is_recovered_as_if_it_were_not(data: Dataset, fine: Dataset) -> None:
    without, masked = errors(clipped(data), data)
    assert without < 40
    assert masked > 100
    without, masked = errors(clipped(fine), fine)  # on a coarser grid
    assert without < 42
    assert masked > 60
    without, masked = errors(with_dead(fine), fine)
    assert without < 50
    assert masked > 80


def test_noisy_planes_with_clipped_pixels_are_as_good_as_without() -> None:
    noisy = simulate("tilted", image_shape=(40, 44), tilt_um=2.0, photons=500)
    without, masked = errors(clipped(noisy), noisy, options={"sweeps": 20})
    whole = errors(noisy, noisy, options={"sweeps": 20})[1]
    assert without < whole - 1
    assert masked > whole - 0.8


def test_images_lit_by_several_leds_have_masks_too(data: Dataset) -> None:
    pairs = np.eye(68) + np.roll(np.eye(68), 1, axis=1)
    images = pairs @ data.intensities.reshape(68, -1)
    both = replace(
        Dataset.from_arrays(images.reshape(data.images.shape), data.na, data.optics, patterns=pairs), truth=data.truth
    )
    without, masked = errors(clipped(both), both, "lbfgs", options={"sweeps": 40})
    assert masked > without + 4


def test_a_mask_makes_no_difference_to_data_that_need_none(data: Dataset) -> None:
    one, other = (fpmtools.reconstruct(data, "ap", mask=mask, options={"sweeps": 3}) for mask in (True, False))
    assert np.array_equal(one.field(0.0), other.field(0.0))


def test_numbers_without_a_truth_ignore_what_is_masked(data: Dataset) -> None:
    assert data.truth is not None
    grid = Grid(data.truth.field.shape, data.extent_um, (0.0, 0.0))
    known = PlaneStack(data.truth.field[None], (0.0,), grid)
    broken = clipped(with_dead(data))
    assert residual(known, broken)["all"] < 1e-8
    assert prediction_error(known, broken, [3, 30, 60]) < 1e-4
    images = broken.intensities.copy()
    images[7] = images.max()
    lost = residual(known, broken.with_images(images))
    assert lost["all"] < 1e-8
    assert np.isfinite(lost["per_led"]).all()


def test_a_run_says_what_it_leaves_out(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, told = with_dead(data), list[str]()

    def hear(event: dict[str, Any]) -> None:
        told.extend([event["text"]] if event["event"] == "warning" else [])

    spec = RunSpec(DataSpec("sim:thin"), "ap", {"sweeps": 1}, outputs=Outputs(measures=()))
    running.run(spec, tmp_path / "one", dataset=broken, on_event=hear)
    assert "left out: 4 dead pixels of every image" in told
    monkeypatch.setattr(registry.solver_class("ap"), "handles", frozenset())
    running.run(spec, tmp_path / "other", dataset=broken, on_event=hear)
    assert "ap cannot leave out: 4 dead pixels of every image" in told
