"""Folders and stacks of images: order, bit depth, colour, dark level, LED files."""

from __future__ import annotations

import json
import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from fpmtools import leds
from fpmtools.errors import DataError, OptionError
from fpmtools.formats import folder, load

SET_UP: dict[str, Any] = {
    "optics": {"wavelength_um": 0.5, "na": 0.1, "magnification": 4, "camera_pixel_um": 4},
    "leds": {"rule": "rings", "counts": [1, 10], "pitch_mm": 4, "height_mm": 80},
}


def stack(dtype: str = "uint16") -> np.ndarray:
    """11 images of 9 × 12 that differ in every pixel."""
    return (np.arange(11 * 9 * 12).reshape(11, 9, 12) % 250 + 1).astype(dtype)


def tiff(path: Path, image: np.ndarray) -> None:
    tifffile.imwrite(path, image, compression="zlib" if image.dtype != np.float32 else None)


def png(path: Path, image: np.ndarray) -> None:
    Image.fromarray(image).save(path)


@pytest.mark.parametrize(
    ("write", "suffix", "dtype"),
    [
        (tiff, ".TIF", "uint8"),
        (tiff, ".tiff", "uint16"),
        (tiff, ".tif", "float32"),
        (png, ".png", "uint8"),
        (png, ".PNG", "uint16"),
    ],
)
def test_a_folder_is_read_in_natural_order(
    write: Callable[[Path, np.ndarray], None], suffix: str, dtype: str, tmp_path: Path
) -> None:
    folder = tmp_path / "my sample"
    folder.mkdir()
    for i, image in enumerate(stack(dtype)):
        write(folder / f"225.000_{i + 1}{suffix}", image)
    (folder / "README.txt").write_text("not an image")
    (folder / "._hidden.tif").write_bytes(b"not an image either")
    data = load(folder, **SET_UP)
    np.testing.assert_array_equal(data.intensities, stack(dtype))
    assert data.name == "my sample"
    np.testing.assert_array_equal(data.na, leds.from_mapping(SET_UP["leds"]).na)


def test_natural_order() -> None:
    names = ["b1", "a10.tif", "a9.tif", "A2.tif", "a2b.tif", "007", "3"]
    assert sorted(names, key=folder.natural_key) == ["3", "007", "A2.tif", "a2b.tif", "a9.tif", "a10.tif", "b1"]


def test_one_file_with_many_pages(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "stack.tif", stack(), photometric="minisblack")
    np.testing.assert_array_equal(load(tmp_path / "stack.tif", **SET_UP).intensities, stack())


def test_lzw_needs_no_further_library(tmp_path: Path) -> None:
    pages = [Image.fromarray(image) for image in stack("uint8")]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    np.testing.assert_array_equal(load(tmp_path / "a.tif", **SET_UP).intensities, stack("uint8"))


@pytest.mark.parametrize("planar", [False, True])
def test_colour_planes(planar: bool, tmp_path: Path) -> None:
    grey = stack("uint8")
    for i, image in enumerate(grey):
        colour = np.stack([image, image + 1, image + 2])
        layout = {"planarconfig": "separate"} if planar else {}
        tifffile.imwrite(
            tmp_path / f"{i:02}.tif", colour if planar else np.moveaxis(colour, 0, -1), photometric="rgb", **layout
        )
    for channel, offset in (("r", 0), ("green", 1), (2, 2), ("0", 0)):
        np.testing.assert_array_equal(load(tmp_path, channel=channel, **SET_UP).intensities, grey + offset)
    with pytest.raises(OptionError, match="is in colour; choose the channel"):
        load(tmp_path, **SET_UP)
    with pytest.raises(OptionError, match="unknown channel 'infrared'"):
        load(tmp_path, channel="infrared", **SET_UP)


def test_grey_values_stored_as_colour_or_palette(tmp_path: Path) -> None:
    grey = stack("uint8")
    for i, image in enumerate(grey):
        picture = Image.fromarray(image)
        if i % 2:
            picture = Image.fromarray(255 - image, mode=None).convert("P")
            picture.putpalette([value for index in range(256) for value in [255 - index] * 3])
        else:
            picture = picture.convert("RGBA")
        picture.save(tmp_path / f"{i}.png")
    np.testing.assert_array_equal(load(tmp_path, **SET_UP).intensities, grey)
    with pytest.raises(OptionError, match="unknown channel"):
        load(tmp_path, channel="x", **SET_UP)


