"""Angles that change over the field: LEDs at a known height light each part of it from where they stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fpmtools
from fpmtools import leds
from fpmtools.calibrate import joint, resolve
from fpmtools.calibration import Calibration
from fpmtools.dataset import Dataset
from fpmtools.errors import DataError, OptionError
from fpmtools.formats import load, native
from fpmtools.optics import Optics

OPTICS = Optics(wavelength_um=0.53, na=0.1, magnification=4, camera_pixel_um=6)  # 1.5 µm on the sample
SHAPE = (61, 84)
PLACES = np.array([(0.0, 0.0), (9.0, -4.0), (-20.0, 31.0), (0.5, 44.0)])
HEIGHTS = np.array([60.0, 60.0, 75.0, 58.5])


def field(**changes) -> Dataset:
    """Four LEDs over a field; each at its own height."""
    na = PLACES / np.sqrt(np.square(PLACES).sum(axis=1) + HEIGHTS**2)[:, None]
    images = np.random.default_rng(0).uniform(1, 2, (4, *SHAPE)).astype(np.float32)
    return Dataset.from_arrays(images, na, OPTICS).with_calibration(height_mm=HEIGHTS, **changes)


def seen_at(x_mm: float, y_mm: float) -> np.ndarray:
    """Direction sines written anew: from (x, y) on the sample to each LED."""
    sines = []
    for (px, py), h in zip(PLACES, HEIGHTS, strict=True):
        dx, dy = px - x_mm, py - y_mm
        length = (dx * dx + dy * dy + h * h) ** 0.5
        sines.append((dx / length, dy / length))
    return np.array(sines)


@pytest.mark.parametrize("box", [(0, 0, 20, 30), (41, 54, 20, 30), (11, 70, 9, 14), (0, 0, *SHAPE)])
def test_a_region_is_lit_from_where_the_leds_stand(box) -> None:
    y, x, h, w = box
    middle_um = ((x + w / 2 - SHAPE[1] / 2) * 1.5, (y + h / 2 - SHAPE[0] / 2) * 1.5)
    region = field().crop(*box)
    assert np.allclose(region.na, seen_at(middle_um[0] / 1e3, middle_um[1] / 1e3), atol=1e-14)
    assert region.box == box
    if middle_um[0] > 0:  # further towards an LED is less towards it
        assert (region.na[:, 0] < field().na[:, 0]).all()


def test_cropping_twice_is_cropping_once() -> None:
    once, twice = field().crop(9, 21, 16, 17), field().crop(4, 11, 40, 50).crop(5, 10, 16, 17)
    assert np.abs(once.na - twice.na).max() < 1e-15
    assert once.box == twice.box
    assert np.array_equal(once.images.read(), twice.images.read())
    assert np.abs(twice.na - field().na).max() > 1e-4


def test_where_no_height_is_known_angles_stay() -> None:
    plain = Dataset.from_arrays(np.ones((4, *SHAPE)), field().na, OPTICS)
    assert plain.calibration.height_mm is None
    assert np.array_equal(plain.crop(0, 0, 20, 20).na, plain.na)
    assert "height_mm" not in plain.calibration.dump()[0]
    assert plain.calibration.digest != field().calibration.digest


def test_images_of_several_leds_too() -> None:
    weights = np.array([[1.0, 1, 0, 0], [0, 0, 1, 2], [0, 1, 1, 0]])
    lit = Dataset.from_arrays(np.ones((3, *SHAPE)), field().na, OPTICS, patterns=weights)
    lit = lit.with_calibration(height_mm=HEIGHTS).select([2, 0]).crop(0, 0, 20, 30)
    assert np.array_equal(lit.na, field().crop(0, 0, 20, 30).na)
    assert lit.calibration.height_mm is not None
    assert lit.calibration.height_mm.shape == (4,)


def test_parts_and_files_keep_heights(tmp_path: Path) -> None:
    few = field().select([3, 1])
    assert few.calibration.height_mm is not None
    assert few.calibration.height_mm.tolist() == [58.5, 60.0]
    region = field().crop(3, 50, 24, 31)
    again = native.read(native.save(region, tmp_path / "a.safetensors"))
    assert again.digest == region.digest
    assert again.box == region.box
    assert np.abs(again.crop(1, 2, 9, 9).na - field().crop(4, 52, 9, 9).na).max() < 1e-15


def test_a_calibration_of_one_region_is_good_for_another(tmp_path: Path) -> None:
    here, there = field(gain=np.array([1, 2, 1, 0.5])).crop(0, 0, 20, 30), field().crop(30, 40, 24, 31)
    moved = replace(here.calibration, na=here.na + np.array([0.003, -0.001]))
    path = moved.save(tmp_path / "c.safetensors", OPTICS, here.box)
    found = Calibration.load(path, OPTICS, 4, there.box)
    assert found.gain.tolist() == [1, 2, 1, 0.5]
    assert np.allclose(found.na - there.na, [0.003, -0.001], atol=2e-5), "the same board, moved as a whole"
    assert np.array_equal(resolve(there, path).na, found.na)
    back = found.seen_from(here.box, there.box, OPTICS.pixel_um)
    assert np.abs(back.na - moved.na).max() < 1e-15
    assert np.array_equal(Calibration.load(path, OPTICS, 4).na, moved.na)
    with pytest.raises(OptionError, match=r"say which part this is of \(box=dataset.box\)"):
        moved.save(path, OPTICS)


def test_a_file_of_before_opens(tmp_path: Path) -> None:
    """Without heights and without a place."""
    plain = Calibration.nominal(field().na)
    path = plain.save(tmp_path / "c.safetensors", OPTICS)
    assert Calibration.load(path, OPTICS, 4, (3, 4, 20, 20)).digest == plain.digest


def test_what_a_fit_finds_in_a_part_holds_for_the_whole() -> None:
    """``joint`` looks at a region, and its calibration is of the data set's own middle."""
    region = field().crop(3, 50, 24, 31)
    here = region.calibration.seen_from(field().box, region.box, OPTICS.pixel_um)
    whole = joint._whole(field().calibration, here, {})
    assert np.abs(whole.na - field().na).max() < 1e-15


