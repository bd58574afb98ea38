"""What a user can get wrong, or a file can hold, when measurements are read: one short line, the right exit code."""

from __future__ import annotations

import json
import os
import pwd
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from fpmtools import storage
from fpmtools.cli import main
from fpmtools.dataset import Dataset
from fpmtools.errors import DataError, FpmError, OpticsError, OptionError
from fpmtools.formats import load, manifest, native, saturation
from fpmtools.simulation import simulate

OPTICS = {"wavelength_um": 0.5, "na": 0.1, "magnification": 4, "camera_pixel_um": 4}
BOARD = {"rule": "rings", "counts": [1, 10], "pitch_mm": 4, "height_mm": 80}
DEEP = "[" * 100_000


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Noisy images, a third of them as dark as a dark field."""
    thin = simulate("thin", image_shape=(16, 20), photons=500.0, read_noise=2.0)
    darker = np.where(np.arange(thin.n_images) % 3 == 2, 0.01, 1.0)[:, None, None]
    return thin.with_images((darker * thin.intensities).astype(np.float32))


def stack(dtype: str = "uint16") -> np.ndarray:
    """11 images of 9 × 12."""
    return (np.arange(11 * 9 * 12).reshape(11, 9, 12) % 240 + 1).astype(dtype)


# ---------------------------------------------------------------- what is no intensity


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_images_are_not_read_as_their_real_part(dtype: str, data: Dataset, tmp_path: Path) -> None:
    fields = (np.sqrt(np.abs(data.intensities)) * (1 + 0.5j)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", fields, photometric="minisblack")
    native.save(data.with_images(fields), tmp_path / "a.safetensors")
    for name, more in (("a.tif", {"optics": OPTICS, "leds": data.na}), ("a.safetensors", {})):
        with pytest.raises(DataError, match=r"the images are complex; intensities are real"):
            load(tmp_path / name, **more)


def negative_dark_field(images: np.ndarray) -> np.ndarray:
    return images - 0.05 * images.mean(axis=(1, 2)).max()


def differences(images: np.ndarray) -> np.ndarray:
    return images - images.mean(axis=(1, 2), keepdims=True)


def one_turned_round(images: np.ndarray) -> np.ndarray:
    changed = images.copy()
    changed[3, ::2] *= -1
    return changed


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (negative_dark_field, r"the mean of image \d+ is negative, by \d+% .* too large a dark level"),
        (np.negative, r"the mean of image \d+ is negative, by 100%"),
        (differences, r"image \d+ is negative by \d+% .* differences"),
        (one_turned_round, r"image 3 is negative by \d+%"),
    ],
)
def test_strongly_negative_images_are_refused(change: Any, says: str, data: Dataset, tmp_path: Path) -> None:
    path = native.save(data.with_images(change(data.intensities)), tmp_path / "a.safetensors")
    for dark_level in (None, 1.0):
        with pytest.raises(DataError, match=says):
            load(path, dark_level=dark_level)


def test_the_noise_of_a_subtracted_dark_level_is_accepted(data: Dataset, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    bright = data.images.means.max()
    noisy = data.intensities + rng.normal(0, 0.3 * bright, data.intensities.shape)
    assert (noisy < 0).mean() > 0.15
    path = native.save(data.with_images(noisy.astype(np.float32)), tmp_path / "a.safetensors")
    assert load(path).intensities.min() < 0


# ---------------------------------------------------------------- saturation is told


@pytest.mark.parametrize(
    ("dtype", "top", "step"),
    [("uint8", 255, 0), ("uint16", 65535, 0), ("uint16", 4095, 1), ("uint16", 65520, 16), ("float64", 1023, 1)],
)
def test_saturation_is_told(
    dtype: str, top: int, step: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = stack(dtype)
    counts[3, 2, :4] = counts[5, 0, 0] = top
    counts[4, 1, 1] = max(top - max(step, 1), 0)
    tifffile.imwrite(tmp_path / "a.tif", counts, photometric="minisblack")
    told = f"0.42% of all pixels, in 2 of 11 images, are saturated (at {top}): their true intensity is unknown"
    again = native.save(load(tmp_path / "a.tif", optics=OPTICS, leds=BOARD), tmp_path / "b.safetensors")
    assert told in load(again).check()
    reading = [f"--optics={name}={value}" for name, value in OPTICS.items()] + ["--leds", json.dumps(BOARD)]
    assert main(["data", "info", str(tmp_path / "a.tif"), *reading]) == 0
    assert f"warning: {told}" in capsys.readouterr().out


@pytest.mark.parametrize(("dtype", "top"), [("uint16", 4000), ("uint16", 4095), ("float32", 1), ("float32", 300.5)])
def test_a_largest_value_alone_is_no_saturation(dtype: str, top: float) -> None:
    counts = stack(dtype)
    counts[3, 2, :2] = top
    if top == 4095:
        counts[4, 2, :2] = top - 1  # as many just below: nothing piles up
    assert saturation.find(counts) is None


# ---------------------------------------------------------------- what is missing, what is not there


def test_everything_that_is_missing_is_asked_for_at_once(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", stack(), photometric="minisblack")
    known: dict[str, float] = {}
    for name, value in OPTICS.items():
        missing = [other for other in OPTICS if other not in known]
        with pytest.raises(OpticsError) as caught:
            load(tmp_path / "a.tif", optics=known)
        line = str(caught.value)
        assert line.startswith(f"a: not in the file: {', '.join(missing)}, LED positions; give, for example, optics ")
        assert all(f"{other}=" in line for other in missing)
        assert "leds (a CSV or JSON file" in line
        assert "--" not in line
        known[name] = value
    with pytest.raises(DataError, match="a: not in the file: LED positions; give, for example, leds"):
        load(tmp_path / "a.tif", optics=known)


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("my_images", DataError, r"^my_images: no such file or folder$"),
        ("images", DataError, r"^images: no such file or folder$"),
        ("uconn_rad", OptionError, r"^uconn_rad: no such file or folder, nor data set: did you mean 'uconn_red'\?$"),
        ("tilted", OptionError, r"did you mean 'sim:tilted'"),
        ("thin", OptionError, r"did you mean 'sim:thin'"),
        ("folder/uconn_rad", DataError, r"no such file or folder$"),
        ("~nobody-of-this-name/x", DataError, r"no such file or folder$"),
    ],
)
def test_a_name_that_is_not_there_gets_a_suggestion_only_when_it_is_near(
    name: str, error: type[FpmError], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=says):
        load(name)


# ---------------------------------------------------------------- deep, huge and long


HOSTILE_LEDS = [
    DEEP,
    '{"na": ' + DEEP,
    '{"na": [[1e400, 0]]}',
    '{"na": [[' + "9" * 400 + ", 0]]}",
    '{"na": [[' + "9" * 5000 + ", 0]]}",
    '{"na": "' + "x" * 5000 + '"}',
    '{"' + "x" * 5000 + '": 1}',
    '{"rule": "' + "x" * 5000 + '"}',
    '{"rule": "rings", "counts": [1, 1e12], "pitch_mm": 4, "height_mm": 80}',
    '{"rule": "rings", "counts": [1, 1e400], "pitch_mm": 4, "height_mm": 80}',
    '{"rule": "spiral", "count": 1e15, "pitch_mm": 4, "height_mm": 80}',
    '{"rule": "raster", "ny": 1e9, "nx": 1e9, "pitch_mm": 4, "height_mm": 80}',
    '{"rule": "raster", "ny": 3, "nx": 3, "pitch_mm": 1e400, "height_mm": 80}',
    '{"rule": "raster", "ny": 3, "nx": 3, "pitch_mm": 4, "height_mm": 80, "axes": "' + "y" * 5000 + '"}',
    "na_x,na_y\n1e400,0\n",
    "na_x,na_y\n" + "9" * 5000 + ",0\n",
    'na_x,na_y\n0,0\n"0,0\n0,0\n',
    "na_x,na_y\n" + "0" * 200_000 + ",0\n",
    "x" * 5000 + ",na_y\n0,0\n",
]


@pytest.mark.parametrize("text", HOSTILE_LEDS, ids=lambda text: str(text)[:24])
def test_hostile_led_positions(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "leds.csv").write_text(text)
    leds = [str(tmp_path / "leds.csv"), *([text] if text.startswith("{") else [])]
    for given in leds:
        code = main(["data", "info", "sim:thin@16x16", "--leds", given])
        out, err = capsys.readouterr()
        assert (code, out) in ((2, ""), (3, "")), err
        assert err.startswith("error: ")
        assert len(err) < 700
        assert len(err.splitlines()) == 1


LONG = "n" * 5000


@pytest.mark.parametrize(
    "words",
    [
        ["data", "info", LONG],
        ["data", "info", f"sim:{LONG}"],
        ["data", "info", f"sim:thin+{LONG}"],
        ["data", "info", f"sim:thin@{LONG}"],
        ["data", "fetch", LONG],
        ["data", "info", "sim:thin", "--leds", LONG],
        ["data", "info", "sim:thin", "--format", LONG],
        ["data", "info", "sim:thin", "--optics", f"na={LONG}"],
        ["data", "info", "sim:thin", "--optics", f"{LONG}=1"],
        ["data", "info", "sim:thin", "--optics", "na=1e400"],
        ["data", "info", "sim:thin", "--optics", f"na={'9' * 5000}"],
        ["data", "info", "sim:thin", "--dark-level", "1e400"],
        ["data", "info", "sim:thin", "--roi", f"0,0,9,{'9' * 5000}"],
        ["data", "info", "sim:thin", "--roi", f"0,0,9,{'9' * 400}"],
        ["run", "--solver", "ap", "--z", "0:1:100000000000"],
        ["render", LONG, "--z", "0"],
    ],
    ids=lambda words: " ".join(word[:12] for word in words),
)
def test_long_names_and_huge_numbers(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code = main(words)
    out, err = capsys.readouterr()
    assert (code, out) in ((2, ""), (3, "")), err
    assert err.startswith("error: ")
    assert len(err) < 1100
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"optics": {"na": 10**5000}}, "na must be a number"),
        ({"dark_level": "black"}, "dark_level must be a finite number"),
        ({"defocus_um": 10**400}, "defocus_um must be a finite number"),
        ({"roi": (0, 0, "wide", 8)}, "roi must be y, x, height, width"),
        ({"roi": (0, 0, float("inf"), 8)}, "roi must be y, x, height, width"),
        ({"leds": {"na": [[10**400, 0]]}}, "too large"),
        ({"leds": [[0, 0, 0]]}, "pairs"),
    ],
)
def test_numbers_that_are_none_in_python(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(FpmError, match=says) as caught:
        load("sim:thin@16x16", **arguments)
    assert len(str(caught.value)) < 500


# ---------------------------------------------------------------- the machine, names and paths


def test_no_home_and_no_passwd_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nobody(uid: int) -> Any:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "XDG_CACHE_HOME", "FPMTOOLS_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert load("sim:thin@16x16").n_images > 1
    assert main(["data", "list"]) == 0
    assert "no folder" in capsys.readouterr().out
    assert main(["data", "fetch", "uconn_red"]) == 2
    assert "set FPMTOOLS_DATA to a folder" in capsys.readouterr().err
    assert main(["data", "info", "uconn_red"]) == 0
    assert main(["data", "info", "nothing"]) == 3
    capsys.readouterr()
    monkeypatch.setenv("FPMTOOLS_DATA", str(tmp_path))
    assert manifest.data_dir() == tmp_path
    monkeypatch.setenv("FPMTOOLS_DATA", "~/data")
    with pytest.raises(OptionError, match="no home folder"):
        manifest.data_dir()


@pytest.mark.parametrize("name", ["a\x1b[31mred\x1b]0;title\x07", "one\ntwo", "left\u202eright", "n" * 5000])
def test_names_of_data_sets_cannot_reach_the_terminal_as_commands(name: str, data: Dataset, tmp_path: Path) -> None:
    path = native.save(replace(data, name=name, provenance={"warnings": [name]}), tmp_path / "a.safetensors")
    again = load(path)
    assert again.name.isprintable()
    assert again.name[:1] == name[:1]
    assert len(again.name) <= 200
    assert again.check()[-1].isprintable()


def test_a_path_that_is_not_utf8_is_read_and_told_of(data: Dataset, tmp_path: Path) -> None:
    name = os.fsdecode(b"M\xfcller \x1b[2J.tif")
    tifffile.imwrite(tmp_path / "plain.tif", data.intensities, photometric="minisblack")
    (tmp_path / "plain.tif").rename(tmp_path / name)
    again = load(tmp_path / name, optics=data.optics.to_dict(), leds=data.na)
    assert again.name == "M\\xfcller \\x1b[2J"
    written = storage.write_json(tmp_path / "run.json", again.provenance)
    assert json.loads(written.read_bytes().decode())["source"] == str(tmp_path / name)
    assert native.read(native.save(again, tmp_path / "b.safetensors")).provenance["source"] == str(tmp_path / name)
