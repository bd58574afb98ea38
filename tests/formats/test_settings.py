"""What a set-up's description, the data and the user say of one instrument, and which of them counts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import tifffile

from fpmtools.cli import _inputs, main
from fpmtools.dataset import Dataset
from fpmtools.errors import DataError, FpmError, OptionError
from fpmtools.formats import load, native, numbers, settings
from fpmtools.leds import direction_sines, raster
from fpmtools.simulation import simulate

BOARD = {"rule": "raster", "ny": 3, "nx": 4, "pitch_mm": 13, "height_mm": 74}
NA = direction_sines(raster(3, 4, 13.0), 74.0)
TWIN = simulate("thin", image_shape=(18, 21), leds=NA, tilt_um=0.0)
MICROSCOPE = {"wavelength_um": 0.5226, "na": 0.256, "magnification": 10, "camera_pixel_um": 3.45}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of images that says nothing of its microscope."""
    (tmp_path / "images").mkdir()
    for i, image in enumerate(TWIN.intensities):
        tifffile.imwrite(tmp_path / "images" / f"{i}.tif", image)
    return tmp_path / "images"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    text = f"# 10x objective\noptics: {json.dumps(MICROSCOPE)}\nleds: {json.dumps(BOARD)}\naxes: -y,x\nmax_na: 0.25\n"
    (tmp_path / "microscope.yaml").write_text(text)
    return tmp_path / "microscope.yaml"


# ---------------------------------------------------------------- what is given


def test_axes_turn_any_board(images: Path, tmp_path: Path) -> None:
    turned = np.stack([-NA[:, 1], NA[:, 0]], axis=1)
    np.testing.assert_allclose(load(images, optics=MICROSCOPE, leds=BOARD, axes="-y,x").na, turned)
    file = native.save(TWIN, tmp_path / "a.safetensors")
    np.testing.assert_allclose(load(file, axes="-y,x").na, turned)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"pixel_um": 0.5}, (1.0, 0.5)),
        ({"pixel_um": 0.5, "magnification": 8}, (8.0, 4.0)),
        ({"pixel_um": 0.5, "camera_pixel_um": 3.0}, (6.0, 3.0)),
        ({"pixel_um": 0.5, "camera_pixel_um": 3.0, "magnification": 6}, (6.0, 3.0)),
    ],
)
def test_a_pixel_on_the_object_in_place_of_the_cameras(
    given: dict[str, float], expected: tuple[float, float], images: Path
) -> None:
    optics = load(images, optics={"wavelength_um": 0.5226, "na": 0.256, **given}, leds=BOARD).optics
    assert (optics.magnification, optics.camera_pixel_um) == pytest.approx(expected)
    assert optics.pixel_um == 0.5


@pytest.mark.parametrize(
    ("layers", "pixel"),
    [
        ([{"magnification": 10, "camera_pixel_um": 3}, {"pixel_um": 0.5}], 0.5),
        ([{"pixel_um": 0.5}, {"magnification": 10}], 0.5),
        ([{"pixel_um": 0.5}, {"camera_pixel_um": 3, "magnification": 10}], 0.3),
        ([{"camera_pixel_um": 3}, {"magnification": 6}], 0.5),
        ([{"magnification": 10, "camera_pixel_um": 3}, {"pixel_um": 0.5}, {"camera_pixel_um": 4}], 0.5),
    ],
)
def test_what_was_said_last_counts(layers: list[dict[str, float]], pixel: float) -> None:
    found = numbers.combine(*layers)
    assert found["camera_pixel_um"] / found["magnification"] == pytest.approx(pixel)
    assert "pixel_um" not in found


def test_three_that_disagree(images: Path) -> None:
    with pytest.raises(DataError, match=r"pixel_um 0\.5 is not camera_pixel_um / magnification = 0\.345"):
        load(images, optics={**MICROSCOPE, "pixel_um": 0.5}, leds=BOARD)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"leds_use": "0-2,5"}, [0, 1, 2, 5]),
        ({"leds_use": [11, 3]}, [3, 11]),
        ({"leds_use": 4}, [4]),
        ({"leds_use": "bright"}, np.flatnonzero(TWIN.bright_field).tolist()),
        ({"leds_use": "dark, 0"}, sorted({0, *np.flatnonzero(~TWIN.bright_field).tolist()})),
        ({"max_na": 0.18}, np.flatnonzero(np.linalg.norm(NA, axis=1) <= 0.18).tolist()),
        ({"max_na": 0.25, "leds_use": "3-11"}, [i for i in range(3, 12) if np.linalg.norm(NA[i]) <= 0.25]),
    ],
)
def test_which_images_are_used(given: dict[str, Any], expected: list[int], images: Path) -> None:
    assert 0 < len(expected) < 12
    found = load(images, optics=MICROSCOPE, leds=BOARD, **given)
    assert np.flatnonzero(found.calibration.used).tolist() == expected
    assert found.n_images == 12


