"""Folders as cameras and people leave them: kinds of file, sub-folders, dark frames, places in names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from fpmtools import leds
from fpmtools.errors import DataError, FpmError, OptionError
from fpmtools.formats import folder, load
from fpmtools.leds import direction_sines
from fpmtools.simulation import simulate

NA = direction_sines(np.array([[x, y] for y in (-1, 0, 1) for x in (-2, -1, 0, 1)]) * 9.0, 74.0)
TWIN = simulate("thin", image_shape=(18, 21), leds=NA, tilt_um=0.0)
COUNTS = np.round(200 * TWIN.intensities / TWIN.intensities.max() + 5).astype(np.uint8)
AROUND: dict[str, Any] = {"optics": TWIN.optics.to_dict(), "leds": NA}


def write(path: Path, image: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".tif", ".tiff"):
        tifffile.imwrite(path, image)
    else:
        Image.fromarray(image).save(path, **options)


@pytest.mark.parametrize("suffix", [".bmp", ".png", ".tiff", ".BMP"])
def test_kinds_of_file(suffix: str, tmp_path: Path) -> None:
    for i, image in enumerate(COUNTS):
        write(tmp_path / f"led {i}{suffix}", image)
    np.testing.assert_array_equal(load(tmp_path, **AROUND).intensities, COUNTS)


def test_png_of_16_bits(tmp_path: Path) -> None:
    for i, image in enumerate(COUNTS):
        write(tmp_path / f"{i}.png", image.astype(np.uint16) * 300)
    np.testing.assert_array_equal(load(tmp_path, **AROUND).intensities, COUNTS.astype(np.float32) * 300)


def test_jpeg_is_read_and_doubted(tmp_path: Path) -> None:
    for i, image in enumerate(COUNTS):
        write(tmp_path / f"{i}.jpg", image, quality=100)
    found = load(tmp_path, **AROUND)
    assert np.abs(found.intensities - COUNTS).max() <= 3
    assert "JPEG files are seldom linear in light" in found.provenance["warnings"][0]


def test_alpha_is_left_out_and_a_channel_chosen(tmp_path: Path) -> None:
    for i, image in enumerate(COUNTS):
        planes = [image, image // 2, image // 3, np.full_like(image, 7)]
        write(tmp_path / f"{i}.png", np.stack(planes, axis=-1))
    np.testing.assert_array_equal(load(tmp_path, channel="g", **AROUND).intensities, COUNTS // 2)
    with pytest.raises(OptionError, match="choose the channel"):
        load(tmp_path, **AROUND)


def test_colour_of_16_bits_is_not_cut_to_8(tmp_path: Path) -> None:
    head = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + b"IHDR" + (9).to_bytes(4, "big") * 2 + b"\x10\x02\0\0\0"
    (tmp_path / "a.png").write_bytes(head)
    with pytest.raises(DataError, match=r"a\.png: a colour PNG of 16 bits, of which only 8 could be read"):
        load(tmp_path, channel="r", **AROUND)


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    np.save(tmp_path / "stack.npy", COUNTS)
    with pytest.raises(DataError, match=r"has no TIFF, .*; for stack\.npy give that file"):
        load(tmp_path, **AROUND)


@pytest.mark.parametrize("kind", ["BMP", "JPEG"])
def test_images_that_declare_far_more_than_they_hold(kind: str, tmp_path: Path) -> None:
    Image.fromarray(COUNTS[0]).save(tmp_path / "a.png", format=kind)
    content = bytearray((tmp_path / "a.png").read_bytes())
    if kind == "BMP":
        content[18:26] = (20_000).to_bytes(4, "little") * 2
    else:
        at = content.index(b"\xff\xc0") + 5
        content[at : at + 4] = (20_000).to_bytes(2, "big") * 2
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png: .*exceeds limit"):
        load(tmp_path / "a.png", **AROUND)


# ---------------------------------------------------------------- sub-folders


def test_sub_folders_in_natural_order(tmp_path: Path) -> None:
    for i, image in enumerate(COUNTS):
        write(tmp_path / "raw" / f"ring {i // 4 * 5}" / f"{i % 4}.tif", image)
    found = load(tmp_path, **AROUND)
    np.testing.assert_array_equal(found.intensities, COUNTS)
    assert found.provenance["warnings"] == ["the images are from 3 sub-folders, one after the other in natural order"]


def test_sub_folders_beside_images_are_told_of(tmp_path: Path) -> None:
    for i, image in enumerate(COUNTS):
        write(tmp_path / f"{i}.tif", image)
        write(tmp_path / "old" / f"{i}.tif", image)
    found = load(tmp_path, **AROUND)
    np.testing.assert_array_equal(found.intensities, COUNTS)
    assert "sub-folders of" in found.provenance["warnings"][0]


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "0.tif", COUNTS[0])
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "here" / "round").symlink_to(tmp_path / "here", target_is_directory=True)
    with pytest.raises(DataError, match="nor have its sub-folders"):
        load(tmp_path / "here", **AROUND)


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "MOST_FILES", 3)
    for i in range(4):
        write(tmp_path / str(i) / "a.tif", COUNTS[0])
    with pytest.raises(DataError, match="more than 3 images"):
        load(tmp_path, **AROUND)


# ---------------------------------------------------------------- dark frames


@pytest.mark.parametrize("name", ["dark.tif", "Dark_frame.png", "dark 1.tif"])
def test_a_dark_frame_is_subtracted(name: str, tmp_path: Path) -> None:
    dark = np.random.default_rng(0).integers(0, 5, COUNTS.shape[1:]).astype(np.uint8)
    for i, image in enumerate(COUNTS):
        write(tmp_path / f"{i}.tif", image + dark)
    write(tmp_path / name, dark)
    found = load(tmp_path, roi=(1, 2, 16, 18), **AROUND)
    np.testing.assert_array_equal(found.intensities, COUNTS[:, 1:17, 2:20])
    assert found.provenance["dark"] == name
    assert "warnings" not in found.provenance


def test_several_dark_frames_are_averaged(tmp_path: Path) -> None:
    for i, image in enumerate(COUNTS):
        write(tmp_path / f"{i}.tif", image)
    for i in (1, 2):
        write(tmp_path / f"dark_{i}.tif", np.full(COUNTS.shape[1:], i, np.uint8))
    np.testing.assert_array_equal(load(tmp_path, **AROUND).intensities, COUNTS - 1.5)


def test_what_falls_below_the_dark_frame_is_told(tmp_path: Path) -> None:
    for i, image in enumerate(COUNTS):
        write(tmp_path / f"{i}.tif", image)
    frame = np.zeros(COUNTS.shape[1:], np.uint8)
    frame[:, :5] = 8
    write(tmp_path / "dark.tif", frame)
    found = load(tmp_path, **AROUND)
    np.testing.assert_array_equal(found.intensities, np.maximum(COUNTS.astype(float) - frame, 0))
    below = (frame > COUNTS).mean()
    assert below > 0
    text = f"{below:.2%} of all pixels are darker than the dark frame (dark.tif), and count as 0"
    assert found.provenance["warnings"] == [text]


def test_a_dark_frame_or_level_that_is_given_wins(tmp_path: Path) -> None:
    for i, image in enumerate(COUNTS):
        write(tmp_path / "data" / f"{i}.tif", image)
    write(tmp_path / "data" / "dark.tif", np.full(COUNTS.shape[1:], 3, np.uint8))
    write(tmp_path / "other.tif", np.full(COUNTS.shape[1:], 2, np.uint8))
    given = load(tmp_path / "data", dark=tmp_path / "other.tif", **AROUND)
    np.testing.assert_array_equal(given.intensities, COUNTS - 2.0)
    level = load(tmp_path / "data", dark_level=1, **AROUND)
    np.testing.assert_array_equal(level.intensities, COUNTS - 1.0)
    assert level.provenance["warnings"] == ["dark.tif is not subtracted: the dark level 1 is given"]
    frame = load(tmp_path / "data", dark=np.full(COUNTS.shape[1:], 4), **AROUND)
    np.testing.assert_array_equal(frame.intensities, COUNTS - 4.0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"dark": "nowhere.tif"}, r"nowhere\.tif: no such file"),
        ({"dark": np.ones((3, 4))}, r"dark frame must be a finite image of \(18, 21\)"),
        ({"dark": np.full((18, 21), np.nan)}, "dark frame must be a finite image"),
        ({"dark": np.ones((18, 21)), "dark_level": 2}, "say the same: give one"),
    ],
)
def test_dark_frames_that_do_not_fit(arguments: dict[str, Any], says: str, tmp_path: Path) -> None:
    for i, image in enumerate(COUNTS):
        write(tmp_path / f"{i}.tif", image)
    with pytest.raises(FpmError, match=says) as caught:
        load(tmp_path, **AROUND, **arguments)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- places in names


def names_of(form: str) -> list[str]:
    """Such that natural order is not the order of the LEDs."""
    return [form.format(x=x, y=y, col=x + 2, row=y + 1) for y in (-1, 0, 1) for x in (-2, -1, 0, 1)]


@pytest.mark.parametrize(
    ("form", "extra"),
    [
        ("image_x_{x}_y_{y}", {}),
        ("img x={x} y={y}", {}),
        ("{row:02d}{col:02d}", {"centre": [2, 1]}),
        ("scan3_{row}_{col}", {"centre": [2, 1]}),
        ("r{row}c{col}", {"centre": [2, 1]}),
        ("c{col}_at_{row}", {"centre": [2, 1], "pattern": "c{col}_at_{row}"}),
        ("run7-{row:03d}{col:03d}-b", {"centre": [2, 1], "pattern": "*-{row}{col}-b"}),
    ],
)
@pytest.mark.parametrize("beside", [False, True])
def test_places_in_file_names(form: str, extra: dict[str, Any], beside: bool, tmp_path: Path) -> None:
    for name, image in zip(names_of(form), COUNTS, strict=True):
        write(tmp_path / f"{name}.png", image)
    rule = {"rule": "names", "pitch_mm": 9, "height_mm": 74, **extra}
    if beside:
        (tmp_path / "leds.json").write_text(json.dumps(rule))
        found = load(tmp_path, optics=AROUND["optics"])
    else:
        found = load(tmp_path, optics=AROUND["optics"], leds=json.dumps(rule))
    order = [int(np.linalg.norm(NA - na, axis=1).argmin()) for na in found.na]
    assert sorted(order) == list(range(12))
    np.testing.assert_allclose(found.na, NA[order], atol=1e-12)
    np.testing.assert_array_equal(found.intensities, COUNTS[order])


def test_the_middle_of_the_grid_is_on_the_axis_unless_told(tmp_path: Path) -> None:
    board = leds.from_mapping({"rule": "names", "pitch_mm": 2, "height_mm": 50}, names=["0_0", "0_3", "2_0", "2_3"])
    np.testing.assert_allclose(board.na, direction_sines([[-3, -2], [3, -2], [-3, 2], [3, 2]], 50))


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({}, "'led a' do not tell LED positions"),
        ({"pattern": "{x}"}, "must have {x} and {y}, or {row} and {col}, once"),
        ({"pattern": "{x}_{row}"}, "must have {x} and {y}"),
        ({"pattern": "{x}{y}"}, "needs something between its two numbers"),
        ({"pattern": "led_{x}_{y}"}, "'led a' is not made like 'led_{x}_{y}'"),
        ({"centre": [1]}, "centre must be a list of"),
        ({"pitch_mm": 0}, "pitch_mm must be a positive number"),
    ],
)
def test_names_that_tell_no_place(rule: dict[str, Any], says: str, tmp_path: Path) -> None:
    write(tmp_path / ("0102.png" if "centre" in rule else "led a.png"), COUNTS[0])
    with pytest.raises(FpmError) as caught:
        load(tmp_path, optics=AROUND["optics"], leds={"rule": "names", "pitch_mm": 9, "height_mm": 74, **rule})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_files_have_names(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", COUNTS)
    with pytest.raises(OptionError, match='the rule "names" is for folders of images'):
        load(tmp_path / "a.npy", **{**AROUND, "leds": {"rule": "names", "pitch_mm": 9, "height_mm": 74}})
