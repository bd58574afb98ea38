"""Frames of a colour camera as it records them: each colour's own pixels, read when they are needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import fpmtools
from fpmtools.errors import DataError, FpmError, OptionError
from fpmtools.formats import bayer
from fpmtools.images import Images

SITES = {"r": [(0, 0)], "g": [(0, 1), (1, 0)], "b": [(1, 1)]}


@pytest.fixture(scope="session")
def raw(sample: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's frames through an RGGB filter, as grey TIFFs."""
    mosaic = np.zeros(sample.frames.shape[:3], np.uint16)
    for k, colour in enumerate("rgb"):
        for y, x in SITES[colour]:
            mosaic[:, y::2, x::2] = sample.frames[:, y::2, x::2, k]
    return sample.write(tmp_path_factory.mktemp("bayer") / "raw", mosaic)


NUMBERS = {"na": 0.1, "magnification": 4.0, "camera_pixel_um": 3.45}


def load(raw: Path, colour: str | None, **more: Any) -> fpmtools.Dataset:
    known = {"bayer": "RGGB", "leds": str(raw.parent / "board.csv"), "optics": {**NUMBERS, "wavelength_um": 0.53}}
    return fpmtools.load(raw, **{"channel": colour, **known, **more})


@pytest.mark.parametrize("colour", list("rgb"))
def test_only_a_colours_own_pixels_count(raw: Path, sample: Any, colour: str) -> None:
    data, (y, x) = load(raw, colour), SITES[colour][0]
    assert data.optics.pixel_um == pytest.approx(2 * 3.45 / 4)
    np.testing.assert_array_equal(data.intensities, sample.frames[:, y::2, x::2, "rgb".index(colour)])
    part = load(raw, colour, roi=(10, 4, 20, 32))
    np.testing.assert_array_equal(part.intensities, data.intensities[:, 5:15, 2:18])


@pytest.mark.parametrize("colour", list("rgb"))
def test_its_field_is_found_from_them(raw: Path, sample: Any, colour: str) -> None:
    optics = {**NUMBERS, "wavelength_um": sample.waves[colour]}
    data, (y, x) = load(raw, colour, optics=optics), SITES[colour][0]
    result = fpmtools.reconstruct(data, "ap", z_um=sample.focus_um[colour], options={"sweeps": 60})
    truth = sample.moved(colour, (-y * sample.up, -x * sample.up))  # its first pixel is another
    found = result.field(shape=truth.shape)
    gain = np.vdot(found, truth) / np.vdot(found, found)
    assert -10 * np.log10(np.mean(np.abs(gain * found - truth) ** 2) / np.mean(np.abs(truth) ** 2)) > 28


def test_parts_are_those_of_the_whole() -> None:
    counts = np.arange(2 * 10 * 14, dtype=np.uint16).reshape(2, 10, 14)
    for first in ((0, 0), (0, 1), (1, 0), (1, 1)):
        lattice = bayer.Lattice(Images.of(counts), first)
        whole = counts[:, first[0] :: 2, first[1] :: 2]
        assert lattice.shape == whole.shape
        for rows, columns in ((slice(0, None), slice(0, None)), (slice(1, 4), slice(3, 7)), (slice(4, 5), slice(0, 1))):
            np.testing.assert_array_equal(lattice[1, rows, columns], whole[1, rows, columns])


@pytest.mark.parametrize(("pattern", "g"), [("RGGB", (0, 1)), ("BGGR", (0, 1)), ("GRBG", (0, 0)), ("gbrg", (0, 0))])
def test_where_a_colours_first_pixel_is(pattern: str, g: tuple[int, int]) -> None:
    assert bayer.site(pattern, "g") == g
    assert {bayer.site(pattern, "r"), bayer.site(pattern, 2)} == {divmod(pattern.upper().index(c), 2) for c in "RB"}


@pytest.mark.parametrize(
    ("more", "error", "says"),
    [
        ({"bayer": "RGB"}, OptionError, "bayer RGB: give the first pixels' colours: RGGB"),
        ({"channel": None}, OptionError, "no channel is given: choose r, g or b"),
        ({"channel": "x"}, OptionError, "unknown channel 'x': choose r, g or b"),
        ({"roi": (1, 0, 20, 20)}, OptionError, "all four numbers must be even"),
        ({"optics": {**NUMBERS, "camera_pixel_um": 6.9, "wavelength_um": 0.5}}, DataError, "under-sampled"),
    ],
)
def test_mistakes_are_told(raw: Path, more: dict[str, Any], error: type[FpmError], says: str) -> None:
    with pytest.raises(error, match=says):
        load(raw, "g", **more)


def test_odd_frames_are_no_mosaic(sample: Any, tmp_path: Path) -> None:
    folder = sample.write(tmp_path / "odd", np.full((len(sample.leds), 31, 40), 100, np.uint16))
    with pytest.raises(DataError, match="a mosaic of colours has even sides, these images are 31×40"):
        load(folder, "g")


def test_a_dark_frame_is_a_mosaic_too(raw: Path, sample: Any, tmp_path: Path) -> None:
    dark = np.zeros(sample.shape, np.uint16)
    dark[0::2, 1::2] = 7
    tifffile.imwrite(tmp_path / "dark.tif", dark)
    data, plain = load(raw, "g", dark=str(tmp_path / "dark.tif")), load(raw, "g")
    np.testing.assert_array_equal(data.intensities, np.maximum(plain.intensities - 7, 0))
