"""The joint fit of object and instrument: what is wrong is found, what is right is left alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import fpmtools
from fpmtools.calibrate import joint
from fpmtools.calibration import Calibration
from fpmtools.dataset import Dataset
from fpmtools.optics import resample

SHAPE = (48, 56)


def tile(**wrong: float) -> Dataset:
    return fpmtools.simulate("thin", image_shape=SHAPE, leds="grid", surround=2, photons=500, seed=4, **wrong)


def kept(found: Calibration) -> set[str]:
    return {name for name, group in found.found["joint"]["groups"].items() if group["kept"]}


def error(dataset: Dataset, calibration: Calibration) -> float:
    """Of the field that ``ap`` finds: relative, after one complex factor."""
    assert dataset.truth is not None
    truth = dataset.truth.field
    field = resample(fpmtools.reconstruct(dataset, "ap", z_um=0.0, calibration=calibration).field(0.0), truth.shape)
    inside = np.s_[8:-8, 8:-8]
    field, truth = field[inside], truth[inside]
    factor = np.vdot(field, truth) / np.vdot(field, field)
    return float(np.linalg.norm(factor * field - truth) / np.linalg.norm(truth))


@pytest.mark.parametrize("photons", [None, 500])
def test_nothing_is_looked_for_where_the_images_agree(photons: float | None) -> None:
    dataset = fpmtools.simulate("thin", image_shape=SHAPE, leds="grid", photons=photons, seed=4)
    found = joint.fit(dataset, dataset.calibration, z_um=0.0)
    assert found.found["joint"]["groups"] == {}
    assert found.digest == dataset.calibration.digest


@pytest.mark.slow
def test_aberrations_are_found() -> None:
    dataset = tile(aberration_rad=1.0)
    found = joint.fit(dataset, dataset.calibration, z_um=0.0, groups=("pupil",))
    assert kept(found) == {"pupil"}
    assert error(dataset, found) < 0.6 * error(dataset, dataset.calibration)
    assert np.array_equal(found.na, dataset.na)


@pytest.mark.slow
def test_gains_and_a_moved_board_are_found() -> None:
    dataset = tile()
    rng = np.random.default_rng(1)
    gains = np.exp(rng.normal(size=dataset.n_images) * 0.1)
    images = dataset.intensities * gains[:, None, None]
    moved = dataset.na + np.array([0.004, -0.003])
    wrong = Dataset.from_arrays(images, moved, dataset.optics, truth=dataset.truth)
    found = joint.fit(wrong, wrong.calibration, z_um=0.0, groups=("board", "gain"))
    assert kept(found) == {"board", "gain"}
    assert np.abs((found.na - dataset.na).mean(0)).max() < 0.001
    bright = dataset.bright_field
    ratio = np.log(found.gain / gains)[bright]
    assert np.std(ratio) < 0.03
    assert error(wrong, found) < error(wrong, wrong.calibration)


def test_what_cannot_be_fitted_is_left_alone() -> None:
    dataset = tile()
    few = dataset.select(np.arange(8))
    assert joint.fit(few, few.calibration, z_um=0.0) is few.calibration
    lit = replace(dataset.calibration, patterns=np.eye(dataset.n_images))
    assert joint.fit(replace(dataset, calibration=lit), lit, z_um=0.0) is lit