def test_several_leds_light_an_image(tmp_path: Path) -> None:
    weights = np.zeros((5, 12))
    for image, lit in enumerate(([0, 1], [2, 3, 4], [5], [6, 7, 8], [9, 10, 11])):
        weights[image, lit] = image + 1
    np.save(tmp_path / "a.npy", np.tensordot(weights, TWIN.intensities, 1))
    (tmp_path / "p.csv").write_text("# image, LED\n" + "\n".join(",".join(map(str, row)) for row in weights.tolist()))
    given: list[dict[str, Any]] = [
        {"leds": BOARD, "patterns": weights},
        {"leds": BOARD, "patterns": str(tmp_path / "p.csv")},
        {"leds": {**BOARD, "patterns": weights.tolist()}},
    ]
    for arguments in given:
        found = load(tmp_path / "a.npy", optics=MICROSCOPE, **arguments)
        np.testing.assert_array_equal(found.calibration.patterns, weights)
        np.testing.assert_allclose(found.na, NA)
        assert found.n_images == 5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"leds_use": "0-12"}, r"leds_use '?0-12'?: the images of images are 0 … 11"),
        ({"leds_use": "3-1"}, "the images of images are 0 … 11"),
        ({"leds_use": "all"}, "give image numbers from 0 on"),
        ({"leds_use": [1.5]}, "give image numbers from 0 on"),
        ({"leds_use": {"a": 1}}, "give image numbers from 0 on"),
        ({"max_na": 0.001}, "no image is left to use"),
        ({"max_na": -1}, "max_na must be 0 or a positive number"),
        ({"axes": "x,z"}, "axes 'x,z' must be x and y"),
        ({"axes": 3}, "axes must be text"),
        ({"amplitudes": "yes"}, "amplitudes must be true or false"),
        ({"key": "a"}, "holds no arrays with names"),
        ({"patterns": np.ones((12, 3))}, "a column for each of the 12 LEDs, got shape"),
        ({"patterns": np.ones((7, 12))}, "12 images but patterns of 7"),
        ({"patterns": np.zeros((12, 12))}, "patterns light no LED in image 0"),
        ({"patterns": -np.ones((12, 12))}, "finite weights, 0 or more"),
        ({"patterns": "nowhere.csv"}, r"nowhere\.csv: cannot be read"),
        ({"optics": {**MICROSCOPE, "pixle_um": 1}}, "did you mean 'pixel_um'"),
    ],
)
def test_mistakes(arguments: dict[str, Any], says: str, images: Path) -> None:
    with pytest.raises(FpmError, match=says) as caught:
        load(images, **{"optics": MICROSCOPE, "leds": BOARD, **arguments})
    assert "\n" not in str(caught.value)


def test_patterns_need_leds(images: Path) -> None:
    with pytest.raises(DataError, match="patterns need the LED positions: give leds too"):
        load(images, optics=MICROSCOPE, patterns=np.ones((12, 12)))


# ---------------------------------------------------------------- microscope.yaml


def test_a_config_holds_a_set_up(images: Path, config: Path) -> None:
    found = load(images, config=config)
    turned = np.stack([-NA[:, 1], NA[:, 0]], axis=1)
    np.testing.assert_allclose(found.na, turned)
    assert found.optics.to_dict() == {**MICROSCOPE, "medium_index": 1.0}
    assert found.calibration.used.tolist() == (np.linalg.norm(NA, axis=1) <= 0.25).tolist()
    assert found.provenance["config"] == str(config)


def test_paths_in_a_config_are_relative_to_it(images: Path, tmp_path: Path) -> None:
    (tmp_path / "board.json").write_text(json.dumps(BOARD))
    tifffile.imwrite(tmp_path / "no light.tif", np.full((18, 21), 0.001, np.float32))
    text = f"optics: {json.dumps(MICROSCOPE)}\nleds: board.json\ndark: no light.tif\n"
    (tmp_path / "m.yaml").write_text(text)
    found = load(images, config=tmp_path / "m.yaml")
    np.testing.assert_allclose(found.intensities, np.maximum(TWIN.intensities - 0.001, 0), atol=1e-7)
    np.testing.assert_allclose(found.na, NA)


def test_what_is_given_wins_over_the_config(images: Path, config: Path) -> None:
    given = {"axes": "x,y", "max_na": 1.0, "optics": {"na": 0.3}, "leds": -NA}
    found = load(images, config=config, **given)
    np.testing.assert_allclose(found.na, -NA)
    assert found.optics.na == 0.3
    assert found.optics.magnification == 10
    assert found.calibration.used.all()


