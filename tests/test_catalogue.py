"""Simulated data sets by name: every sample and variant, what each variant does, and the twins' geometry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fpmtools import catalogue, load
from fpmtools.dataset import Dataset, Truth
from fpmtools.errors import OptionError
from fpmtools.phantom import SPOKES, bars, blood_slices, siemens_star
from fpmtools.simulation import SAMPLES, simulate


def truth_of(data: Dataset) -> Truth:
    assert data.truth is not None
    return data.truth


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("variant", [None, *catalogue.VARIANTS])
def test_every_sample_and_variant_can_be_had_by_name(sample: str, variant: str | None) -> None:
    name = f"sim:{sample}" + (f"+{variant}" if variant else "") + "@16x21"
    data = catalogue.make(name)
    assert data.name == name
    assert data.intensities.shape == (68, 16, 21)
    assert data.intensities.dtype == np.float32
    truth = truth_of(data)
    assert truth.field.shape == truth.depth_um.shape == (32, 42)
    assert np.abs(truth.field).max() > 0.5
    assert np.abs(truth.field - truth.field.mean()).max() > 0.1
    again = simulate(**data.provenance["arguments"])
    assert again.digest == data.digest
    np.testing.assert_array_equal(truth_of(again).field, truth.field)
    if variant:
        assert data.digest != catalogue.make(f"{sample}@16x21").digest


def test_variants_add_up_and_arguments_can_be_replaced() -> None:
    data = catalogue.make("bars+tile+noise+vignetted@20x27", seed=3, upsample=3)
    arguments = data.provenance["arguments"]
    expected = {"sample": "bars", "surround": 2, "photons": 500.0, "vignetting": 0.6, "seed": 3, "upsample": 3}
    assert {name: arguments[name] for name in expected} == expected
    assert truth_of(data).field.shape == (60, 81)


def test_load_takes_these_names_and_crops_them() -> None:
    data = load("sim:layers+noise@16x21", roi=(2, 3, 10, 12))
    assert data.name == "sim:layers+noise@16x21"
    assert data.image_shape == (10, 12)
    whole = catalogue.make("layers+noise@16x21")
    np.testing.assert_array_equal(data.intensities, whole.intensities[:, 2:12, 3:15])


def test_one_number_is_the_size_of_a_square() -> None:
    """And the data set is called, and is, the same however its size is written."""
    square, both = load("sim:bars+noise@17"), load("sim:bars+noise@017x17")
    assert (square.name, square.image_shape) == (both.name, both.image_shape) == ("sim:bars+noise@17x17", (17, 17))
    assert square.digest == both.digest


NO_SIZES = (
    "",
    "4x40",
    "7",
    "0",
    "-64",
    "64x",
    "x64",
    "64x64x64",
    "64,64",
    "64@64",
    "1e2",
    "٣٢",
    "99999",
    "64x99999",
    "9" * 5000,
)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sim:tiltd", "unknown simulated sample 'tiltd': did you mean 'tilted'"),
        ("sim:tilted+nois", "unknown variant of sim:tilted 'nois': did you mean 'noise'"),
        *(
            (f"sim:tilted@{size}", "must be HEIGHTxWIDTH, or N of both, from 8 to 16384 camera pixels")
            for size in NO_SIZES
        ),
        ("sim:twin-siemen", "did you mean 'twin-siemens'"),
    ],
)
def test_a_name_that_is_none_is_refused_in_one_line(name: str, words: str) -> None:
    with pytest.raises(OptionError, match=words) as caught:
        load(name)
    assert "\n" not in str(caught.value)


def test_a_tile_is_the_middle_of_a_wider_field() -> None:
    size: dict[str, Any] = {"leds": [[0.0, 0.0], [0.11, -0.06]], "seed": 2}
    tile = simulate("thin", image_shape=(15, 22), surround=3, **size)
    wide = simulate("thin", image_shape=(45, 66), **size)
    np.testing.assert_allclose(tile.intensities, wide.intensities[:, 15:30, 22:44], rtol=1e-6)
    np.testing.assert_array_equal(truth_of(tile).field, truth_of(wide).field[30:60, 44:88])
    depth = truth_of(simulate("tilted", image_shape=(15, 22), surround=2, tilt_um=7.0, **size)).depth_um
    np.testing.assert_allclose(depth[0, [0, -1]], [-7, 7], rtol=1e-5)


def test_misaligned_leds_are_elsewhere_than_the_data_set_says() -> None:
    size: dict[str, Any] = {"image_shape": (16, 21), "seed": 5}
    nominal, moved = simulate("thin", **size), simulate("thin", misaligned_na=0.02, **size)
    np.testing.assert_array_equal(moved.na, nominal.na)
    actual = np.array(moved.provenance["actual"]["na"])
    assert np.linalg.norm((actual - moved.na).mean(axis=0)) == pytest.approx(0.02, rel=0.2)
    assert (actual - moved.na).std(axis=0) == pytest.approx([0.02 / 3] * 2, rel=0.3)
    np.testing.assert_allclose(simulate("thin", leds=actual, **size).intensities, moved.intensities, rtol=1e-5)


def test_aberrations_have_the_size_that_was_asked_for() -> None:
    data = simulate("thin", image_shape=(16, 21), aberration_rad=0.7)
    sizes = list(data.provenance["actual"]["aberrations_rad"].values())
    assert np.linalg.norm(sizes) == pytest.approx(0.7)
    assert data.calibration.pupil.ideal


def test_deep_samples_have_each_cell_in_one_slice() -> None:
    slices, nearest = blood_slices((120, 150), 0.25, 5, seed=1)
    assert slices.shape == (5, 120, 150)
    assert set(np.unique(nearest)) <= set(range(5))
    assert len(np.unique(nearest)) >= 4
    own = np.take_along_axis(slices, nearest[None], axis=0)[0]
    product = slices.prod(axis=0)
    detail = np.abs(product - 1) > 0.3
    assert detail.mean() > 0.1
    assert np.mean(np.abs(own - product)[detail] < 0.05) > 0.9
    data = simulate("layers", image_shape=(40, 45), thickness_um=12.0, defocus_um=1.0)
    assert set(np.unique(truth_of(data).depth_um)) == {-5.0, 7.0}
    assert data.defocus_um is None


def test_bars_have_the_period_of_their_group() -> None:
    pixel = 0.08
    field, elements = bars((300, 401), pixel)
    assert len(elements) > 8
    for element in elements:
        per_mm = 2 ** (element.group + (element.element - 1) / 6)
        assert element.period_um == pytest.approx(1000 / per_mm)
        y, x, height, width = element.box_um
        assert y + height < 300 * pixel
        assert x + width < 401 * pixel
        row = np.abs(field[int((y + height / 2) / pixel)])
        across = row[int((x + width - height) / pixel) - 2 : int((x + width) / pixel) + 3]
        if element.period_um > 8 * pixel:
            falls = np.flatnonzero((across[:-1] > 0.575) & (across[1:] <= 0.575))
            assert len(falls) == 3
            np.testing.assert_allclose(np.diff(falls) * pixel, element.period_um, atol=1.5 * pixel)
    finest = min(element.period_um for element in elements)
    assert 2 * pixel <= finest < 0.3 * max(element.period_um for element in elements)


def test_the_star_has_its_spokes_at_every_radius() -> None:
    field = np.abs(siemens_star((200, 261), 0.1))
    for radius in (5.0, 8.5):
        angle = np.linspace(0, 2 * np.pi, 20000, endpoint=False)
        y, x = 100 + radius / 0.1 * np.sin(angle), 130.5 + radius / 0.1 * np.cos(angle)
        ring = field[np.rint(y).astype(int), np.rint(x).astype(int)] > 0.575
        assert ring.mean() == pytest.approx(0.5, abs=0.04)
        spectrum = np.abs(np.fft.rfft(ring - ring.mean()))
        assert spectrum.argmax() == SPOKES
    assert field[100, 130 + 95] == 1


@pytest.mark.parametrize(
    ("name", "shape", "leds", "synthetic", "depth"),
    [
        ("twin-blood-smear", (1024, 1024), 68, 0.507, (-20, 20)),
        ("twin-thyroid", (1024, 1024), 145, 0.777, (-10, 20)),
        ("twin-siemens", (512, 512), 145, 0.75, (0, 0)),
        ("twin-sheepblood", (512, 512), 68, 0.495, (0, 0)),
        ("twin-wu1005", (512, 512), 68, 0.495, (0, 0)),
    ],
)
def test_twins_have_the_published_geometry(
    name: str, shape: tuple[int, int], leds: int, synthetic: float, depth: tuple[float, float]
) -> None:
    assert catalogue._twins()[name][1]["image_shape"] == shape
    data = catalogue.make(f"{name}@24x30")
    assert data.n_images == leds
    assert data.optics.synthetic_na(data.na) == pytest.approx(synthetic, abs=0.003)
    found = truth_of(data).depth_um
    assert depth[0] <= found.min()
    assert found.max() <= depth[1]
    if name != "twin-thyroid":  # a field this small has a single cell
        np.testing.assert_allclose([found.min(), found.max()], depth)
    assert f"sim:{name}" in catalogue.entries()
