"""OME-TIFF as other people's programs see it: ome-types for the metadata, Pillow and tifffile for the pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import ome_types
import pytest
import tifffile
from PIL import Image, ImageSequence

from fpmtools import Volume
from fpmtools.formats import ome_tiff, writing
from fpmtools.formats.volume import flat_phase, halved

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
        fields = list(made.planes())
        for k, level in enumerate(series.levels):
            np.testing.assert_array_equal(level.asarray(), [[np.abs(f), flat_phase(f)] for f in fields])
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
