"""Each MATLAB layout becomes a data set with our axes, signs and units; missing numbers are asked for by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fpmtools import leds
from fpmtools.errors import DataError, FpmError, OptionError
from fpmtools.formats import load, uconn
from fpmtools.optics import Optics, frequency_axes
from fpmtools.pupil import polynomial_phase

Write = Callable[..., Path]
RED = {"wavelength_um": 0.632}


@pytest.mark.parametrize("version", ["write_v5", "write_v73"])
def test_fpm_inr(version: str, fpm_inr_variables: dict[str, Any], request: pytest.FixtureRequest) -> None:
    write: Write = request.getfixturevalue(version)
    data = load(write("Sample_r.mat", fpm_inr_variables), optics=RED)
    assert data.intensities.shape == (5, 9, 12)
    assert data.intensities.dtype == np.float32
    assert data.intensities[3, 4, 7] == 3000 + 4 * 20 + 7 + 1
    np.testing.assert_array_equal(data.na, -fpm_inr_variables["na_calib"])
    assert data.optics == Optics(wavelength_um=0.632, na=0.256, magnification=10, camera_pixel_um=3.45)
    assert data.name == "Sample_r"
    assert data.defocus_um is None
    assert data.provenance["source"].endswith("Sample_r.mat")


def test_fpm_inr_inside_a_struct_with_its_wavelength(fpm_inr_variables: dict[str, Any], write_v73: Write) -> None:
    path = write_v73("a.mat", {"saved_data": {**fpm_inr_variables, "lambda": 0.522}})
    data = load(path)
    assert data.optics.wavelength_um == 0.522
    assert data.intensities.shape == (5, 9, 12)
    assert load(path, optics=RED).optics.wavelength_um == 0.632


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("na_calib", "LED positions"),
        ("na_cal", "na"),
        ("mag", "magnification"),
        ("dpix_c", "camera_pixel_um"),
        ("lambda", "wavelength_um"),
    ],
)
def test_what_is_missing_is_asked_for_and_taken(
    key: str, name: str, fpm_inr_variables: dict[str, Any], write_v73: Write
) -> None:
    variables: dict[str, Any] = {**fpm_inr_variables, "lambda": 0.632}
    complete = load(write_v73("whole.mat", variables))
    del variables[key]
    path = write_v73("a.mat", variables)
    with pytest.raises(DataError, match=f"^a: not in the file: {name}; give, for example,"):
        load(path)
    given: dict[str, Any] = {"leds": complete.na} if name not in complete.optics.to_dict() else {}
    again = load(path, **(given or {"optics": {name: complete.optics.to_dict()[name]}}))
    assert again.digest == complete.digest


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"na_calib": np.zeros((4, 2))}, "5 images but 4 LED positions"),
        ({"na_calib": np.zeros((5, 3))}, "na_calib must be"),
        ({"na_cal": -0.2}, "na must be a positive number"),
        ({"mag": [1.0, 2.0]}, "mag must be one number"),
        ({"I_low": np.zeros((9, 12, 5))}, "all images are zero"),
        ({"I_low": np.full((9, 12, 5), np.nan)}, "image 0 has values that are not finite"),
        ({"I_low": np.ones((9, 12, 5, 2))}, "I_low must be real images"),
        ({"I_low": np.ones((9, 12, 5)) + 1j}, "I_low must be real images"),
        ({"dpix_c": 34.5}, "camera is under-sampled"),
    ],
)
def test_unusable_values(
    change: dict[str, Any], reason: str, fpm_inr_variables: dict[str, Any], write_v73: Write
) -> None:
    with pytest.raises(FpmError, match=reason) as caught:
        load(write_v73("a.mat", fpm_inr_variables | change), optics=RED)
    assert "\n" not in str(caught.value)


def test_thyroid_uses_145_leds_with_positive_signs(write_v73: Write) -> None:
    board = np.arange(225).reshape(15, 15)
    images = np.broadcast_to(board.ravel().astype(np.uint8), (10, 8, 225))
    data = load(write_v73("Thyroid_r.mat", {"I": images}), optics={"wavelength_um": 0.617})
    assert data.intensities.shape == (145, 10, 8)
    assert data.optics == Optics(wavelength_um=0.617, na=0.4, magnification=20, camera_pixel_um=5.5)
    for led in (0, 30, 144):
        row, column = divmod(int(data.intensities[led, 0, 0]), 15)
        x, y = 4 * (column - 7), 4 * (row - 7)
        np.testing.assert_allclose(data.na[led], np.array([x, y]) / np.sqrt(x * x + y * y + 66**2), rtol=1e-14)


def test_bare_images_ask_for_leds_and_take_them(write_v73: Write) -> None:
    path = write_v73("a.mat", {"I": np.ones((9, 12, 4), np.uint8)})
    optics = {"wavelength_um": 0.6, "na": 0.1, "magnification": 2, "camera_pixel_um": 3.69}
    with pytest.raises(DataError, match="not in the file: LED positions; give, for example, leds"):
        load(path, optics=optics)
    rule = {"rule": "raster", "ny": 2, "nx": 2, "pitch_mm": 4, "height_mm": 80}
    np.testing.assert_array_equal(
        load(path, optics=optics, leds=rule).na, leds.direction_sines(leds.raster(2, 2, 4), 80)
    )


def uconn_variables(n: int = 25, shape: tuple[int, int] = (9, 12)) -> dict[str, Any]:
    amplitude = np.random.default_rng(1).uniform(0.1, 2, (*shape, n)).astype(np.float32)
    return {
        "imlow_HDR": amplitude,
        "wlength": 6.3e-7,
        "z": -55e-6,
        "theta": 30.0,
        "xint": 1.0,
        "yint": -2.0,
        "aberration": np.uint8(0),
    }


@pytest.mark.parametrize("version", ["write_v5", "write_v73"])
def test_uconn(version: str, request: pytest.FixtureRequest) -> None:
    write: Write = request.getfixturevalue(version)
    variables = uconn_variables()
    data = load(write("blood.mat", variables))
    np.testing.assert_allclose(data.intensities[7], variables["imlow_HDR"][..., 7] ** 2, rtol=1e-6)
    assert data.defocus_um == pytest.approx(-55)
    assert data.optics.wavelength_um == pytest.approx(0.63)
    assert data.optics.pixel_um == pytest.approx(1.845)
    assert data.calibration.pupil.ideal
    # LED 1 is one pitch to the right; offset, then turned by 30° from x towards y.
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    for led, (x, y) in enumerate([(1, -2), (5, -2), (5, 2)]):
        direction = np.array([c * x - s * y, s * x + c * y]) / np.hypot(x, y)
        np.testing.assert_allclose(data.na[led] / np.linalg.norm(data.na[led]), direction, rtol=1e-9)


def test_refraction_in_the_slide_satisfies_its_equation() -> None:
    positions = np.array([[0.0, 0.0], [4, 0], [-28, 28], [0, 28], [3, -60]])
    na = uconn.through_slide(positions)
    np.testing.assert_array_equal(na[0], 0)
    for (x, y), direction in zip(positions[1:], na[1:], strict=True):
        sine = np.linalg.norm(direction)
        glass = np.arcsin(sine / 1.52)
        # Through air from the board to the slide's lower face, then 1 mm of glass to the sample above (0, 0).
        assert 90.88 * np.tan(np.arcsin(sine)) + np.tan(glass) == pytest.approx(np.hypot(x, y), rel=1e-12)


def test_uconn_pupil(write_v5: Write) -> None:
    pupil = np.exp(1j * np.random.default_rng(2).normal(size=(9, 12)))
    data = load(write_v5("a.mat", uconn_variables() | {"aberration": pupil}))
    found, optics = data.calibration.pupil, data.optics
    fy, fx = (f / optics.cutoff for f in frequency_axes(data.image_shape, optics.pixel_um))
    inside = np.hypot(fy[:, None], fx) <= 1
    assert inside.sum() > 4
    samples = np.exp(1j * polynomial_phase(found.zernike_rad, fy[:, None], fx)) * found.residual
    np.testing.assert_allclose(samples[inside], pupil[inside], rtol=1e-6)
    with pytest.raises(DataError, match="aberration must be"):
        load(write_v5("b.mat", uconn_variables() | {"aberration": pupil.T}))


def test_no_fpm_data_names_what_was_found(write_v5: Write) -> None:
    with pytest.raises(DataError, match=r"no array of three dimensions for the images; .* pictures \(4, 4\)"):
        load(write_v5("a.mat", {"pictures": np.ones((4, 4))}))
    with pytest.raises(DataError, match="has no variable imlow_HDR"):
        load(write_v5("a.mat", {"pictures": np.ones((4, 4))}), format="uconn")


def test_roi_and_overrides(fpm_inr_variables: dict[str, Any], write_v73: Write) -> None:
    path = write_v73("a.mat", fpm_inr_variables)
    data = load(path, roi=(1, 2, 8, 9), optics={**RED, "na": 0.2}, leds=np.full((5, 2), 0.1), defocus_um=7)
    assert data.intensities.shape == (5, 8, 9)
    assert data.intensities[0, 0, 0] == 1 * 20 + 2 + 1
    assert data.optics.na == 0.2
    assert data.defocus_um == 7
    np.testing.assert_array_equal(data.na, 0.1)
    with pytest.raises(DataError, match="does not fit"):
        load(path, roi=(5, 5, 8, 9), optics=RED)
    with pytest.raises(OptionError, match="roi must be y, x, height, width"):
        load(path, roi=(5, 5, 8), optics=RED)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"optics": {"wavelength": 0.6}}, "unknown optics value 'wavelength': did you mean 'wavelength_um'"),
        ({"optics": {"wavelength_um": "red"}}, "wavelength_um must be a number, got 'red'"),
        ({"optics": {"wavelength_um": -0.6}}, "wavelength_um must be a positive number"),
        ({"format": "unconn"}, "unknown format 'unconn': did you mean 'uconn'"),
        ({"channel": "r", "optics": RED}, "has no colour channels"),
        ({"optics": RED, "dark_level": -1}, "dark_level must be"),
        ({"optics": RED, "leds": "nowhere.csv"}, "nowhere.csv: no such file"),
        ({"optics": RED, "leds": "thu_phase_tarket"}, "did you mean 'thu_phase_target'"),
        ({"optics": RED, "leds": '{"rule": '}, "not valid JSON"),
        ({"optics": RED, "leds": [[0.1, 0.2]]}, "5 images but 1 LED positions"),
        ({"optics": RED, "leds": np.full((5, 2), 0.8)}, "at or beyond"),
    ],
)
def test_wrong_arguments(
    arguments: dict[str, Any], reason: str, fpm_inr_variables: dict[str, Any], write_v73: Write
) -> None:
    with pytest.raises(FpmError, match=reason) as caught:
        load(write_v73("a.mat", fpm_inr_variables), **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"just some text in a file", "not a format that fpmtools reads"),
        (b"\x89PNG\r\n\x1a\nabc", "not a readable image"),
    ],
)
def test_other_files(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "data.mat").write_bytes(content)
    with pytest.raises(DataError, match=reason):
        load(tmp_path / "data.mat")


def test_sources_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        load(tmp_path / "data.mat")
    with pytest.raises(OptionError, match="uconn_rad: no such file or folder, nor data set: did you mean 'uconn_red'"):
        load("uconn_rad")
    with pytest.raises(FpmError, match="sloped"):
        load("sim:sloped")


def test_every_example_number_is_there() -> None:
    from fpmtools.formats.recording import _EXAMPLE

    assert set(_EXAMPLE) == {entry.name for entry in fields(Optics)} - {"medium_index"}
