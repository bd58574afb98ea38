"""What is solved beyond the camera's field of view: where a sample does not repeat, light crosses the border."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fpmtools_ap import solver as ap

import fpmtools
from fpmtools import engine
from fpmtools.errors import OptionError
from fpmtools.forward.gradients import gradients
from fpmtools.metrics.prediction import residual
from fpmtools.optics import resample, resample_inside, to_field, to_spectrum
from fpmtools.problem import prepare
from fpmtools.sampling import continued, suggested_margin

TILE = "sim:thin+tile@48x56"


@pytest.fixture(scope="module")
def tile() -> fpmtools.Dataset:
    return fpmtools.load(TILE)


@pytest.mark.parametrize("margin", [1, 5, 40])
def test_an_image_goes_on_beyond_its_border_without_a_step(margin: int) -> None:
    y, x = np.mgrid[:31, :24]
    image = (1 + 0.02 * y - 0.01 * x + 0.1 * np.sin(y / 4)).astype(np.float32)
    wide = continued(image, margin)
    assert wide.shape == (31 + 2 * margin, 24 + 2 * margin)
    assert wide.dtype == np.float32
    assert np.array_equal(wide[margin:-margin, margin:-margin], image)
    for axis in (0, 1):
        steps = np.abs(np.diff(np.concatenate([wide, wide.take([0], axis)], axis), axis=axis))
        assert steps.max() < 1.5 * np.ptp(image, axis=axis).max() / min(2 * margin, 10)
    assert continued(image, 0) is image


def test_only_images_that_do_not_repeat_get_a_margin() -> None:
    assert suggested_margin(fpmtools.load("sim:thin@48x56"), [0.0]) == 0
    assert suggested_margin(fpmtools.load("sim:tilted+noise@48x48"), [0.0]) == 0
    wide = fpmtools.load("sim:thin+tile@160x176")
    near, far = suggested_margin(wide, [0.0]), suggested_margin(wide, [0.0, 4.0])
    assert 5 < near < far < 80


def test_samples_inside_are_those_of_the_fourier_series() -> None:
    rng = np.random.default_rng(3)
    spectrum = np.zeros((36, 45), complex)
    spectrum[12:24, 15:30] = rng.normal(size=(12, 15)) + 1j * rng.normal(size=(12, 15))
    field = to_field(spectrum)
    assert np.allclose(resample_inside(field, (72, 90), (0.0, 0.0)), resample(field, (72, 90)), atol=1e-6)
    # Six and nine samples of margin: what lies between them, at the same pitch and at another.
    inside = resample_inside(field, (24, 27), (6 / 36, 9 / 45))
    assert np.allclose(inside, field[6:30, 9:36], atol=1e-6)
    finer = resample_inside(field, (48, 54), (6 / 36, 9 / 45))
    assert np.allclose(finer[::2, ::2], inside, atol=1e-6)
    assert inside.dtype == np.complex64


@pytest.mark.parametrize("critical", [True, False])
def test_no_loss_looks_into_the_margins(tile: fpmtools.Dataset, critical: bool) -> None:
    problem = prepare(tile, z_um=0.0, margin=9, critical_grid=critical, dtype="complex128")
    forward, window = problem.forward, problem.forward.window
    assert window is not None
    assert forward.counted == int(window.sum())
    share = forward.counted / window.numel()
    assert share == pytest.approx(48 * 56 / (66 * 74), rel=0.06)
    spectrum = problem.first_guess()[None]
    known = problem.loss_and_gradient(spectrum, 0.0)
    other = problem.amplitudes + 5 * (1 - window)
    changed = forward.loss_and_gradient(spectrum, other, 0.0, loss=problem.loss)
    assert torch.equal(known.gradient, changed.gradient)
    assert known.loss == changed.loss
    assert known.error == changed.error
    # The gradient is that of this loss: a step along it lowers it by what it says.
    loss, found = gradients(forward, spectrum, other, loss=problem.loss)
    slope = float(found["object"].abs().square().sum())
    step = 1e-5 * float(spectrum.abs().max()) / float(found["object"].abs().max())
    moved = forward.loss_and_gradient(spectrum - step * found["object"], other, 0.0, loss=problem.loss).loss
    assert float(loss - moved) == pytest.approx(step * slope, rel=1e-3)


def test_a_margin_explains_what_crosses_the_border(tile: fpmtools.Dataset, tmp_path: Path) -> None:
    """The result covers what the camera sees, is better there, and is the same once saved and opened."""
    assert tile.truth is not None
    truth = tile.truth.field
    errors: dict[int | str, tuple[float, float]] = {}
    for margin in (0, "auto"):
        result = fpmtools.reconstruct(tile, "ap", z_um=0.0, margin=margin)
        assert result.grid.extent_um == pytest.approx(tile.extent_um)
        field = resample(result.field(0.0), truth.shape)
        gain = np.vdot(field, truth) / np.vdot(field, field)
        errors[margin] = np.linalg.norm(gain * field - truth) / np.linalg.norm(truth), residual(result, tile)["all"]
    assert errors["auto"][0] < 0.7 * errors[0][0]
    assert errors["auto"][1] < 0.5 * errors[0][1]
    assert any(result.grid.margin_um)
    again = fpmtools.open_result(result.save(tmp_path / "result.safetensors"))
    assert again.grid == result.grid
    assert np.array_equal(again.field(0.0), result.field(0.0))
    whole = result.whole(0.0, tuple(2 * n for n in result.grid.shape))
    assert np.abs(to_spectrum(whole)).max() == pytest.approx(abs(whole.sum()), rel=1e-4)


def test_what_lies_beyond_the_border_is_given_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where little more than noise is left sweeps that gain little still find slow phase; not elsewhere."""
    known, wrong = (
        fpmtools.simulate(kind, image_shape=(48, 56), leds="grid", surround=2, photons=photons, seed=4)
        for kind, photons in (("thin", 500), ("tilted", None))
    )
    assert known.truth is not None
    truth = known.truth.field

    def solved(tile: fpmtools.Dataset) -> tuple[int, np.ndarray]:
        found = engine.solve(prepare(tile, z_um=0.0, margin="auto"), ap.AlternatingProjection())
        return found.steps, resample(found.reconstruction.field(0.0), truth.shape)

    def phase_error(field: np.ndarray) -> float:
        product = (field * truth.conj())[8:-8, 8:-8]
        return float(np.angle(product / product.mean()).std())

    (patient, better), before = solved(known), solved(wrong)
    monkeypatch.setattr(ap, "PATIENT", 1.0)
    (steps, field), after = solved(known), solved(wrong)
    assert after[0] == before[0]
    assert np.array_equal(after[1], before[1])
    assert steps < patient < 3 * steps
    assert phase_error(better) < 1.01 * phase_error(field)


@pytest.mark.parametrize("solver", ["inr", "adam", "mpie", "fd", "admm", "lbfgs", "epry"])
def test_every_solver_takes_a_margin(solver: str, tile: fpmtools.Dataset) -> None:
    part = tile.crop(0, 0, 24, 28)
    options = {"steps": 3} if solver in ("inr",) else {"sweeps": 1}
    result = fpmtools.reconstruct(part, solver, z_um=0.0, margin=6, options=options)
    assert result.grid.extent_um == pytest.approx(part.extent_um)
    assert result.grid.margin_um == pytest.approx((6 * part.optics.pixel_um,) * 2)
    assert result.field(0.0).shape == result.grid.shape


def test_a_margin_out_of_range_is_refused(tile: fpmtools.Dataset) -> None:
    for margin in (-1, 1000, "wide"):
        with pytest.raises(OptionError, match="margin must be"):
            prepare(tile, margin=margin)
