"""OME-TIFF as other people's programs see it: ome-types for the metadata, Pillow and tifffile for the pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ome_types
import pytest
import tifffile
from PIL import Image, ImageSequence

from fpmtools import Volume, load
from fpmtools.errors import DataError, OptionError
from fpmtools.formats import ome_tiff, writing
from fpmtools.formats.channels import flat_phase
from fpmtools.formats.pyramid import halved
from fpmtools.reconstruction import without_piston

Make = Callable[..., Volume]
HOSTILE = "a<b>&\"'\x1b[31m\x00]]> ü\u202e"


def write(path: Path, volume: Volume) -> list[str]:
    return writing.write(writing.writer_for(path), path, volume)


@pytest.mark.parametrize("z_um", [(-1.0, 0.5, 2.0), (0.0, 0.25, 7.0), (-3.5,)], ids=["even", "uneven", "one"])
@pytest.mark.parametrize("shape", [(30, 43), (41, 12)], ids=str)
def test_sizes_z_and_names_are_right(
    z_um: tuple[float, ...], shape: tuple[int, int], volume: Make, tmp_path: Path
) -> None:
    made = volume(z_um, shape, channels=["amplitude", "phase", "path"], name="my sample")
    assert write(tmp_path / "a.ome.tiff", made) == []
    (image,) = ome_types.from_tiff(tmp_path / "a.ome.tiff").images
    pixels = image.pixels
    assert image.name == "my sample"
    assert "wavelength 500 nm" in image.description
    assert [channel.name for channel in pixels.channels] == ["amplitude", "phase (rad)", "path (nm)"]
    assert (pixels.size_x, pixels.size_y, pixels.size_z, pixels.size_c) == (shape[1], shape[0], len(z_um), 3)
    assert (pixels.physical_size_x, pixels.physical_size_y) == (0.5, 0.25)
    assert {pixels.physical_size_x_unit.value, pixels.physical_size_y_unit.value} == {"µm"}
    assert pixels.physical_size_z == (1.5 if z_um == (-1.0, 0.5, 2.0) else None)
    where = {(plane.the_z, plane.the_c): (plane.position_z, plane.position_z_unit.value) for plane in pixels.planes}
    assert where == {(z, c): (z_um[z], "µm") for z in range(len(z_um)) for c in range(3)}


def test_pixels_by_another_reader(volume: Make, tmp_path: Path) -> None:
    made = volume()
    write(tmp_path / "a.ome.tif", made)
    expected = [of(plane) for plane in made.planes() for of in (np.abs, flat_phase)]
    with Image.open(tmp_path / "a.ome.tif") as file:
        pages = [np.asarray(page) for page in ImageSequence.Iterator(file)]
    np.testing.assert_array_equal(pages, expected)


@pytest.mark.parametrize("shape", [(70, 101), (33, 150), (32, 64)], ids=str)
def test_a_large_plane_has_tiles_and_a_pyramid(
    shape: tuple[int, int], volume: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ome_tiff, "TILE", 32)
    made = volume((-1.0, 2.0), shape)
    write(tmp_path / "a.ome.tif", made)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        (series,) = file.series
        assert series.axes == "ZCYX"
        assert [max(level.shape) <= 32 for level in series.levels] == [False] * (len(series.levels) - 1) + [True]
        assert {page.tile for page in series.levels[0].pages} == {(32, 32)}
        fields = [without_piston(plane) for plane in made.planes()]
        for k, level in enumerate(series.levels):
            expected = [[np.abs(f), np.angle(f)] for f in fields]
            np.testing.assert_allclose(level.asarray(), expected, atol=2e-6)
            page = level.pages[0]
            across, down = (page.tags[name].value for name in ("XResolution", "YResolution"))
            assert page.tags["ResolutionUnit"].value == tifffile.RESUNIT.CENTIMETER
            assert (across[0] / across[1], down[0] / down[1]) == pytest.approx((2e4 / 2**k, 4e4 / 2**k))
            fields = [halved(field) for field in fields]
    with Image.open(tmp_path / "a.ome.tif") as file:  # which knows of no pyramid
        assert file.n_frames == 4
        np.testing.assert_array_equal(np.asarray(file), np.abs(made.plane(-1.0)))


def test_a_file_beyond_4_gb_is_a_bigtiff(volume: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ome_tiff, "_BIG_BYTES", 1000)
    write(tmp_path / "a.ome.btf", volume((1.0,)))
    with tifffile.TiffFile(tmp_path / "a.ome.btf") as file:
        assert (file.is_bigtiff, file.is_ome) == (True, True)


def test_a_hostile_name_stays_text(volume: Make, tmp_path: Path) -> None:
    write(tmp_path / "a.ome.tiff", volume((1.0,), name=HOSTILE))
    name = ome_types.from_tiff(tmp_path / "a.ome.tiff").images[0].name
    assert name.startswith("a<b>&\"'")
    assert name.isprintable()
    assert "ü" in name


# ---------------------------------------------------------------- measured images


COUNTS = np.arange(6 * 8 * 11, dtype=np.uint16).reshape(6, 8, 11) + 100
LEDS = [[0.05 * k, 0.0] for k in range(6)]
REST = {"na": 0.1, "magnification": 4.0, "wavelength_um": 0.5}


def measured(path: Path, array: np.ndarray, axes: str, **metadata: Any) -> Path:
    tifffile.imwrite(path, array, ome=True, photometric="minisblack", metadata={"axes": axes, **metadata})
    return path


@pytest.mark.parametrize("axes", ["TYX", "ZYX", "CYX"])
def test_led_images_are_read_with_their_pixel_size(axes: str, tmp_path: Path) -> None:
    size = {"PhysicalSizeX": 862.5, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.8625, "PhysicalSizeYUnit": "µm"}
    path = measured(tmp_path / "leds.ome.tif", COUNTS, axes, **size)
    data = load(path, leds=LEDS, optics=REST)
    np.testing.assert_array_equal(data.intensities, COUNTS)
    assert data.optics.pixel_um == pytest.approx(0.8625)
    assert data.optics.camera_pixel_um == pytest.approx(3.45)
    assert data.name == "leds"
    assert data.provenance["layout"].startswith("OME-TIFF, C")
    with pytest.raises(DataError, match="LED positions"):
        load(path, optics=REST)


def test_planes_come_in_the_order_of_the_metadata(tmp_path: Path) -> None:
    """Four times two channels: one is asked for, by number or by name, and its planes are found."""
    array = COUNTS.reshape(3, 2, 8, 11)
    path = measured(tmp_path / "a.ome.tif", array, "TCYX", Channel={"Name": ["red", "blue"]})
    how: dict[str, Any] = {"leds": LEDS[:3], "optics": {**REST, "camera_pixel_um": 3.45}}
    for channel, index in (("blue", 1), (0, 0), ("1", 1)):
        np.testing.assert_array_equal(load(path, channel=channel, **how).intensities, array[:, index])
    with pytest.raises(OptionError, match="has 2 channels; choose one by name or number: red, blue"):
        load(path, **how)
    with pytest.raises(OptionError, match="did you mean 'blue'"):
        load(path, channel="blu", **how)


def test_objective_and_light_are_taken_from_the_file(tmp_path: Path) -> None:
    ome = ome_types.OME.model_validate(
        {
            "instruments": [{"objectives": [{"lens_na": 0.25, "nominal_magnification": 10, "id": "Objective:0"}]}],
            "images": [
                {
                    "pixels": {
                        "dimension_order": "XYCZT", "type": "uint16", "size_x": 11, "size_y": 8, "size_z": 6,
                        "size_c": 1, "size_t": 1, "physical_size_x": 0.345, "physical_size_y": 0.345,
                        "channels": [{"emission_wavelength": 523}],
                        "tiff_data_blocks": [{"ifd": 5 - k, "first_z": k, "plane_count": 1} for k in range(6)],
                    }
                }
            ],
        }
    )  # fmt: skip
    tifffile.imwrite(tmp_path / "a.ome.tif", COUNTS, description=ome.to_xml(), metadata=None, photometric="minisblack")
    data = load(tmp_path / "a.ome.tif", leds=LEDS)
    assert (data.optics.na, data.optics.magnification, data.optics.wavelength_um) == (0.25, 10, 0.523)
    assert data.optics.pixel_um == pytest.approx(0.345)
    np.testing.assert_array_equal(data.intensities, COUNTS[::-1])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('SizeT="6"', 'SizeT="2000000"'), "planes of"),
        (('SizeT="6"', 'SizeT="5"'), "count more planes"),
        (('SizeT="6"', 'SizeT="7"'), "do not say where"),
        (('IFD="0"', 'IFD="9"'), "speak of page 14"),
        (("<Pixels ", "<Pixel "), "ParseError"),
        (("<Image ", "<!DOCTYPE a><Image "), "definitions of its own"),
        (('DimensionOrder="XYCZT"', 'DimensionOrder="XYCCT"'), "planes of"),
        (('Type="uint16" SizeX', 'Type="uint16" SizeA'), None),
    ],
    ids=str,
)
def test_metadata_that_cannot_be_used_are_told_and_the_pages_read(
    change: tuple[str, str], says: str | None, tmp_path: Path
) -> None:
    text = tifffile.tiffcomment(measured(tmp_path / "a.ome.tif", COUNTS, "TYX"))
    assert change[0] in text
    tifffile.imwrite(
        tmp_path / "b.ome.tif", COUNTS, description=text.replace(*change), metadata=None, photometric="minisblack"
    )
    data = load(tmp_path / "b.ome.tif", leds=LEDS, optics={**REST, "camera_pixel_um": 3.45})
    np.testing.assert_array_equal(data.intensities, COUNTS)
    told = "; ".join(data.provenance.get("warnings", []))
    assert (says in told) if says else not told


def test_what_is_no_tiff_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image at all")
    with pytest.raises(DataError, match="not a readable TIFF"):
        load(tmp_path / "a.png", format="ome-tiff", leds=LEDS)


def test_pixels_that_are_not_square_give_no_size(tmp_path: Path) -> None:
    path = measured(tmp_path / "a.ome.tif", COUNTS, "TYX", PhysicalSizeX=0.5, PhysicalSizeY=0.25)
    data = load(path, leds=LEDS, optics={**REST, "camera_pixel_um": 3.45})
    assert data.optics.camera_pixel_um == 3.45
    assert data.provenance["warnings"] == ["the pixel size is not used: 0.25 × 0.5 µm (y, x)"]


def test_what_was_written_is_read_as_images(volume: Make, tmp_path: Path) -> None:
    """The z of one channel, from the first level of the pyramid."""
    made = volume((0.0, 1.0, 5.0))
    write(tmp_path / "a.ome.tiff", made)
    data = load(tmp_path / "a.ome.tiff", channel="amplitude", leds=LEDS[:3], optics={**REST, "camera_pixel_um": 1.0})
    np.testing.assert_array_equal(data.intensities, [np.abs(plane) for plane in made.planes()])
