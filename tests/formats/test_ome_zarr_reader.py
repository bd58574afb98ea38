"""Measured images in OME-Zarr, as other people's libraries write it, and stores that are damaged or mean harm."""

from __future__ import annotations

import gzip
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr

from fpmtools import load
from fpmtools.errors import DataError, FpmError, OptionError
from fpmtools.formats import ome_zarr_reader, preparing, zarr_chunks
from fpmtools.formats.chunks import ChunkedImages

COUNTS = np.arange(6 * 8 * 11, dtype=np.uint16).reshape(6, 8, 11) + 100
LEDS = [[0.05 * k, 0.0] for k in range(6)]
REST = {"na": 0.1, "magnification": 4.0, "wavelength_um": 0.5}
UNITS = {"y": "micrometer", "x": "micrometer"}


def store(path: Path, images: np.ndarray = COUNTS, axes: str = "tyx", version: str = "0.5", **how: Any) -> Path:
    """An image as the specification says, with pixels of 0.8625 µm."""
    group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
    group.create_array("0", data=images, **{"chunks": (*[1] * (images.ndim - 2), 5, 11), **how})
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


CODECS = zarr.codecs
NEW = [
    {"compressors": None},
    {"compressors": CODECS.GzipCodec()},
    {"compressors": [CODECS.ZstdCodec(checksum=True), CODECS.Crc32cCodec()]},
    {"compressors": CODECS.BloscCodec(cname="lz4", shuffle="shuffle")},
    {"compressors": CODECS.BloscCodec(cname="zstd", shuffle="bitshuffle"), "chunks": (4, 8, 3)},
    {"serializer": CODECS.BytesCodec(endian="big"), "filters": [CODECS.TransposeCodec(order=(2, 0, 1))]},
    {"shards": (1, 10, 11)},
    {"shards": (4, 10, 12), "chunks": (2, 5, 4), "compressors": None},
    {"chunk_key_encoding": {"name": "default", "separator": "."}},
    {"chunk_key_encoding": {"name": "v2", "separator": "/"}},
]
OLD: list[dict[str, Any]] = [
    {"compressors": None, "order": "F", "chunks": (2, 3, 4)},
    {"compressors": numcodecs.Zlib()},
    {"compressors": numcodecs.LZ4()},
    {"compressors": numcodecs.Blosc(cname="zlib", shuffle=2), "chunk_key_encoding": {"name": "v2", "separator": "/"}},
    {"compressors": numcodecs.Zstd(checksum=True), "order": "F"},
]