@pytest.mark.parametrize("height", [np.zeros(4), np.full(4, np.nan), np.ones(3), np.full((4, 1), 50.0)])
def test_heights_that_cannot_be(height) -> None:
    with pytest.raises(DataError, match="height_mm must be 4 finite numbers above 0"):
        field().with_calibration(height_mm=height)


def test_an_led_that_stands_nowhere_stays() -> None:
    na = np.array([(1.1, 0.0), (0.6, 0.0)])
    moved = leds.seen_from(na, np.array([50.0, 50.0]), (1.0, 0.0))
    assert np.array_equal(moved[0], na[0])
    assert moved[1, 0] == pytest.approx(36.5 / np.hypot(36.5, 50))


def test_descriptions_and_tables_tell_heights(tmp_path: Path) -> None:
    spec = {"rule": "raster", "ny": 2, "nx": 2, "pitch_mm": 4, "height_mm": 80, "axes": "-y,x"}
    board = leds.from_mapping(spec)
    assert board.height_mm is not None
    assert board.height_mm.tolist() == [80.0] * 4
    assert leds.from_mapping({"na": [[0.1, 0]]}).height_mm is None
    assert leds.from_mapping({"na": [[0.1, 0]], "height_mm": 70}).height_mm == [70.0]
    with pytest.raises(OptionError, match="height_mm must be a positive number"):
        leds.from_mapping({"na": [[0.1, 0]], "height_mm": -1})
    path = tmp_path / "leds.csv"
    path.write_text("x_mm,y_mm,height_mm,gain\n4,0,80,1\n0,-4,75,2\n")
    assert leds.from_file(path).height_mm.tolist() == [80.0, 75.0]
    path.write_text("na_x,na_y,height_mm\n0.1,0,80\n0,-0.2,75\n")
    assert leds.from_file(path).height_mm.tolist() == [80.0, 75.0]
    assert leds.from_file(path).na.tolist() == [[0.1, 0], [0, -0.2]]
    path.write_text("na_x,na_y\n0.1,0\n0,-0.2\n")
    assert leds.from_file(path).height_mm is None


def test_a_reader_hands_them_on(tmp_path: Path) -> None:
    """A region of a file is cut out with the angles of its place, on the image's axes."""
    np.save(tmp_path / "a.npy", np.random.default_rng(1).uniform(1, 2, (4, *SHAPE)))
    board = {"rule": "raster", "ny": 2, "nx": 2, "pitch_mm": 4, "height_mm": 80}
    how = {"optics": OPTICS.to_dict(), "leds": board}
    whole, region = load(tmp_path / "a.npy", **how), load(tmp_path / "a.npy", roi=(0, 0, 20, 30), **how)
    assert np.array_equal(region.na, whole.crop(0, 0, 20, 30).na)
    turned = load(tmp_path / "a.npy", roi=(0, 0, 20, 30), axes="-y,x", **how)
    away = turned.na - load(tmp_path / "a.npy", axes="-y,x", **how).na
    assert (away > 0).all(), "the region is up and left, whichever way the board is turned"
    assert np.allclose(away * 80e3, ((84 - 30) / 2 * 1.5, (61 - 20) / 2 * 1.5), rtol=0.01)


def test_of_the_manifests_sets(measured_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FPMTOOLS_DATA", str(measured_data("thu_phase_target").parent))
    whole = fpmtools.load("thu_phase_target")
    corner = whole.crop(0, 0, 128, 128)
    assert set(whole.calibration.height_mm) == {110.0}
    assert np.allclose(corner.na[0] - whole.na[0], 0.192 / 110, rtol=1e-3)