def test_a_channel_of_grey_images(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", stack(), photometric="minisblack")
    with pytest.raises(OptionError, match="has no colour channels"):
        load(tmp_path / "a.tif", channel="r", **SET_UP)


def test_dark_level_and_saturation(tmp_path: Path) -> None:
    counts = stack("uint8")
    counts[3, 2, :4] = 255
    tifffile.imwrite(tmp_path / "a.tif", counts, photometric="minisblack")
    data = load(tmp_path / "a.tif", dark_level=10.5, **SET_UP)
    np.testing.assert_allclose(data.intensities, np.maximum(counts - 10.5, 0))
    assert data.provenance["dark_level"] == 10.5
    assert data.provenance["warnings"] == [
        f"{4 / counts.size:.2%} of all pixels, in 1 of 11 images, are saturated (at 255): "
        "their true intensity is unknown",
        f"{(counts < 10.5).mean():.2%} of all pixels are darker than the dark level 10.5, and count as 0",
    ]
    assert "warnings" not in load(tmp_path / "a.tif", roi=(0, 4, 9, 8), **SET_UP).provenance


def test_led_file_beside_the_images(tmp_path: Path) -> None:
    for i, image in enumerate(stack()):
        tiff(tmp_path / f"{i}.tif", image)
    na = np.linspace(-0.1, 0.2, 22).reshape(11, 2)
    (tmp_path / "leds.csv").write_text("na_x,na_y\n" + "\n".join(f"{x!r},{y!r}" for x, y in na.tolist()))
    np.testing.assert_array_equal(load(tmp_path, optics=SET_UP["optics"]).na, na)
    np.testing.assert_array_equal(load(tmp_path, optics=SET_UP["optics"], leds=str(tmp_path / "leds.csv")).na, na)
    np.testing.assert_array_equal(load(tmp_path, **(SET_UP | {"leds": json.dumps({"na": (-na).tolist()})})).na, -na)


def test_counts_must_agree(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", stack()[:-1], photometric="minisblack")
    with pytest.raises(DataError, match="10 images but 11 LED positions"):
        load(tmp_path / "a.tif", **SET_UP)


@pytest.mark.parametrize("second", [np.ones((9, 11), np.uint16), np.ones((9, 12), np.uint8)])
def test_images_must_be_alike(second: np.ndarray, tmp_path: Path) -> None:
    tiff(tmp_path / "1.tif", stack()[0])
    tiff(tmp_path / "2.tif", second)
    with pytest.raises(DataError, match=r"2\.tif: image 2 is .* the first is uint16 \(9, 12\)"):
        load(tmp_path, **SET_UP)


def test_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no TIFF, PNG, BMP or JPEG images"):
        load(tmp_path, **SET_UP)


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_truncated_image(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (40, 50), dtype=np.uint8)
    tiff(path, noise) if suffix == ".tif" else png(path, noise)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="not a readable image") as caught:
        load(path, **SET_UP)
    assert "\n" not in str(caught.value)


def test_an_ome_tiff_does_not_reach_into_other_files(tmp_path: Path) -> None:
    """OME metadata may say that further planes are in another file; they are not followed."""
    tifffile.imwrite(tmp_path / "other.ome.tif", stack("uint8")[5] * 0 + 99, metadata=None)
    ome = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
        'DimensionOrder="XYZCT" Type="uint8" SizeX="12" SizeY="9" SizeC="1" SizeT="1" SizeZ="2"><Channel ID="C:0"/>'
        '<TiffData IFD="0" FirstZ="0" PlaneCount="1"/><TiffData IFD="0" FirstZ="1" PlaneCount="1">'
        '<UUID FileName="other.ome.tif">urn:uuid:00000000-0000-0000-0000-000000000001</UUID></TiffData>'
        "</Pixels></Image></OME>"
    )
    tifffile.imwrite(tmp_path / "a.ome.tif", stack("uint8")[0], description=ome, metadata=None)
    data = load(tmp_path / "a.ome.tif", optics=SET_UP["optics"], leds=[[0.0, 0.0]])
    np.testing.assert_array_equal(data.intensities, stack("uint8")[:1])


def test_a_truncated_stack_is_named_as_such(tmp_path, capfd):
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, np.random.default_rng(0).integers(0, 999, (7, 30, 41), np.uint16), photometric="minisblack")
    content = path.read_bytes()
    for size in (len(content) - 3000, len(content) // 3):
        path.write_bytes(content[:size])
        with pytest.raises(DataError, match="damaged or truncated"):
            load(path, **SET_UP)
    assert capfd.readouterr().err == ""


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="not a regular file"):
        load(tmp_path / "pipe")


