"""The pupil over a slide: found at a few places, and kept where places that were left out are predicted better."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import fpmtools
import fpmtools.slide as slides
from fpmtools.calibrate import focus
from fpmtools.calibrate.instrument import DEFOCUS
from fpmtools.tiling import aberrations
from fpmtools.tiling.plan import Plan

SHAPE = (96, 144)
NOLL = {"astigmatism_45": 4, "astigmatism_0": 5, "coma_y": 6, "coma_x": 7, "spherical": 10}  # from 0 on


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> list[aberrations.Place]:
    """Six parts of a slide, each with the pupil that it has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slides, "BLOCK", 48)
        made = slides.simulate_slide(
            tmp_path_factory.mktemp("pupils") / "slide", image_shape=SHAPE, leds=5, pitch_mm=1.9, height_mm=50,
            aberration_rad=0.8, tilt_um=0, bow_um=0, progress=False,
        )  # fmt: skip
    data = fpmtools.load(made / "images.npy", config=made / "microscope.yaml")
    about, found = json.loads((made / "slide.json").read_text()), []
    for (y, x), known in zip(about["blocks_yx"], about["aberrations_rad"], strict=True):
        zernike = np.zeros(21)
        for name, mode in NOLL.items():
            zernike[mode] = known[name]
        found.append(aberrations.Place(data.crop(round(y) - 24, round(x) - 24, 48, 48), 0.0, zernike, 0.0))
    return found


def test_surfaces_that_predict_left_out_places_are_kept(places: list[aberrations.Place]) -> None:
    frame = (0, 0, *SHAPE)
    found = aberrations.settled(places, frame, 0)
    assert found.pupil is not None
    assert found.depth is None
    assert found.judged["kept"]
    assert found.judged["with"] < 0.5 * found.judged["without"]
    own = np.stack([place.zernike_rad for place in places])
    assert np.abs(found.pupil.at([place.dataset.box for place in places]) - own).max() < 0.2
    wrong = [replace(place, zernike_rad=-pupil) for place, pupil in zip(places, own, strict=True)]
    found = aberrations.settled(wrong, frame, 0)
    assert found.pupil is None
    assert found.judged["with"] > found.judged["without"]


def test_defocus_of_the_pupil_is_depth_where_none_is_given(places: list[aberrations.Place]) -> None:
    """The slide lies at z = 0; the search for focus was wrong by what the pupil's defocus then made up for."""
    one = np.eye(21)[DEFOCUS]
    step = focus.as_depth(one, places[0].dataset.optics)[1]
    wrong = [0.4, -0.2, 0.3, 0.1, -0.3, 0.2]
    seen = [
        replace(place, z_um=-step * rad, common_um=-step * rad, zernike_rad=place.zernike_rad + rad * one)
        for place, rad in zip(places, wrong, strict=True)
    ]
    deep = [place.without_defocus() for place in seen]
    assert [place.z_um for place in deep] == pytest.approx([0.0] * 6, abs=1e-9)
    assert max(abs(place.zernike_rad[DEFOCUS]) for place in deep) < 1e-12
    found = aberrations.settled(deep, (0, 0, *SHAPE), 0, deep=True)
    assert found.depth is not None
    assert np.abs(found.depth.at([place.dataset.box for place in places])).max() < 1e-6


@pytest.mark.slow
def test_the_pupil_of_a_place_is_found(places: list[aberrations.Place]) -> None:
    place = places[0]
    found = aberrations._fitted(place.dataset, lambda region: region.calibration, 0.0, 0)
    assert found.zernike_rad == pytest.approx(place.zernike_rad, abs=0.12)


def test_of_two_fits_the_one_that_predicts_better_counts(places: list[aberrations.Place]) -> None:
    right = places[0]
    wrong = replace(right, z_um=-40.0, zernike_rad=-right.zernike_rad)
    assert aberrations._best([wrong, right], 0) is right
    assert aberrations._best([wrong], 0) is wrong


def test_few_places_tell_nothing() -> None:
    plan = Plan.of((48, 140), 48, 8)
    data = fpmtools.simulate("thin", image_shape=(48, 140))
    depths = [0.0] * len(plan.tiles)
    found = aberrations.find(data, lambda region: region.calibration, plan, depths, {}, 0, lambda step, total: None)
    assert (found.pupil, found.depth, found.judged) == (None, None, {})
