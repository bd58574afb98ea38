"""Measured images in OME-Zarr, as other people's libraries write it, and stores that are damaged or mean harm."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from fpmtools import load
from fpmtools.errors import DataError, FpmError, OptionError
from fpmtools.formats import ome_zarr_reader

COUNTS = np.arange(6 * 8 * 11, dtype=np.uint16).reshape(6, 8, 11) + 100
LEDS = [[0.05 * k, 0.0] for k in range(6)]
REST = {"na": 0.1, "magnification": 4.0, "wavelength_um": 0.5}
UNITS = {"y": "micrometer", "x": "micrometer"}


def store(path: Path, images: np.ndarray = COUNTS, axes: str = "tyx", version: str = "0.5", **how: Any) -> Path:
    """An image as the specification says, with pixels of 0.8625 µm."""
    group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
    group.create_array("0", data=images, chunks=(*[1] * (images.ndim - 2), 5, 11), **how)
    scale = [1.0] * (images.ndim - 2) + [0.8625, 0.8625]
    image = {
        "axes": [{"name": a, "unit": UNITS[a]} if a in UNITS else {"name": a} for a in axes],
        "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}],
    }
    omero = {"channels": [{"label": "red"}, {"label": "blue"}]}
    known = {"multiscales": [{"version": version, **image}], "omero": omero}
    group.attrs.put({"ome": {"version": "0.5", **known}} if version == "0.5" else known)
    return path


@pytest.mark.parametrize("version", ["0.5", "0.4"])
@pytest.mark.parametrize("axes", ["tyx", "zyx", "cyx"])
def test_led_images_are_read_with_their_pixel_size(version: str, axes: str, tmp_path: Path) -> None:
    path = store(tmp_path / "leds.ome.zarr", axes=axes, version=version)
    data = load(path, leds=LEDS, optics=REST)
    np.testing.assert_array_equal(data.intensities, COUNTS)
    assert data.optics.pixel_um == pytest.approx(0.8625)
    assert data.name == "leds"
    assert data.provenance["layout"].startswith("OME-Zarr [")
    with pytest.raises(DataError, match="LED positions"):
        load(path, optics=REST)


def test_five_dimensions_and_a_channel_by_name_or_number(tmp_path: Path) -> None:
    array = COUNTS.reshape(3, 2, 1, 8, 11)
    path = store(tmp_path / "a.zarr", array, "tczyx")
    for channel, index in (("blue", 1), (0, 0)):
        data = load(path, channel=channel, leds=LEDS[:3], optics=REST)
        np.testing.assert_array_equal(data.intensities, array[:, index, 0])
    with pytest.raises(OptionError, match="has 2 channels; choose one by name or number: red, blue"):
        load(path, leds=LEDS[:3], optics=REST)


def test_one_of_several_images_is_chosen_by_key(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "plate.zarr", mode="w")
    for name, values in (("A/1/0", COUNTS), ("A/2/0", COUNTS + 7)):
        store(tmp_path / "plate.zarr" / name, values)
    found = load(tmp_path / "plate.zarr", key="A/2/0", leds=LEDS, optics=REST)
    np.testing.assert_array_equal(found.intensities, COUNTS + 7)
    with pytest.raises(OptionError, match="holds 2 images; choose one by key: A/1/0, A/2/0"):
        load(tmp_path / "plate.zarr", leds=LEDS, optics=REST)
    with pytest.raises(OptionError, match="did you mean 'A/2/0'"):
        load(tmp_path / "plate.zarr", key="A/3/0", leds=LEDS, optics=REST)
    with pytest.raises(OptionError, match="no place in it"):
        load(tmp_path / "plate.zarr", key="../other", leds=LEDS, optics=REST)


@pytest.mark.parametrize("packing", [{"compressors": None}, {"shards": (1, 10, 11)}], ids=str)
def test_other_packings(packing: dict[str, Any], tmp_path: Path) -> None:
    path = store(tmp_path / "a.zarr", **packing)
    np.testing.assert_array_equal(load(path, leds=LEDS, optics=REST).intensities, COUNTS)


def changed(path: Path, change: Callable[[Any], object]) -> Path:
    """The same store after ``change`` was made to its array's metadata."""
    file = path / "0" / "zarr.json"
    about = json.loads(file.read_text())
    change(about)
    file.write_text(json.dumps(about))
    return path


