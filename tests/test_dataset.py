"""Data sets: what is refused, and cropping and selecting."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fpmtools import engine
from fpmtools.dataset import Dataset, Truth
from fpmtools.errors import DataError
from fpmtools.metrics import residual, score
from fpmtools.optics import Optics, frequency_axes
from fpmtools.problem import prepare
from fpmtools.simulation import simulate

OPTICS = Optics(wavelength_um=0.5, na=0.2, magnification=10, camera_pixel_um=8)


def small(**changes):
    rng = np.random.default_rng(1)
    na = np.array([(0.1, 0.0), (0.0, 0.0), (0.0, -0.25), (-0.05, 0.02)])
    truth = Truth(np.ones((24, 40), np.complex64), np.zeros((24, 40), np.float32))
    data = Dataset(rng.uniform(1, 2, (4, 12, 20)).astype(np.float32), na, OPTICS, truth=truth)
    return replace(data, **changes)


def test_order_and_bright_field():
    data = small().validate()
    assert data.order.tolist() == [1, 3, 0, 2]
    assert data.bright_field.tolist() == [True, True, False, True]
    assert (data.n_leds, data.image_shape) == (4, (12, 20))


def broken(index, value):
    images = small().intensities.copy()
    images[index] = value
    return images


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"intensities": np.ones((3, 12, 20), np.float32)}, "3 images but 4 LED positions"),
        ({"intensities": np.ones((4, 12), np.float32)}, r"\[led, y, x\]"),
        ({"intensities": np.ones((4, 7, 20), np.float32)}, "too small"),
        ({"intensities": broken((2, 3, 4), np.nan)}, "image 2 has values that are not finite"),
        ({"intensities": np.zeros((4, 12, 20), np.float32)}, "all images are zero"),
        ({"intensities": np.ones((4, 12, 20), np.complex64)}, "complex"),
        ({"na": np.array([(0, 0), (0, np.inf), (0, 0), (0, 0)])}, "LED 1 has no finite NA"),
        ({"na": np.array([(0, 0), (0, 0), (0, 30.0), (0, 0)])}, "LED 2 has .*direction sines"),
        ({"optics": replace(OPTICS, camera_pixel_um=15)}, "under-sampled"),
        ({"pupil": np.ones((20, 12), np.complex64)}, "pupil"),
    ],
)
def test_unusable_measurements_are_refused_in_one_line(changes, word):
    with pytest.raises(DataError, match=word) as error:
        small(**changes).validate()
    assert "\n" not in str(error.value)


def test_crop_takes_images_truth_and_pupil():
    fy, fx = frequency_axes((12, 20), OPTICS.pixel_um)
    pupil = (fy[:, None] + 2j * fx[None, :]).astype(np.complex64)  # linear, so interpolation is exact
    data = small(pupil=pupil)
    roi = data.crop(2, 5, 8, 10)
    assert np.array_equal(roi.intensities, data.intensities[:, 2:10, 5:15])
    assert roi.truth is not None
    assert roi.truth.field.shape == (16, 20)
    gy, gx = frequency_axes((8, 10), OPTICS.pixel_um)
    assert roi.pupil is not None
    assert np.allclose(roi.pupil, gy[:, None] + 2j * gx[None, :], atol=1e-6)
    assert roi.provenance["roi_yxhw"] == [2, 5, 8, 10]


@pytest.mark.parametrize("roi", [(0, 0, 13, 20), (-1, 0, 8, 8), (5, 0, 8, 8), (0, 0, 4, 8)])
def test_a_region_that_does_not_fit_is_refused(roi):
    with pytest.raises(DataError, match="does not fit"):
        small().crop(*roi)


def test_select_keeps_images_and_leds_together():
    chosen = small().select([2, 0])
    assert np.array_equal(chosen.na, small().na[[2, 0]])
    assert np.array_equal(chosen.intensities, small().intensities[[2, 0]])
    with pytest.raises(DataError, match=r"0 … 3"):
        small().select([4])


def test_the_digest_names_these_measurements():
    data = small()
    assert data.digest == small(name="other").digest
    assert data.digest != data.with_optics(na=0.21).digest
    assert data.digest != small(intensities=broken((0, 0, 0), 9)).digest
    assert data.digest != data.select([1, 0, 2, 3]).digest
    pupils = [np.full(data.image_shape, value, np.complex64) for value in (1, 1j)]
    assert len({data.digest, *(replace(data, pupil=pupil).digest for pupil in pupils)}) == 3
    field, depth = np.ones((4, 5), np.complex64), np.zeros((4, 5), np.float32)
    assert Truth(field, depth).digest == Truth(field.copy(), depth).digest
    assert len({Truth(f, d).digest for f, d in ((field, depth), (2 * field, depth), (field, depth + 1))}) == 3


def test_a_shifted_board_is_put_right():
    data = simulate("thin", image_shape=(40, 48), misaligned_na=0.02, photons=500)
    actual, board = np.array(data.provenance["actual"]["na"]), data.board
    wrong = (np.linalg.norm(actual, axis=1) <= data.optics.na) != data.bright_field
    assert 3 < wrong.sum() < data.n_leds / 2
    assert np.array_equal(board.contradicted, wrong)
    error = np.linalg.norm(actual - data.na - board.shift, axis=1)
    assert np.median(error) < 0.6 * np.median(np.linalg.norm(actual - data.na, axis=1))
    assert f"{wrong.sum()} of {data.n_leds} LEDs" in data.check()[-1]
    assert "moved" not in data.check(trust_leds=True)[-1]

    problem = prepare(data)
    assert np.allclose(problem.forward.na, (data.na + board.shift)[~board.left_out])
    assert len(problem.amplitudes) == len(problem.order) == data.n_leds - board.left_out.sum()
    assert np.array_equal(prepare(data, trust_leds=True).forward.na, data.na)
    for solver in ("ap", "adam"):
        found = engine.reconstruct(data, solver)
        trusting = engine.reconstruct(data, solver, trust_leds=True)
        assert score(found, data)["in_band_db"] > score(trusting, data)["in_band_db"] + 6
        assert residual(found, data)["all"] < 0.4 * residual(trusting, data)["all"]


def wedge(data, cycles):
    """Images of the same sample on a wedge: those of LEDs that stand elsewhere."""
    step = data.optics.wavelength_um / (data.image_shape[1] * data.optics.pixel_um)
    return replace(data, na=data.na - np.array([cycles * step, 0.0]))


def test_a_wedge_on_the_sample_is_a_shifted_board():
    data = simulate("thin", image_shape=(96, 120), on_grid=True)
    for cycles in (0.5, 1):
        tilted = wedge(data, cycles)
        assert tilted.board.contradicted.any()
        assert not tilted.board.left_out.any()
        assert score(engine.reconstruct(tilted, "ap"), data)["psnr"] > 60
        assert score(engine.reconstruct(tilted, "ap", trust_leds=True), data)["psnr"] < 30


def test_positions_are_trusted_where_no_shift_explains_the_images():
    for sample in ("thin", "tilted"):
        data = simulate(sample, image_shape=(24, 30), photons=200, vignetting=0.4)
        assert not data.board.contradicted.any()
        assert data.check() == data.optics.check(data.na, data.image_shape)
    # A diffuser: brightness says nothing of where the light comes from.
    edge = np.abs(np.linalg.norm(data.na, axis=1) / data.optics.na - 1) < 0.1
    every_other = edge & (np.cumsum(edge) % 2 == 0)
    images = np.where(every_other[:, None, None], 0.01 * data.intensities, data.intensities)
    diffuser = replace(data, intensities=images)
    assert np.array_equal(diffuser.board.contradicted, every_other)
    assert not diffuser.board.shift.any()
    assert not diffuser.board.left_out.any()
    assert "taken as they are" in diffuser.check()[-1]
    # Far from the edge brightness says something of the sample or the exposure.
    dark = np.arange(data.n_leds) == data.order[0]
    images = np.where(dark[:, None, None], 0.01 * data.intensities, data.intensities)
    assert not replace(data, intensities=images).board.contradicted.any()
    assert not replace(data, na=data.na + 2 * data.optics.na).board.contradicted.any()


@pytest.mark.parametrize("solver", ["ap", "adam"])
def test_a_dead_led_at_the_centre_is_left_out(solver):
    data = simulate("thin", image_shape=(40, 48), photons=500)
    dead = np.arange(data.n_leds) == data.order[0]
    broken = replace(data, intensities=np.where(dead[:, None, None], 0, data.intensities))
    assert np.array_equal(broken.board.dead, dead)
    assert "black" in broken.check()[-1]
    whole, found = (score(engine.reconstruct(d, solver), data)["in_band_db"] for d in (data, broken))
    assert found > whole - 3
    kept = engine.reconstruct(broken, solver, trust_leds=True)
    assert np.abs(kept.native_field(0.0)).mean() > 0.05, "it starts from an image with light"