def test_an_empty_config(images: Path, tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text("# nothing yet\n")
    assert load(images, config=tmp_path / "m.yaml", optics=MICROSCOPE, leds=BOARD).n_images == 12


CONTRADICTIONS: list[tuple[str, str, dict[str, Any]]] = [
    ("optics: {na: 0.3}", r"optics na is 0\.3 in .*m\.yaml, and 0\.256 in .*a\.safetensors", {"optics": {"na": 0.25}}),
    ("optics: {pixel_um: 0.5}", r"optics pixel_um is 0\.5 in .*, and 0\.345 in", {"optics": {"pixel_um": 0.345}}),
    ("defocus_um: 3", r"defocus_um is 3 in .*, and 7 in", {"defocus_um": 7}),
    ("leds: {na: [[0.1, 0.2]]}", "leds is 1 positions in .*, and 12 positions in", {"leds": NA}),
    (f"leds: {{na: {(-NA).tolist()}}}", r"leds is LED \d+ at NA \(.*\) in .*, and LED \d+ at NA", {"leds": NA}),
]


@pytest.mark.parametrize(("text", "says", "settles"), CONTRADICTIONS)
def test_a_config_that_contradicts_the_file(text: str, says: str, settles: dict[str, Any], tmp_path: Path) -> None:
    file = native.save(TWIN.with_calibration(defocus_um=7.0), tmp_path / "a.safetensors")
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(OptionError, match=says) as caught:
        load(file, config=tmp_path / "m.yaml")
    assert "correct one of them, or give the option" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(load(file, config=tmp_path / "m.yaml", **settles), Dataset)


def test_a_config_that_says_the_same_as_the_file(tmp_path: Path) -> None:
    file = native.save(TWIN, tmp_path / "a.safetensors")
    text = {"optics": {"na": 0.256, "pixel_um": 0.345, "wavelength_um": 0.5226}, "leds": BOARD}
    (tmp_path / "m.yaml").write_text(json.dumps(text))
    assert load(file, config=tmp_path / "m.yaml").optics == TWIN.optics


def test_a_dark_frame_in_both(images: Path, tmp_path: Path) -> None:
    tifffile.imwrite(images / "dark.tif", np.zeros((18, 21), np.float32))
    around: dict[str, Any] = {"optics": MICROSCOPE, "leds": BOARD, "config": tmp_path / "m.yaml"}
    (tmp_path / "m.yaml").write_text("dark_level: 0.001")
    with pytest.raises(OptionError, match=r"dark_level is 0\.001 in .*, and dark\.tif in"):
        load(images, **around)
    assert load(images, dark_level=0.002, **around).provenance["dark_level"] == 0.002
    (tmp_path / "m.yaml").write_text("dark: x.tif")
    with pytest.raises(OptionError, match=r"dark is .*x\.tif in .*, and dark\.tif in"):
        load(images, **around)


@pytest.mark.parametrize(
    ("text", "says", "code"),
    [
        ("optic: {na: 1}", "unknown key 'optic': did you mean 'optics'", 2),
        ("na: 0.1", "na belongs below optics, as in 'optics: {na: 0.1}'", 2),
        ("optics: 3", "optics must hold names with numbers", 2),
        ("optics: {na: wide}", "na must be a number, got 'wide'", 2),
        ("optics: {NA: 0.1}", "unknown optics value 'NA'", 2),
        ("roi: [1, 2]", "roi must be y, x, height, width", 2),
        ("dark: a\ndark_level: 3", "say the same", 2),
        ("dark_level: .inf", "dark_level must be a finite number", 2),
        ("max_na: [1]", "max_na must be a finite number", 2),
        ("- a\n- b", "must hold names with values", 3),
        ("max_na: 1\nmax_na: 2", "'max_na' is given twice", 3),
        ("leds: {na: 1, na: 2}", "'na' is given twice", 3),
        ("a: &x [1]\nb: *x", "aliases", 3),
        ("a: !!python/object/apply:os.system [ls]", "not valid YAML", 3),
        ("a: [", "not valid YAML", 3),
        ("[" * 100_000, "not valid YAML", 3),
        ("? [a]\n: 1", "unknown key|not valid YAML", 3),
        ("1: 2", "unknown key '1'", 2),
        ("max_na: 1 # " + "x" * (1 << 20), "too large", 3),
        ("\x00", "not valid YAML", 3),
    ],
)
def test_bad_configs(text: str, says: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(FpmError, match=says) as caught:
        settings.read(tmp_path / "m.yaml")
    assert caught.value.exit_code == code
    assert "\n" not in str(caught.value)
    assert "m.yaml" in str(caught.value)
    assert len(str(caught.value)) < 600


def test_leds_of_a_config_that_are_wrong(images: Path, tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(json.dumps({"leds": {**BOARD, "hieght_mm": 3}, "optics": MICROSCOPE}))
    with pytest.raises(OptionError, match=r"m\.yaml: leds: unknown entry 'hieght_mm': did you mean 'height_mm'"):
        load(images, config=tmp_path / "m.yaml")


def test_pipes_are_refused_at_once(images: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("config", "patterns", "dark", "leds"):
        with pytest.raises(DataError, match=r"pipe: .*(not a file|no such file)"):
            load(images, **{"optics": MICROSCOPE, "leds": BOARD, name: str(tmp_path / "pipe")})


def test_numbers_of_a_config_that_disagree(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text("optics: {pixel_um: 1, magnification: 10, camera_pixel_um: 3}")
    with pytest.raises(DataError, match=r"m\.yaml: optics: pixel_um 1 is not"):
        settings.read(tmp_path / "m.yaml")


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00\x80", "folder"])
def test_configs_that_cannot_be_read(content: Any, tmp_path: Path) -> None:
    if content == "folder":
        (tmp_path / "m.yaml").mkdir()
    elif content:
        (tmp_path / "m.yaml").write_bytes(content)
    with pytest.raises(DataError, match=r"m\.yaml: (cannot be read|is no text)"):
        settings.read(tmp_path / "m.yaml")


# ---------------------------------------------------------------- the command line


def info(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["data", "info", *words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_commands_take_a_config_and_win_over_it(
    images: Path, config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(images.parent)
    found = info(capsys, "images", "--config", "microscope.yaml", "--optics", "pixel_um=0.5", "--max-na", "0.18")
    assert found["pixel_um"] == 0.5
    assert found["magnification"] == 10
    assert "are left out" in found["images"]


def test_a_run_keeps_what_was_read_how(
    images: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(images.parent)
    words = ["run", "--solver", "ap", "-o", "sweeps=2", "--data", "images", "--config", "microscope.yaml"]
    assert main([*words, "--axes", "-x,y", "--leds-use", "0-9", "--out", "one", "--quiet"]) == 0
    spec = json.loads((tmp_path / "one" / "run.json").read_text())["spec"]["data"]
    assert spec["config"] == str(config)
    assert (spec["axes"], spec["leds_use"]) == ("-x,y", "0-9")
    monkeypatch.chdir("/")
    assert main(["run", "--from", str(tmp_path / "one" / "run.json"), "--out", str(tmp_path / "two"), "--quiet"]) == 0
    one, two = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("one", "two"))
    assert one["data"]["digest"] == two["data"]["digest"]
    config.write_text(config.read_text().replace("0.5226", "0.6"))
    assert main(["run", "--from", str(tmp_path / "one" / "run.json"), "--out", str(tmp_path / "three")]) == 3
    assert "they have changed" in capsys.readouterr().err


def test_words_of_the_reading_options_come_back() -> None:
    words = ["--config", "m.yaml", "--key", "a b", "--roi", "1,2,30,40", "--axes", "-y,x", "--leds-use", "0-3"]
    words += ["--max-na", "0.25", "--dark-level", "3", "--amplitudes", "--optics", "na=0.1", "--optics", "pixel_um=0.5"]
    taken: dict[str, Any] = {}

    @click.command()
    @_inputs.reading_options
    def command(**reading: Any) -> None:
        taken.update(_inputs.take_reading(reading))

    command.main(words, standalone_mode=False)
    assert _inputs.spelled(taken) == words
    assert (taken["axes"], taken["amplitudes"]) == ("-y,x", True)


@pytest.mark.parametrize(
    ("words", "says", "code"),
    [
        (["--config", "nowhere.yaml"], "nowhere.yaml: cannot be read", 3),
        (["--axes", "up,down"], "axes 'up,down'", 2),
        (["--leds-use", "99"], "leds_use 99: the images of images are 0 … 11", 2),
        (["--max-na", "-3"], "max_na must be 0 or a positive number", 2),
        (["--dark", "nowhere.tif"], "nowhere.tif: no such file", 3),
        (["--patterns", "nowhere.csv"], "nowhere.csv: cannot be read", 3),
        (["--key", "x"], "holds no arrays with names", 2),
        (["--optics", "pixel_um=0.5", "--optics", "magnification=3"], "", 0),
        (["--optics", "pixle_um=1"], "did you mean 'pixel_um'", 2),
    ],
)
def test_mistakes_on_the_command_line(
    words: list[str], says: str, code: int, images: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    around = [] if "--config" in words else ["--config", str(config)]
    assert main(["data", "info", str(images), *around, *words]) == code
    told = capsys.readouterr()
    assert says in told.err
    assert told.err.count("\n") == (1 if code else 0)