def regrouped(path: Path, change: Callable[[Any], object]) -> Path:
    """The same store after ``change`` was made to its image's metadata."""
    file = path / "zarr.json"
    about = json.loads(file.read_text())
    change(about["attributes"]["ome"]["multiscales"][0])
    file.write_text(json.dumps(about))
    return path


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "outside": (lambda p: regrouped(p, lambda m: m["datasets"][0].update(path="../b.zarr/0")), "refused: its array"),
    "absolute": (lambda p: regrouped(p, lambda m: m["datasets"][0].update(path="/etc")), "refused: its array"),
    "elsewhere": (lambda p: regrouped(p, lambda m: m["datasets"][0].update(path="9")), "is missing"),
    "no datasets": (lambda p: regrouped(p, lambda m: m.update(datasets=[])), "not a complete OME-Zarr"),
    "odd axes": (lambda p: regrouped(p, lambda m: m["axes"].reverse()), "are not images"),
    "no axes": (lambda p: regrouped(p, lambda m: m.update(axes=3)), "not a complete OME-Zarr"),
    "no scale": (
        lambda p: regrouped(p, lambda m: m["datasets"][0].update(coordinateTransformations=[{"type": "scale"}])),
        "not a complete OME-Zarr",
    ),
    "objects": (lambda p: changed(p, lambda a: a.update(data_type="object")), "holds object, not numbers"),
    "named fields": (lambda p: changed(p, lambda a: a.update(data_type={"name": "structured"})), "not numbers"),
    "pickle": (lambda p: changed(p, lambda a: a.update(codecs=[{"name": "numcodecs.pickle"}])), "packed with"),
    "inner pickle": (
        lambda p: changed(
            p, lambda a: a.update(codecs=[{"name": "sharding_indexed", "configuration": {"codecs": ["pickle"]}}])
        ),
        "packed with pickle",
    ),
    "huge": (lambda p: changed(p, lambda a: a.update(shape=[6, 80000, 110000])), "refused: declares more than"),
    "larger than its files": (lambda p: changed(p, lambda a: a.update(shape=[6, 8000, 11000])), "and holds only"),
    "a link": (lambda p: (p / "0" / "c" / "link").symlink_to("/etc/hostname"), "is a link"),
    "a linked folder": (lambda p: (p / "more").symlink_to("/etc"), "is a link"),
    "damaged chunk": (lambda p: (p / "0" / "c" / "0" / "0" / "0").write_bytes(b"junk"), "damaged"),
    "damaged JSON": (lambda p: (p / "zarr.json").write_text("{"), "not valid JSON"),
    "deep JSON": (lambda p: (p / "zarr.json").write_text("[" * 100_000), "not valid JSON"),
    "no metadata": (lambda p: (p / "zarr.json").write_text("{}"), "holds no image"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_store_that_is_damaged_or_means_harm_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    path = store(tmp_path / "a.zarr")
    change, says = BROKEN[name]
    change(path)
    with pytest.raises(FpmError) as refused:
        load(path, leds=LEDS, optics={**REST, "camera_pixel_um": 3.45})
    assert isinstance(refused.value, DataError)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_old_store_whose_filters_would_unpickle_is_refused(tmp_path: Path) -> None:
    path = store(tmp_path / "a.zarr", version="0.4")
    file = path / "0" / ".zarray"
    about = json.loads(file.read_text())
    for change in ({"filters": [{"id": "pickle"}]}, {"compressor": {"id": "pickle"}}, {"dtype": "|O"}):
        file.write_text(json.dumps(about | change))
        with pytest.raises(DataError, match=r"packed with pickle|holds \|O"):
            load(path, leds=LEDS, optics=REST)


def test_a_chunk_that_unpacks_to_gigabytes_ends_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ome_zarr_reader.child, "OVERHEAD_BYTES", 1 << 29)
    path = store(tmp_path / "a.zarr", compressors=zarr.codecs.GzipCodec())
    bomb = gzip.compress(bytes(1 << 26), 9) * 60  # 4 GB in 4 MB
    (path / "0" / "c" / "0" / "0" / "0").write_bytes(bomb)
    with pytest.raises(DataError, match="damaged"):
        load(path, leds=LEDS, optics=REST)


def test_without_zarr_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store(tmp_path / "a.zarr")
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(DataError, match=r"pip install 'fpmtools\[zarr\]'"):
        load(path, leds=LEDS, optics=REST)
