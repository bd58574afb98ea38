"""Results in the files of other programs: which format, what is in it, what is told, and what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

import fpmtools
from fpmtools import Grid, PlaneStack, Volume, WriterRecord, registry
from fpmtools.errors import FpmError, OptionError, OutputError
from fpmtools.formats import writing
from fpmtools.formats.channels import channel, flat_phase
from fpmtools.formats.pyramid import halved, levels
from fpmtools.formats.volume import in_planes
from fpmtools.reconstruction import level_phase

Make = Callable[..., Volume]
GOOD: dict[str, Any] = {"name": "my.format-2", "summary": "One line", "write": "package.module:function"}


def write(path: Path, volume: Volume, name: str | None = None) -> list[str]:
    return writing.write(writing.writer_for(path, name), path, volume)


def test_npy_is_the_field_itself(volume: Make, tmp_path: Path) -> None:
    one, several = volume((2.0,)), volume()
    assert write(tmp_path / "one.npy", one) == []
    np.testing.assert_array_equal(np.load(tmp_path / "one.npy"), one.plane(2.0))
    (told,) = write(tmp_path / "several.npy", several)
    assert "no room for z" in told
    np.testing.assert_array_equal(np.load(tmp_path / "several.npy"), np.stack(list(several.planes())))


def test_npz_says_where_the_planes_are(volume: Make, tmp_path: Path) -> None:
    several = volume((-1.0, 0.5, 3.0))
    assert write(tmp_path / "a.NPZ", several) == []
    with np.load(tmp_path / "a.NPZ") as found:
        assert found["field"].dtype == np.complex64
        np.testing.assert_array_equal(found["field"], np.stack(list(several.planes())))
        np.testing.assert_array_equal(found["z_um"], several.z_um)
        np.testing.assert_allclose(found["pixel_um"], (0.25, 0.5))
        assert found["wavelength_um"] == 0.5


def test_imagej_has_channels_and_slices(volume: Make, tmp_path: Path) -> None:
    several = volume()
    assert write(tmp_path / "a.tif", several) == []
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert (file.is_imagej, file.series[0].axes, file.series[0].shape) == (True, "ZCYX", (3, 2, 30, 43))
        about = file.imagej_metadata
        assert (about["channels"], about["slices"], about["spacing"], about["unit"]) == (2, 3, 1.5, "um")
        assert about["Labels"][:3] == ["amplitude, z = -1 um", "phase, z = -1 um", "amplitude, z = 0.5 um"]
        across, down = (file.pages[0].tags[name].value for name in ("XResolution", "YResolution"))
        assert (across[0] / across[1], down[0] / down[1]) == pytest.approx((2, 4))  # pixels per µm
        found = file.asarray()
    for k, plane in enumerate(several.planes()):
        np.testing.assert_array_equal(found[k], [np.abs(plane), flat_phase(plane)])


def test_imagej_of_one_plane_and_of_uneven_ones(volume: Make, tmp_path: Path) -> None:
    write(tmp_path / "one.tiff", volume((2.0,)))
    with tifffile.TiffFile(tmp_path / "one.tiff") as file:
        assert (file.series[0].axes, file.imagej_metadata["Labels"]) == ("CYX", ["amplitude", "phase"])
        assert "plane at 2 um" in file.imagej_metadata["content"]
    (told,) = write(tmp_path / "uneven.tiff", volume((0.0, 1.0, 5.0)))
    assert "not evenly spaced" in told
    with tifffile.TiffFile(tmp_path / "uneven.tiff") as file:
        assert "spacing" not in file.imagej_metadata
        assert file.imagej_metadata["z_um"] == "0 1 5"


def test_pictures(volume: Make, tmp_path: Path) -> None:
    write(tmp_path / "a.png", volume((2.0,)))
    write(tmp_path / "a.gif", volume())
    with Image.open(tmp_path / "a.png") as image:
        assert min(image.size) > 100
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 3


def test_optical_path_is_phase_times_wavelength(volume: Make) -> None:
    one = volume((0.0,), channels=["path", "phase"])
    path = one.channels[0].of(one.plane(0.0))
    np.testing.assert_allclose(path, level_phase(one.plane(0.0)) * 500 / (2 * np.pi), rtol=1e-5)
    assert [channel.label for channel in one.channels] == ["path (nm)", "phase (rad)"]


def test_a_path_without_a_wavelength_and_channels_that_do_not_exist(volume: Make) -> None:
    bare = PlaneStack(np.ones((1, 4, 6), np.complex64), (0.0,), Grid((4, 6), (1.0, 1.5), (0.0, 0.0)))
    with pytest.raises(OptionError, match="does not tell"):
        Volume.of(bare, (0.0,), channels=["path"])
    with pytest.raises(OptionError, match="did you mean 'phase'"):
        volume(channels=["fase"])
    with pytest.raises(OptionError, match="each can be there once"):
        volume(channels=["phase", "phase"])


def test_planes_are_made_one_at_a_time_and_once(volume: Make, tmp_path: Path) -> None:
    source, made = volume(), []

    def plane(z_um: float) -> Any:
        made.append(z_um)
        return source.plane(z_um)

    for name in ("a.npy", "a.npz", "a.tiff"):
        made.clear()
        write(tmp_path / name, dataclasses.replace(source, part=in_planes(plane)))
        assert made == [-1.0, 0.5, 2.0]


def test_pyramids_double_their_pixels() -> None:
    assert levels((5, 1030), 256) == [(5, 1030), (3, 515), (2, 258), (1, 129)]
    plane = np.arange(15, dtype=np.complex64).reshape(3, 5)
    expected = [[3, 5, 6.5], [10.5, 12.5, 14]]
    np.testing.assert_allclose(halved(plane), expected)


@pytest.mark.parametrize(
    ("name", "format_name", "says"),
    [
        ("a.jpeg", None, "says no format: give one of .npy, .npz"),
        ("tiff", None, "says no format"),
        ("a.npy", "imagj", "did you mean 'imagej'"),
        ("a.\x1b[2J", None, r"\x1b[2J: the end"),
    ],
)
def test_unknown_formats_are_one_line(name: str, format_name: str | None, says: str) -> None:
    with pytest.raises(OptionError) as refused:
        writing.writer_for(Path(name), format_name)
    assert says in str(refused.value)
    assert str(refused.value).isprintable()


def test_export_chooses_checks_and_keeps_what_is_there(volume: Make, tmp_path: Path) -> None:
    planes = np.stack(list(volume().planes()))
    result = PlaneStack(planes, (-1.0, 0.5, 2.0), Grid((30, 43), (7.5, 21.5), (-1.0, 2.0)))
    assert fpmtools.export(result, tmp_path / "a.npz", z_um=(-1, 2)) == []
    with np.load(tmp_path / "a.npz") as found:
        np.testing.assert_array_equal(found["field"], planes[[0, 2]])
    for path, error, says, how in [
        ("a.npz", OutputError, "exists", {"z_um": 0.5}),
        ("b.npz", OptionError, "covers z from -1 to 2", {}),
        ("b.npz", OptionError, "leave out the channels", {"z_um": 0.5, "channels": ["phase"]}),
        ("b.png", OptionError, "holds one plane, not 2", {"z_um": (0.0, 0.5)}),
        ("b.tif", OptionError, "outside the reconstructed range", {"z_um": 7}),
        ("b.tif", OptionError, "at least one", {"z_um": 0, "channels": []}),
        (".", OutputError, "is a folder", {"z_um": 0.5, "format": "npy"}),
    ]:
        with pytest.raises(error, match=says):
            fpmtools.export(result, tmp_path / path, **how)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    fpmtools.export(result, tmp_path / "a.npz", z_um=0.5, force=True, format="imagej")
    assert tifffile.imread(tmp_path / "a.npz").shape == (2, 30, 43)


def test_a_plane_that_cannot_be_made_leaves_no_file(volume: Make, tmp_path: Path) -> None:
    source = volume()

    def plane(z_um: float) -> Any:
        if z_um > 1:
            raise OptionError("no such plane")
        return source.plane(z_um)

    broken = dataclasses.replace(source, part=in_planes(plane))
    for writer in registry.built_in_writers():
        if writer.record.stacks:
            with pytest.raises(OptionError, match="no such plane"):
                writing.write(writer, tmp_path / "a", broken)
            assert list(tmp_path.iterdir()) == [], writer.record.name


def test_a_writer_record_keeps_its_values() -> None:
    record = WriterRecord(**GOOD, suffixes=[".a", ".b.c"], holds="picture", stacks=False, folder=["x.json"])
    assert (record.suffixes, record.folder, record.api_version) == ((".a", ".b.c"), ("x.json",), 1)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("name", "My", "WriterRecord: name 'My' must be lower-case"),
        ("summary", "two\nlines", "must be one line"),
        ("write", "function", "write 'function' must be 'module:function'"),
        ("suffixes", ".a", "suffixes '.a' must be a collection"),
        ("suffixes", ("a",), "suffixes 'a' must be such as '.ome.tiff'"),
        ("holds", "much", "must be 'complex', 'real' or 'picture'"),
        ("stacks", 1, "must be True or False"),
        ("folder", (1,), "folder (1,) must be"),
        ("api_version", 2, "writer 'my.format-2' is written for version 2 of the writer interface"),
    ],
)
def test_a_bad_value_is_refused_in_one_line(field: str, value: Any, says: str) -> None:
    with pytest.raises(FpmError) as refused:
        WriterRecord(**{**GOOD, field: value})
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".tif", ".ome.tif", ".ome.zarr"])
def test_a_full_disk_is_one_line_and_leaves_what_was_there(suffix: str, disk: Callable[..., Any]) -> None:
    """The older file stays; the temporary one goes, so that there is as much room as before."""
    full = disk(1 << 22)
    path = full.path / f"a{suffix}"
    y, x = np.mgrid[:200, :300]
    noise = np.random.default_rng(0).normal(size=(200, 300)) + 1j * np.hypot(y, x)

    def plane(z_um: float) -> Any:
        return (noise * (1 + z_um)).astype(np.complex64)

    def made(planes: int) -> Volume:
        z_um = tuple(map(float, range(planes)))
        return Volume("a", noise.shape, (0.25, 0.5), z_um, in_planes(plane), (channel("amplitude"), channel("phase")))

    write(path, made(1))
    before = sorted(found.name for found in full.path.rglob("*"))
    with pytest.raises(OutputError, match=r"cannot write .*(space|disk)") as refused:
        write(path, made(12))
    assert "\n" not in str(refused.value)
    assert sorted(found.name for found in full.path.rglob("*")) == before