# ---------------------------------------------------------------- files that unpack to far more than they hold


def zeros_deflated(n_bytes: int) -> bytes:
    """A zlib stream of zeros, made at once: one block again and again."""
    block = zlib.compressobj(9, zlib.DEFLATED, -15)
    size = 1 << 20
    once = block.compress(bytes(size)) + block.flush(zlib.Z_FULL_FLUSH)
    rest = zlib.compressobj(9, zlib.DEFLATED, -15)
    last = rest.compress(bytes(n_bytes % size)) + rest.flush()
    return b"\x78\xda" + once * (n_bytes // size) + last + ((n_bytes % 65521) << 16 | 1).to_bytes(4, "big")


def tiff_of_strips(path: Path, width: int, rows: int, strips: list[int], data: bytes) -> None:
    """A deflated 8-bit TIFF whose strips of ``rows`` rows start at these places of ``data``, all to its end."""
    n, begin = len(strips), 8
    lists = begin + len(data)
    tags = [
        (256, 4, 1, width), (257, 4, 1, rows * n), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1),
        (278, 4, 1, rows), (273, 4, n, lists if n > 1 else begin + strips[0]),
        (279, 4, n, lists + 4 * n if n > 1 else len(data) - strips[0]),
    ]  # fmt: skip
    offsets = struct.pack(f"<{2 * n}I", *(begin + s for s in strips), *(len(data) - s for s in strips))
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags)) + bytes(4)
    path.write_bytes(b"II*\0" + struct.pack("<I", lists + len(offsets)) + data + offsets + directory)


def shared_strips(path: Path) -> None:
    """5 GB: a hundred strips of 50 MB that are all the same 50 kB; 3 MB on disk."""
    data = zeros_deflated(50_000_000)
    tiff_of_strips(path, 50_000, 1000, [3_000_000 - len(data)] * 100, bytes(3_000_000 - len(data)) + data)


def one_strip_too_long(path: Path) -> None:
    """An image of 64 × 64 whose only strip unpacks to 3 GB; 3 MB on disk."""
    tiff_of_strips(path, 64, 64, [0], zeros_deflated(3_000_000_000))


def many_pages_of_one_strip(path: Path) -> None:
    """100 pages of 8000 × 8000 that share one strip."""
    pages = [Image.new("L", (8, 8))] * 100
    pages[0].save(path, save_all=True, append_images=pages[1:])
    with tifffile.TiffFile(path, mode="r+b") as file:
        first = file.pages[0].tags
        for page in file.pages:
            page.tags["ImageWidth"].overwrite(8000)
            page.tags["ImageLength"].overwrite(8000)
            page.tags["RowsPerStrip"].overwrite(8000)
            page.tags["StripOffsets"].overwrite(first["StripOffsets"].value[0])
            page.tags["StripByteCounts"].overwrite(64_000_000)
    with path.open("ab") as file:
        file.write(bytes(3_000_000))


def png_of_zeros(path: Path) -> None:
    """13,000 × 13,000 of 16 bits, below Pillow's own limit; 330 kB on disk."""
    side = 13_000

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 16, 0, 0, 0, 0))
    data = chunk(b"IDAT", zeros_deflated(side * (2 * side + 1)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + data + chunk(b"IEND", b""))


@pytest.mark.parametrize("bomb", [shared_strips, one_strip_too_long, many_pages_of_one_strip, png_of_zeros])
def test_a_small_file_that_unpacks_to_gigabytes_is_refused(bomb: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / f"bomb.{'png' if 'png' in bomb.__name__ else 'tif'}"
    bomb(path)
    assert path.stat().st_size < 6_000_000
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"bomb\.\w+: refused: ") as caught:
            load(path, **SET_UP)
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)


def test_a_folder_of_bombs_is_refused_before_all_are_unpacked(tmp_path: Path) -> None:
    picture = zeros_deflated(100_000_000)
    for i in range(3):
        tiff_of_strips(tmp_path / f"{i}.tif", 10_000, 10_000, [0], picture)
    with pytest.raises(DataError, match=r"2\.tif: refused: declares 0\.3 GB of images, and holds only 0\.2"):
        load(tmp_path, **SET_UP)