@pytest.mark.parametrize("version", ["0.5", "0.4"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_packings(version: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of any packing, size and order are unpacked here, those alone that hold the region."""
    monkeypatch.setattr(preparing, "KEPT_BYTES", 0)
    monkeypatch.setattr(ome_zarr_reader, "_unpack", None)
    counts = (COUNTS % 251).astype(dtype)
    for k, how in enumerate(NEW if version == "0.5" else OLD):
        data = load(store(tmp_path / f"{k}.zarr", counts, version=version, **how), leds=LEDS, optics=REST)
        assert isinstance(data.images.source.counts.source if dtype == "f4" else data.images.source, ChunkedImages)
        np.testing.assert_array_equal(data.images.read(), counts)
        np.testing.assert_array_equal(data.select([5, 0]).images.crop(3, 2, 5, 8).stored(), counts[[5, 0], 3:, 2:10])


def test_a_region_reads_its_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = np.arange(6 * 40 * 55, dtype=np.uint16).reshape(6, 40, 55)
    path = store(tmp_path / "a.zarr", counts)
    read: list[str] = []
    read_at = zarr_chunks.read_at
    monkeypatch.setattr(zarr_chunks, "read_at", lambda *a: (read.append(str(a[3])), read_at(*a))[1])
    found = load(path, roi=(6, 23, 9, 10), leds=LEDS, optics=REST)
    np.testing.assert_array_equal(found.images.read(), counts[:, 6:15, 23:33])
    assert {Path(file).relative_to(path / "0" / "c").as_posix() for file in read} == {
        f"{i}/{y}/2" for i in range(6) for y in (1, 2)
    }


def test_chunks_that_are_not_there_hold_what_the_array_says(tmp_path: Path) -> None:
    for k, (version, fill) in enumerate((("0.5", 7), ("0.4", 9), ("0.4", 0))):
        path = store(tmp_path / f"{k}.zarr", version=version, fill_value=fill)
        array = zarr.open_array(path / "0", mode="r+")
        (path / "0" / ("c/3/0/0" if version == "0.5" else "3.0.0")).unlink()
        found = load(path, leds=LEDS, optics=REST)
        np.testing.assert_array_equal(found.intensities, array[:])
        assert (found.intensities[3, :5] == fill).all()


@pytest.mark.parametrize("change", ["written", "removed"])
def test_a_store_that_changes_meanwhile_is_told_of(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "KEPT_BYTES", 0)
    path = store(tmp_path / "a.zarr")
    data, chunk = load(path, leds=LEDS, optics=REST), path / "0" / "c" / "2" / "0" / "0"
    if change == "removed":
        chunk.unlink()
    for touched in (chunk.parent, chunk) if chunk.exists() else (chunk.parent,):
        os.utime(touched, (time.time() + 9, time.time() + 9))
    with pytest.raises(DataError, match="has changed since it was opened"):
        data.images[2]


def test_what_only_the_library_unpacks_is_read_by_the_child(tmp_path: Path) -> None:
    path = store(tmp_path / "a.zarr", shards=(2, 10, 11), chunks=(1, 5, 11))
    array = json.loads((path / "0" / "zarr.json").read_text())
    array["codecs"][0]["configuration"]["index_codecs"].append({"name": "gzip", "configuration": {"level": 5}})
    (path / "0" / "zarr.json").write_text(json.dumps(array))
    with pytest.raises(DataError, match="damaged"):  # its index is not packed so
        load(path, leds=LEDS, optics=REST)
    path = store(tmp_path / "b.zarr", COUNTS.astype("f4"))
    file = path / "0" / "zarr.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"fill_value": "0x7fc00000"}))
    assert zarr_chunks.of(ome_zarr_reader._screen(path), path / "0", json.loads(file.read_text())) is None
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
    "huge": (lambda p: changed(p, lambda a: a.update(shape=[6, 8_000_000, 1_100_000])), "refused: declares more than"),
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


def unstated(size: int) -> bytes:
    """A frame of Zstandard that does not say how large it is, of so many zeros in blocks of one byte."""
    blocks = [(1 << 17, False)] * (size >> 17) + [(size & (1 << 17) - 1, True)]
    return b"\x28\xb5\x2f\xfd\x00\x58" + b"".join(
        (n << 3 | 2 | last).to_bytes(3, "little") + b"\0" for n, last in blocks
    )


GIGA = 1 << 30
BOMBS: dict[str, tuple[Any, Callable[[], bytes]]] = {
    "gzip": (CODECS.GzipCodec(), lambda: gzip.compress(bytes(1 << 26), 9) * 60),  # 4 GB in 4 MB
    "zstd": (CODECS.ZstdCodec(), lambda: numcodecs.Zstd().encode(bytes(GIGA >> 2))),
    "zstd, unstated": (CODECS.ZstdCodec(), lambda: unstated(GIGA)),
    "blosc": (CODECS.BloscCodec(), lambda: numcodecs.Blosc().encode(bytes(GIGA >> 2))),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_chunk_that_unpacks_to_gigabytes_is_not_unpacked(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, bomb = BOMBS[kind]
    path = store(tmp_path / "a.zarr", compressors=codec)
    chunk = path / "0" / "c" / "0" / "0" / "0"
    chunk.write_bytes(bomb())
    for library in (numcodecs.zstd, numcodecs.blosc):
        usual = library.decompress
        monkeypatch.setattr(
            library,
            "decompress",
            lambda data, usual=usual: usual(data) if len(data) < 1000 else pytest.fail("unpacked"),
        )
    with pytest.raises(DataError, match="damaged"):
        load(path, leds=LEDS, optics=REST)


def test_a_frame_of_zstandard_need_not_say_how_large_it_is(tmp_path: Path) -> None:
    path = store(tmp_path / "a.zarr", compressors=CODECS.ZstdCodec())
    (path / "0" / "c" / "4" / "0" / "0").write_bytes(unstated(5 * 11 * 2))
    expected = COUNTS.copy()
    expected[4, :5] = 0
    np.testing.assert_array_equal(load(path, leds=LEDS, optics=REST).intensities, expected)


def test_without_zarr_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store(tmp_path / "a.zarr")
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(DataError, match=r"pip install 'fpmtools\[zarr\]'"):
        load(path, leds=LEDS, optics=REST)
