"""What is wrong with a data set is named without a solve, and nothing is where nothing is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fpmtools
from fpmtools.calibrate import brightness, dark, exposure, geometry, spectra
from fpmtools.calibrate.inspection import brief, inspect
from fpmtools.cli._inputs import READING
from fpmtools.cli.inspect import run_line
from fpmtools.dataset import Dataset
from fpmtools.report import figures, looking
from fpmtools.simulation import simulate

Make = Callable[[Dataset], Dataset]


@pytest.fixture(scope="module")
def data() -> Dataset:
    """121 LEDs, 69 of them bright field; light crosses the borders of the field."""
    return simulate("thin", image_shape=(72, 90), leds="grid", upsample=4, photons=500, surround=2, seed=5)


def warned(data: Dataset) -> list[str]:
    return [finding.name for finding in inspect(data).warnings]


def moved(change: Callable[[np.ndarray], np.ndarray]) -> Make:
    return lambda data: data.with_calibration(na=change(data.na))


def reordered(change: Callable[[np.ndarray], np.ndarray]) -> Make:
    return lambda data: replace(data, images=data.images.select(change(np.arange(data.n_images))))


MISTAKES: dict[str, tuple[Make, str]] = {
    "sign of x": (moved(lambda na: na * [-1, 1]), "orientation"),
    "sign of y": (moved(lambda na: na * [1, -1]), "orientation"),
    "swapped": (moved(lambda na: na[:, ::-1]), "orientation"),
    "turned": (moved(lambda na: na[:, ::-1] * [-1, 1]), "orientation"),
    "two places off": (reordered(lambda i: np.roll(i, 2)), "file order"),
    "as text": (reordered(lambda i: np.array(sorted(i, key=str))), "file order"),
    "meander": (reordered(lambda i: np.where(i // 11 % 2, i // 11 * 11 + 10 - i % 11, i)), "file order"),
    "pixel": (lambda d: d.with_optics(camera_pixel_um=d.optics.camera_pixel_um * 0.7), "pixel size or wavelength"),
    "wavelength": (lambda d: d.with_optics(wavelength_um=0.63), "pixel size or wavelength"),
    "NA": (lambda d: d.with_optics(na=0.2), "objective's NA"),
    "height": (moved(lambda na: na / 1.3), "height of the LEDs"),
    "board": (moved(lambda na: na + np.array([0.08, -0.11])), "board"),
    "amplitudes": (lambda d: d.with_images(np.sqrt(d.intensities)), "values"),
    "squares": (lambda d: d.with_images(d.intensities**2), "values"),
    "dark level": (lambda d: d.with_images(d.intensities + 0.1), "dark level"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named(data: Dataset, name: str) -> None:
    make, cause = MISTAKES[name]
    assert warned(make(data)) == [cause]


def test_nothing_is_said_where_nothing_is_wrong(data: Dataset) -> None:
    assert warned(data) == []
    assert brief(data) == []


@pytest.mark.parametrize(
    "arguments",
    [
        {"sample": "bars", "leds": "grid", "upsample": 4, "photons": 100},
        {"sample": "phase", "leds": "grid", "upsample": 4, "photons": 200, "aberration_rad": 1.5, "defocus_um": 30},
        {"sample": "tilted", "photons": 500},
        {"sample": "thin", "leds": "grid", "upsample": 4, "photons": 10, "read_noise": 2, "vignetting": 0.4},
    ],
    ids=["bars", "aberrated", "rings", "noisy"],
)
def test_nor_in_other_samples(arguments: dict[str, object]) -> None:
    assert warned(simulate(image_shape=(64, 80), seed=2, **arguments)) == []  # type: ignore[arg-type]


def test_a_board_turned_by_180_degrees_looks_the_same(data: Dataset) -> None:
    found = inspect(data.with_calibration(na=-data.na))
    assert not found.warnings
    assert "180°" in next(f.value for f in found.findings if f.name == "orientation")


def test_the_board_is_found_over_the_whole_range(data: Dataset) -> None:
    na = data.optics.na
    for shift in ([0.05, 0.1], [0.57, -0.1], [-0.5, 0.6]):
        away = data.with_calibration(na=data.na - np.array(shift) * na)
        fit = brightness.fit_board(away)
        assert np.abs(np.array(fit.shift_na) / na - shift).max() < 0.1
        assert fit.misfit < 1 < fit.misfit_nominal
        found = geometry.examine(away)
        assert np.abs(np.array(found.shift_na) / na - shift).max() < 0.03
        corrected = found.corrected(away)
        assert np.abs(corrected.na - data.na).max() < 0.04 * na


def test_brightness_needs_an_edge(data: Dataset) -> None:
    bright = data.select(np.flatnonzero(data.bright_field))
    fit = brightness.fit_board(bright)
    assert not fit.informative
    assert fit.shift_na == (0, 0)
    assert np.isinf(fit.shift_spread_na).all()


def test_every_order_puts_right_what_it_names() -> None:
    na = data_of_grid(6)
    names = [name for name, _ in brightness.orders(na)]
    assert len(names) > 8
    for _, index in brightness.orders(na):
        assert sorted(index) == list(range(36))
    text = next(index for name, index in brightness.orders(na) if name.startswith("the files are sorted as text"))
    files = sorted(str(i) for i in range(36))
    assert [files[i] for i in text] == [str(i) for i in range(36)]


def data_of_grid(side: int) -> np.ndarray:
    y, x = np.mgrid[:side, :side] * 0.01
    return np.stack([x.ravel(), y.ravel()], axis=1)


def test_the_discs_have_radius_scale_and_shift(data: Dataset) -> None:
    wrong = data.with_calibration(na=data.na / 1.2 + [0.02, 0]).with_optics(na=data.optics.na * 1.1)
    found = spectra.find_discs(wrong, spectra.Spectra.of(wrong, data.bright_field))
    assert found is not None
    assert found.orientation == "as given"
    assert found.radius == pytest.approx(1 / 1.1, rel=0.08)
    assert found.scale == pytest.approx(1.2, rel=0.06)
    assert found.shift_na == pytest.approx((-0.02, 0), abs=0.006)
    assert found.strength > 4


def test_exposure_of_the_dark_field(data: Dataset) -> None:
    bright = data.bright_field
    before = exposure.compare(data, bright, data.na, 1.0)
    long = data.with_images(np.where(bright[:, None, None], data.intensities, 4 * data.intensities))
    after = exposure.compare(long, bright, data.na, 1.0)
    assert before is not None
    assert after is not None
    assert after.ratio / before.ratio == pytest.approx(4, rel=1e-6)
    assert before.ratio == pytest.approx(1, abs=0.5)
    assert [f.severity for f in inspect(long).findings if f.name == "exposure"] == ["note"]


def test_camera(data: Dataset) -> None:
    images = np.minimum(data.intensities, 1.5)
    images[:, 20, 30] += 0.5
    images[3] = np.random.default_rng(0).normal(0.01, 0.001, images[3].shape)
    camera = dark.examine(data.with_images(images), data.bright_field)
    assert camera.hot == 1
    assert camera.empty[3]
    assert camera.empty.sum() == 1
    clean = dark.examine(data, data.bright_field)
    assert clean.hot == clean.dead == 0
    assert not clean.saturated.any()
    flat = np.minimum(data.intensities, 1.5)
    cut = dark.examine(data.with_images(flat), data.bright_field)
    assert cut.top == 1.5
    np.testing.assert_allclose(cut.saturated, (flat == 1.5).mean(axis=(1, 2)))


def test_a_dark_level_is_measured(data: Dataset) -> None:
    offset, spread, share = dark.dark_level(data.with_images(data.intensities + 0.1), data.bright_field)
    assert offset == pytest.approx(0.1, abs=0.02)
    assert offset > 4 * spread
    assert share > 0.5
    assert inspect(data.with_images(data.intensities + 0.1)).corrections["dark_level"] == pytest.approx(0.1, abs=0.02)


def test_tiny_and_odd_data_are_looked_at_too(data: Dataset) -> None:
    few = data.select([60, 61, 0]).crop(0, 0, 9, 12)
    assert "bright field" in warned(few)
    blank = data.with_images(np.where(np.arange(121)[:, None, None] == 60, 0, data.intensities))
    assert inspect(blank).findings
    assert inspect(data.with_images(np.ones(data.images.shape))).findings
    halves = np.eye(121)[:4] + np.eye(121)[1:5]
    several = Dataset.from_arrays(data.intensities[:4], data.na, data.optics, patterns=halves)
    assert inspect(several).findings
    assert brief(several) == []


def test_the_figure_shows_every_part(data: Dataset) -> None:
    for broken in (data, data.with_calibration(na=data.na[:, ::-1] + [0.1, 0]), data.select([60, 61, 0])):
        image = figures.png(looking.inspection(inspect(broken)))
        assert image.startswith(b"\x89PNG")


@pytest.mark.data
@pytest.mark.parametrize("name", ["uconn_red", "uconn_green", "uconn_blue", "uconn_aberration", "thu_phase_target"])
def test_measured_data_are_right(
    measured_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = "uconn_blood_smear" if name.startswith("uconn") else name
    monkeypatch.setenv("FPMTOOLS_DATA", str(measured_data(folder).parent))
    data = fpmtools.load(name)
    assert warned(data) == []
    assert warned(data.with_calibration(na=data.na * [1, -1])) == ["orientation"]


def test_the_line_to_type_reads_the_data_as_they_were_read_but_for_what_is_put_right() -> None:
    reading: dict[str, object] = dict.fromkeys(READING)
    reading |= {"axes": "-x,+y", "dark": "/d.tif", "roi": (0, 0, 64, 64), "optics": {"na": 0.1, "wavelength_um": 0.5}}
    line = run_line("my data", reading, {"na": 0.12, "dark_level": 3.5})
    assert "--data 'my data'" in line
    assert "--axes=" in line or "--axes -x,+y" in line
    assert "--roi 0,0,64,64" in line
    assert "--optics na=0.12 --optics wavelength_um=0.5" in line
    assert "--dark-level 3.5" in line
    assert "--dark " not in line
    assert "--dark /d.tif" in run_line("my data", reading, {})
