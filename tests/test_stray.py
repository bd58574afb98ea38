"""Stray light that differs over the field: found where it is, and only there; what is known of it goes everywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fpmtools
from fpmtools.calibrate import joint, part
from fpmtools.calibrate import warnings as said_of
from fpmtools.calibration import Calibration
from fpmtools.dataset import Dataset
from fpmtools.errors import DataError
from fpmtools.metrics import residual, score
from fpmtools.sampling import SamplingPlan, intensity_scale
from fpmtools.stray import StrayLight

SHAPE = (48, 56)


def glow() -> np.ndarray:
    """What one side of the field has more of than the other."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.exp(-((x - 45) ** 2 + (y - 10) ** 2) / 28**2)


def thinned(data: Dataset, every: int = 2) -> Dataset:
    """Every other LED of the square grid, as on a chessboard: as much is seen in half the time."""
    return data.select(np.arange(0, data.n_images, every))


def scene(share: float, seed: int = 4, every: int = 2) -> Dataset:
    """The middle of a wider field, its light ``share`` of the bright field's stray where that is brightest, with noise.

    Each image has as much more or less of the stray light as its LED happens to make.
    """
    data = thinned(fpmtools.simulate("thin", image_shape=SHAPE, leds="grid", surround=2, seed=seed), every)
    rng, bright = np.random.default_rng(seed), float(data.images.means.max())
    level = share * bright * np.exp(0.4 * rng.standard_normal(data.n_images))
    intensities = data.intensities + level[:, None, None] * glow()
    return data.with_images(rng.poisson(intensities * 500 / bright).astype(np.float32))


@pytest.mark.slow
def test_stray_light_is_found_and_pays() -> None:
    data = scene(0.08)
    even = joint.fit(data, data.calibration, z_um=0.0, groups=("background",))
    found = joint.fit(data, data.calibration, z_um=0.0, groups=("background", "stray"))
    group = found.found["joint"]["groups"]["stray"]
    assert group["kept"]
    assert group["pictures"] == 1
    assert group["with"] < 0.9 * group["without"]
    assert found.stray is not None
    (picture,) = found.stray.of(SHAPE)
    assert np.corrcoef(picture.ravel(), glow().ravel())[0, 1] > 0.95
    assert "stray light that differs over the field" in said_of(found)[0]
    one, two = (fpmtools.reconstruct(data, "ap", z_um=0.0, calibration=known) for known in (even, found))
    assert score(two, data)["in_band_db"] > score(one, data)["in_band_db"] + 0.5
    assert residual(two, data)["dark"] < 0.9 * residual(one, data)["dark"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [4, 5])
def test_none_is_found_where_there_is_none(seed: int) -> None:
    data = scene(0.0, seed, every=1)
    found = joint.fit(data, data.calibration, z_um=0.0, groups=("stray",))
    assert not found.found["joint"]["groups"]["stray"]["kept"]
    assert found.stray is None


@pytest.mark.slow
def test_none_is_looked_for_in_a_sample_with_depth() -> None:
    data = fpmtools.simulate(
        "layers", image_shape=SHAPE, leds="grid", photons=2e3, aberration_rad=1.0, misaligned_na=0.01, seed=4
    )
    data = thinned(data)
    found = joint.fit(data, data.calibration, z_um=0.0, deep=True)
    assert found.found["joint"]["groups"]["pupil"]["kept"]
    assert "stray" not in found.found["joint"]["groups"]
    assert found.stray is None


def known() -> StrayLight:
    rng = np.random.default_rng(1)
    return StrayLight(rng.uniform(0, 3, (5, 2)), rng.uniform(0, 1, (2, 3, 4)), (2.0, -1.0, 20.0, 33.0))


def test_a_part_of_the_field_has_its_part_of_it(tmp_path: Path) -> None:
    data = fpmtools.simulate("thin", image_shape=(24, 31), leds=np.zeros((5, 2)) + 0.01 * np.arange(5)[:, None])
    whole = data.with_calibration(stray=known())
    box = np.s_[:, 3:15, 6:20]
    inner = whole.crop(1, 2, 20, 22).crop(2, 4, 12, 14)
    assert inner.corner == (3, 6)
    assert inner.calibration.stray is not None
    assert np.allclose(inner.calibration.stray.of((12, 14)), known().of((24, 31))[box], atol=1e-12)
    # A file is of the whole field, whatever part it was made of.
    path = inner.calibration.save(tmp_path / "c.safetensors", data.optics, inner.box)
    again, there = (Calibration.load(path, data.optics, 5, box) for box in (data.box, inner.box))
    assert again.digest == whole.calibration.digest
    assert there.digest == inner.calibration.digest != again.digest


def test_where_a_fit_looks_at_a_part_its_place_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "ENOUGH", 1)
    monkeypatch.setattr(part, "LEAST_REGION", 40)
    data = scene(0.08)
    region = part.region(data)
    inner, report = replace(region.calibration, stray=replace(known(), levels=np.ones((data.n_images, 2)))), {}
    used = replace(data.calibration, used=np.arange(data.n_images) != 3)
    inner = inner.select(np.flatnonzero(used.used))
    found = joint._whole(used, inner.seen_from(data.box, region.box, 1.0), report)
    assert found.stray is not None
    assert found.stray.levels[3].tolist() == [0, 0]
    (top, left), here = region.corner, known().of((40, 40))
    assert np.allclose(found.stray.of(SHAPE)[:, top : top + 40, left : left + 40], here, atol=1e-12)


def test_it_is_part_of_what_is_known() -> None:
    data = scene(0.0)
    light = replace(known(), levels=np.tile([2.0, 0.0], (data.n_images, 1)))
    lit = data.with_calibration(stray=light)
    assert lit.calibration.digest != data.calibration.digest
    assert data.calibration.dump()[1].keys() == {"defocus_um", "pupil", "found"}
    assert lit.select([4, 2]).calibration.stray.levels.shape == (2, 2)
    bright = float(light.levels[0] @ light.of(SHAPE).mean(axis=(1, 2)))
    assert intensity_scale(data, data.calibration) - intensity_scale(lit, lit.calibration) == pytest.approx(bright)
    assert SamplingPlan.choose(lit).scale == intensity_scale(lit, lit.calibration)


@pytest.mark.parametrize(
    "changes",
    [
        {"levels": np.ones((5, 3))},
        {"levels": -np.ones((5, 2))},
        {"pictures": np.full((2, 3, 4), np.nan)},
        {"place": (0.0, 0.0, 0.0, 3.0)},
    ],
)
def test_what_cannot_be_is_refused(changes: dict) -> None:
    with pytest.raises(DataError, match="stray light"):
        replace(known(), **changes)
    nominal = Calibration.nominal(np.zeros((4, 2)))
    with pytest.raises(DataError, match="stray light of 5 images, and 4 images"):
        replace(nominal, stray=known())
