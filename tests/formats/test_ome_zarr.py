"""OME-Zarr as other people's programs see it: yaozarrs checks it against the specification, zarr reads the pixels."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaozarrs
import zarr

from fpmtools import Volume, registry
from fpmtools.errors import OutputError
from fpmtools.formats import ome_zarr, writing
from fpmtools.formats.pyramid import halved
from fpmtools.reconstruction import without_piston

Make = Callable[..., Volume]
HOSTILE = "../../a<b>&\"'\x1b[31m\x00 ü\u202e"
VERSIONS = pytest.mark.parametrize("version", ["0.5", "0.4"])


def write(path: Path, volume: Volume, version: str = "0.5") -> list[str]:
    return writing.write(writing.writer_for(path, {"0.4": "ome-zarr-0.4"}.get(version)), path, volume)


def attributes(path: Path, version: str) -> dict[str, Any]:
    """The OME part of a group's attributes, once it is valid."""
    yaozarrs.validate_zarr_store(str(path))
    found = dict(zarr.open_group(path, mode="r").attrs)
    return found["ome"] if version == "0.5" else found


@VERSIONS
@pytest.mark.parametrize("z_um", [(-1.0, 0.5, 2.0), (-3.5,)], ids=["stack", "one"])
@pytest.mark.parametrize("shape", [(70, 101), (33, 150), (20, 12)], ids=str)
def test_it_is_valid_and_says_where_its_pixels_are(
    version: str,
    z_um: tuple[float, ...],
    shape: tuple[int, int],
    volume: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ome_zarr, "SMALLEST", 32)
    monkeypatch.setattr(ome_zarr, "CHUNK", 40)
    made = volume(z_um, shape, channels=["amplitude", "phase", "path"], name="my sample")
    assert write(tmp_path / "a.ome.zarr", made, version) == []
    about = attributes(tmp_path / "a.ome.zarr", version)
    (image,) = about["multiscales"]
    assert image["name"] == "my sample"
    assert [axis["name"] for axis in image["axes"]] == ["c", "z", "y", "x"]
    assert [axis.get("unit") for axis in image["axes"]] == [None, "micrometer", "micrometer", "micrometer"]
    assert [channel["label"] for channel in about["omero"]["channels"]] == ["amplitude", "phase (rad)", "path (nm)"]
    fields = [without_piston(plane) for plane in made.planes()]
    for k, level in enumerate(image["datasets"]):
        scale, translation = level["coordinateTransformations"]
        assert scale["scale"] == [1, 1.5 if len(z_um) > 1 else 1, 0.25 * 2**k, 0.5 * 2**k]
        shift = (2**k - 1) / 2
        assert translation["translation"] == [0, z_um[0], 0.25 * shift, 0.5 * shift]
        array = zarr.open_array(tmp_path / "a.ome.zarr" / level["path"], mode="r")
        assert array.chunks[2:] == tuple(min(n, 40 if version == "0.5" else 80) for n in array.shape[2:])
        assert array.shards is None or max(array.shards) == 80
        expected = [[np.abs(f) for f in fields], [np.angle(f) for f in fields]]
        np.testing.assert_allclose(array[:2], expected, atol=2e-6)
        if k == 0:
            np.testing.assert_allclose(array[2], [made.channels[2].of(f) for f in fields], atol=1e-3)
        fields = [halved(field) for field in fields]
    assert max(array.shape[2:]) <= 32
    for channel, values in zip(about["omero"]["channels"], expected, strict=False):
        window = channel["window"]
        assert window["min"] <= window["start"] < window["end"] <= window["max"]
        assert np.min(values) >= window["min"] - 1e-6


def test_windows_span_all_planes(volume: Make, tmp_path: Path) -> None:
    made = volume()
    write(tmp_path / "a.zarr", made)
    window = attributes(tmp_path / "a.zarr", "0.5")["omero"]["channels"][0]["window"]
    amplitudes = [np.abs(plane) for plane in made.planes()]
    assert (window["min"], window["max"]) == pytest.approx((np.min(amplitudes), np.max(amplitudes)))


@VERSIONS
def test_uneven_planes_are_counted_and_told(version: str, volume: Make, tmp_path: Path) -> None:
    (told,) = write(tmp_path / "a.ome.zarr", volume((0.0, 0.5, 4.0)), version)
    assert "not evenly spaced" in told
    (image,) = attributes(tmp_path / "a.ome.zarr", version)["multiscales"]
    assert image["axes"][1] == {"name": "z", "type": "space"}
    assert image["datasets"][0]["coordinateTransformations"][0]["scale"][1] == 1
    assert zarr.open_group(tmp_path / "a.ome.zarr", mode="r").attrs["fpmtools"]["z_um"] == [0, 0.5, 4]


def test_0_4_is_what_java_reads(volume: Make, tmp_path: Path) -> None:
    write(tmp_path / "a.ome.zarr", volume(), "0.4")
    about = json.loads((tmp_path / "a.ome.zarr" / "0" / ".zarray").read_text())
    assert (about["zarr_format"], about["dimension_separator"], about["compressor"]["id"]) == (2, "/", "zlib")


@VERSIONS
def test_a_hostile_name_stays_text(version: str, volume: Make, tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", volume((1.0,), name=HOSTILE), version)
    name = attributes(tmp_path / "a.zarr", version)["multiscales"][0]["name"]
    assert name.startswith("../../a<b>&\"'")
    assert name.isprintable()
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def test_only_what_is_one_is_replaced(volume: Make, tmp_path: Path) -> None:
    writer = writing.writer_for(Path("a.zarr"))
    (tmp_path / "photos.zarr").mkdir()
    (tmp_path / "photos.zarr" / "cat.jpg").write_text("cat")
    with pytest.raises(OutputError, match="something else"):
        writing.claim(writer, tmp_path / "photos.zarr", force=True)
    write(tmp_path / "a.zarr", volume(), "0.4")
    (tmp_path / "a.zarr" / "stale").write_text("stale")
    with pytest.raises(OutputError, match="exists"):
        writing.claim(writer, tmp_path / "a.zarr", force=False)
    writing.claim(writer, tmp_path / "a.zarr", force=True)
    (tmp_path / "link.zarr").symlink_to(tmp_path / "a.zarr")
    with pytest.raises(OutputError, match="something else"):
        writing.claim(writer, tmp_path / "link.zarr", force=True)
    write(tmp_path / "a.zarr", volume())
    assert sorted(path.name for path in (tmp_path / "a.zarr").iterdir()) == ["0", "zarr.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "link.zarr", "photos.zarr"]


def test_without_zarr_it_says_what_to_install(volume: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(OutputError, match=r"pip install 'fpmtools\[zarr\]'"):
        write(tmp_path / "a.zarr", volume())
    assert list(tmp_path.iterdir()) == []
    assert "ome-zarr" in {writer.record.name for writer in registry.built_in_writers()}
