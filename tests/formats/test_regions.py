"""Mosaics, in one colour and in three, as files of other programs: written region by region, the same as a whole."""

from __future__ import annotations

import dataclasses
import functools
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import ome_types
import pytest
import tifffile
import yaozarrs
import zarr
from numpy.typing import NDArray

import fpmtools
from fpmtools import Volume
from fpmtools.colour import result
from fpmtools.colour.result import CHANNELS_FOLDER, ColourReconstruction
from fpmtools.formats import ome_tiff, ome_zarr, volume, writing
from fpmtools.formats.channels import channel as known_channel
from fpmtools.formats.once import Once
from fpmtools.formats.pyramid import halved, levels, parts
from fpmtools.optics import Box
from fpmtools.reconstruction import without_piston
from fpmtools.tiling.mosaic import Mosaic

Z_UM, PIXEL_UM = (-1.5, 2.0), (0.4, 0.4)
SHAPES = [(106, 150), (53, 75), (27, 38)]  # of the levels
UNIT = 64  # pixels: a quarter of what the formats take, for the mosaic is small
WAVES = {"red": 0.63, "green": 0.53, "blue": 0.47}


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small mosaic is written as a large one is."""
    for module, name in ((ome_tiff, "TILE"), (ome_zarr, "CHUNK"), (ome_zarr, "SMALLEST"), (result, "BLOCK")):
        monkeypatch.setattr(module, name, UNIT)


@pytest.fixture
def colours(coloured_mosaic: Path) -> ColourReconstruction:
    found = fpmtools.open_result(coloured_mosaic)
    assert isinstance(found, ColourReconstruction)
    return found


@pytest.fixture
def one(coloured_mosaic: Path) -> Mosaic:
    """The mosaic of one colour."""
    found = fpmtools.open_result(coloured_mosaic / CHANNELS_FOLDER / "green")
    assert isinstance(found, Mosaic)
    return found


def lights(colours: ColourReconstruction) -> list[NDArray[np.float32]]:
    """The intensities [z, colour, y, x] of each level."""
    fields = [[colours.channel(name).field(z) / one.white for name, one in colours.parts.items()] for z in Z_UM]
    found = [np.array(fields)]
    for _ in SHAPES[1:]:
        found.append(halved(found[-1]))
    return [np.abs(field) ** 2 for field in found]


def test_a_tiff_of_three_colours_and_two_depths(colours: ColourReconstruction, tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tiff"
    assert fpmtools.export(colours, path, z_um=Z_UM) == []
    (image,) = ome_types.from_tiff(path).images
    pixels = image.pixels
    assert [(channel.name, channel.emission_wavelength) for channel in pixels.channels] == [
        (name, pytest.approx(1e3 * wave)) for name, wave in WAVES.items()
    ]
    assert [channel.color.as_hex() for channel in pixels.channels] == ["#f00", "#0f0", "#00f"]
    assert (pixels.size_x, pixels.size_y, pixels.size_z, pixels.size_c) == (150, 106, 2, 3)
    assert (pixels.physical_size_x, pixels.physical_size_y, pixels.physical_size_z) == pytest.approx((0.4, 0.4, 3.5))
    assert {plane.the_z: plane.position_z for plane in pixels.planes} == {0: -1.5, 1: 2.0}
    with tifffile.TiffFile(path) as file:
        (series,) = file.series
        assert series.axes == "ZCYX"
        assert [level.shape[2:] for level in series.levels] == SHAPES
        assert {page.tile for level in series.levels for page in level.pages} == {(UNIT, UNIT)}
        for held, expected in zip(series.levels, lights(colours), strict=True):
            np.testing.assert_allclose(held.asarray(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_a_zarr_of_three_colours_and_two_depths(version: str, colours: ColourReconstruction, tmp_path: Path) -> None:
    path = tmp_path / "a.ome.zarr"
    assert fpmtools.export(colours, path, z_um=Z_UM, format="ome-zarr-0.4" if version == "0.4" else None) == []
    yaozarrs.validate_zarr_store(str(path))
    about: dict[str, Any] = dict(zarr.open_group(path, mode="r").attrs)
    about = about["ome"] if version == "0.5" else about
    (image,) = about["multiscales"]
    assert [(axis["name"], axis.get("unit")) for axis in image["axes"]] == [
        ("c", None), ("z", "micrometer"), ("y", "micrometer"), ("x", "micrometer")
    ]  # fmt: skip
    assert [(found["label"], found["color"]) for found in about["omero"]["channels"]] == [
        ("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF")
    ]  # fmt: skip
    for level, (held, expected) in enumerate(zip(image["datasets"], lights(colours), strict=True)):
        scale, translation = held["coordinateTransformations"]
        assert scale["scale"] == pytest.approx([1, 3.5, 0.4 * 2**level, 0.4 * 2**level])
        assert translation["translation"][1] == -1.5
        array = zarr.open_array(path / held["path"], mode="r")
        np.testing.assert_allclose(array[:], np.moveaxis(expected, 0, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("suffix", [".ome.tiff", ".ome.zarr"])
def test_phase_and_path_of_a_mosaic_have_no_seams(suffix: str, one: Mosaic, tmp_path: Path) -> None:
    """All parts and levels are relative to the same: the sum of all pixels of their plane."""
    fpmtools.export(one, tmp_path / f"a{suffix}", z_um=Z_UM, channels=["phase", "path"])
    for level in range(3):
        if suffix == ".ome.tiff":
            found = tifffile.imread(tmp_path / f"a{suffix}", level=level)
        else:
            found = np.moveaxis(np.asarray(zarr.open_array(tmp_path / f"a{suffix}" / str(level), mode="r")[:]), 0, 1)
        for k, z in enumerate(Z_UM):
            field = without_piston(one.field(z))
            path = one.optical_path_nm(z)
            for _ in range(level):
                field, path = halved(field), halved(path).real
            np.testing.assert_allclose(found[k, 0], np.angle(field), atol=1e-4)
            assert np.median(np.abs(found[k, 1] - path)) < (0.05 if level == 0 else 1.0)
            assert np.percentile(np.abs(found[k, 1] - path), 99) < (0.05 if level == 0 else 20.0)


def test_a_shard_for_each_tile(tmp_path: Path, colours: ColourReconstruction, one: Mosaic) -> None:
    """A mosaic of 2 × 3 tiles is 2 × 3 files; each is of chunks that can be read by themselves."""
    made = dataclasses.replace(Volume.of(one, Z_UM[:1], channels=["amplitude"]), tile=(100, 65))
    assert (Volume.of(one, Z_UM).tile, Volume.of(colours, Z_UM).tile) == ((53, 50), (UNIT, UNIT))
    writing.write(writing.writer_for(Path("a.zarr")), tmp_path / "a.zarr", made)
    array = zarr.open_array(tmp_path / "a.zarr" / "0", mode="r")
    assert (array.shards, array.chunks) == ((1, 1, 128, 128), (1, 1, 64, 64))
    files = [path for path in (tmp_path / "a.zarr" / "0" / "c").rglob("*") if path.is_file()]
    assert len(files) == 2
    fpmtools.export(one, tmp_path / "b.zarr", z_um=Z_UM)
    files = [path for path in (tmp_path / "b.zarr" / "0" / "c").rglob("*") if path.is_file()]
    assert len(files) == 2 * 2 * len(one.plan.tiles)


def test_other_formats_hold_the_same_planes(colours: ColourReconstruction, one: Mosaic, tmp_path: Path) -> None:
    """Those that are written plane by plane."""
    fpmtools.export(colours, tmp_path / "a.tiff", z_um=Z_UM)
    with tifffile.TiffFile(tmp_path / "a.tiff") as file:
        assert (file.is_imagej, file.series[0].axes, file.series[0].shape) == (True, "ZCYX", (2, 3, *SHAPES[0]))
        assert file.imagej_metadata["Labels"][:2] == ["red, z = -1.5 um", "green, z = -1.5 um"]
        assert (file.imagej_metadata["unit"], file.imagej_metadata["spacing"]) == ("um", 3.5)
        np.testing.assert_allclose(file.asarray(), lights(colours)[0], rtol=1e-4, atol=1e-5)
    fpmtools.export(one, tmp_path / "a.npz", z_um=Z_UM)
    with np.load(tmp_path / "a.npz") as found:
        np.testing.assert_allclose(found["field"], [one.field(z) for z in Z_UM], atol=1e-5)
        np.testing.assert_allclose(found["z_um"], Z_UM)
        np.testing.assert_allclose(found["pixel_um"], PIXEL_UM)
    fpmtools.export(colours, tmp_path / "a.png", z_um=-1.5)


def synthetic(shape: tuple[int, int], side: int, z_um: tuple[float, ...] = (0.0, 1.0)) -> Volume:
    """A source of regions that has no plane anywhere."""

    def part(z_um: float, box: Box) -> NDArray[np.complex64]:
        y, x, height, width = box
        assert max(height, width) <= side
        rows, columns = np.arange(y, y + height), np.arange(x, x + width)
        return np.asarray(np.exp(1j * (rows[:, None] % 7 + z_um) / 7) * (1 + columns % 5), np.complex64)

    return Volume("a", shape, (0.5, 0.5), z_um, part, (known_channel("phase"),), tile=(side, side))


@pytest.mark.parametrize("name", ["ome-tiff", "ome-zarr"])
def test_memory_does_not_grow_with_the_plane(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The phase's look at all of a plane is taken at a size that does not grow either."""
    side, peaks = 256, []
    for module, unit in ((volume, "LARGEST"), (ome_tiff, "TILE"), (ome_zarr, "CHUNK"), (ome_zarr, "SMALLEST")):
        monkeypatch.setattr(module, unit, side)
    supplied = writing.writer_for(Path("a"), name)
    writing.write(supplied, tmp_path / "first", synthetic((70, 90), side, (0.0,)))  # what is imported, and stays
    for width in (4 * side, 32 * side):
        tracemalloc.start()
        writing.write(supplied, tmp_path / f"a{width}", synthetic((2 * side, width), side, (0.0,)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    plane = 8 * (2 * side) * (32 * side)
    assert peaks[1] < plane / 4
    assert peaks[1] - peaks[0] < plane / 16, "eight times as large"


@pytest.mark.parametrize("name", ["ome-tiff", "ome-zarr", "imagej"])
@pytest.mark.parametrize("channels", [["amplitude"], ["phase", "path"]], ids=str)
def test_parts_are_made_once_and_told_of(
    name: str, channels: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that phase and path have to see before they are written; the number of steps is that of tiles."""
    monkeypatch.setattr(writing, "SOON_S", 0.0)
    source, asked, events = synthetic((3 * UNIT + 7, 5 * UNIT), 512 if name == "imagej" else UNIT), [], []

    def part(z_um: float, box: Box) -> NDArray[np.complex64]:
        asked.append((z_um, box))
        return source.part(z_um, box)

    made = dataclasses.replace(
        source, part=part, tile=(UNIT, UNIT), channels=tuple(known_channel(each, 0.5) for each in channels)
    )
    writing.write(writing.writer_for(Path("a"), name), tmp_path / "a", made, events.append)
    assert len({*asked}) == len(asked) == (2 if name == "imagej" else 40)
    steps = [event["step"] for event in events]
    assert steps == sorted(steps)
    assert steps[-1] == 40
    assert {(event["total"], event["doing"]) for event in events} == {(40, "tile")}
    if name != "imagej":
        assert len({*steps}) > 20, "it moves on all the time"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("room", ["none", "absent"])
def test_without_room_on_the_disk_parts_are_made_twice(room: str, tmp_path: Path) -> None:
    source, asked = synthetic((2 * UNIT, 3 * UNIT), UNIT, (0.0,)), []

    def part(z_um: float, box: Box) -> NDArray[np.complex64]:
        asked.append(box)
        return source.part(z_um, box)

    rows = [[source.part(0.0, (y, x, UNIT, UNIT)) for x in range(0, 3 * UNIT, UNIT)] for y in (0, UNIT)]
    expected = source.channels[0].of(np.block(rows))
    with Once(functools.partial(part, 0.0), tmp_path / "absent" if room == "absent" else None) as once:
        for box in [(0, 0, 9, 9), (0, 9, 9, 9)]:
            np.testing.assert_array_equal(once.keep(box), source.part(0.0, box))
        once((0, 0, 9, 9))
    assert asked == [(0, 0, 9, 9), (0, 9, 9, 9), (0, 0, 9, 9)]
    asked.clear()
    found = np.zeros((2 * UNIT, 3 * UNIT), np.float32)
    for region in dataclasses.replace(source, part=part).regions(4 * UNIT, (UNIT, UNIT)):
        found[region.y : region.y + UNIT, region.x : region.x + UNIT] = region.values[0]
    assert len(asked) == 2 * 6 - 1, "all twice but for the first, which is at hand"
    np.testing.assert_allclose(found, expected, atol=1e-5)


class Stopped(BaseException):
    """As Ctrl-C."""


@pytest.mark.parametrize("name", ["ome-tiff", "ome-zarr", "ome-zarr-0.4"])
def test_a_stop_between_regions_leaves_nothing(name: str, tmp_path: Path) -> None:
    source, asked = synthetic((3 * UNIT, 5 * UNIT), UNIT), []

    def part(z_um: float, box: Box) -> NDArray[np.complex64]:
        asked.append(box)
        if z_um == 1.0 and box[0] > 0:
            raise Stopped
        return source.part(z_um, box)

    with pytest.raises(Stopped):
        writing.write(writing.writer_for(Path("a"), name), tmp_path / "a", dataclasses.replace(source, part=part))
    assert len(asked) > 10
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(1, 1), (37, 90), (64, 128), (130, 65)], ids=str)
@pytest.mark.parametrize("block", [(2, 4), (16, 32), (200, 200)], ids=str)
def test_parts_are_the_pyramid_of_the_whole(shape: tuple[int, int], block: tuple[int, int]) -> None:
    """Each pixel of each level once; what is finer comes first."""
    rng = np.random.default_rng(0)
    whole = (rng.normal(size=(2, *shape)) + 1j * rng.normal(size=(2, *shape))).astype(np.complex64)
    shapes = levels(shape, 8)
    found = [np.full((2, *size), np.nan, np.complex64) for size in shapes]

    def read(box: Box) -> NDArray[np.complex64]:
        return np.asarray(whole[:, box[0] : box[0] + box[2], box[1] : box[1] + box[3]])

    for level, y, x, part in parts(read, shapes, block):
        assert part.shape[1] <= block[0]
        assert part.shape[2] <= block[1]
        where = np.s_[:, y : y + part.shape[1], x : x + part.shape[2]]
        assert np.isnan(found[level][where]).all()
        found[level][where] = part
        if level:
            finer = found[level - 1][:, 2 * y : 2 * (y + part.shape[1]), 2 * x : 2 * (x + part.shape[2])]
            assert not np.isnan(finer).any()
    for level in found:
        np.testing.assert_array_equal(level, whole)
        whole = halved(whole)
