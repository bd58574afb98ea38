"""Images that stay in HDF5: chunks of any order, packing and size, and files that are damaged or mean harm."""

from __future__ import annotations

import os
import pickle
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from fpmtools.errors import DataError
from fpmtools.formats import chunks, load, matfile, preparing
from fpmtools.formats.chunks import ChunkedImages
from fpmtools.images import Images

SHAPE = (7, 45, 68)
HOW: dict[str, Any] = {
    "optics": {"wavelength_um": 0.5, "na": 0.1, "magnification": 4, "camera_pixel_um": 4},
    "leds": {"rule": "raster", "ny": 1, "nx": SHAPE[0], "pitch_mm": 4, "height_mm": 80},
}
BOXES = [(0, 0, 45, 68), (9, 13, 20, 31), (44, 67, 1, 1), (7, 0, 1, 68)]
PACKINGS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "chunks": {"chunks": (1, 20, 30)},
    "deep chunks": {"chunks": (3, 16, 16), "compression": "gzip"},
    "all filters": {"chunks": (2, 13, 70), "compression": "gzip", "shuffle": True, "fletcher32": True},
    "checked": {"chunks": (1, 45, 7), "fletcher32": True},
    "new": {"chunks": (7, 45, 68), "compression": 9, "maxshape": (None, None, None)},
}


def counts(dtype: str = "uint16", shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 250, shape).astype(dtype)


def written(path: Path, stored: np.ndarray, matlab: bool = False, name: str = "pictures", **packing: Any) -> Path:
    """An array of a file, in the order of axes in which it is stored."""
    size = packing.get("chunks")
    if size is not None:
        packing["chunks"] = tuple(min(c, n) for c, n in zip(size, stored.shape, strict=True))
    with h5py.File(path, "a", userblock_size=512 if matlab else 0) as file:
        item = file.create_dataset(name, data=stored, **packing)
        if matlab:
            item.attrs["MATLAB_class"] = np.bytes_({"u": "uint16", "f": "single", "i": "int32"}[stored.dtype.kind])
    return path


@pytest.mark.parametrize("order", ["led first", "led last", "matlab"])
def test_any_part_of_any_image(order: str, tmp_path: Path) -> None:
    axes = {"led first": (0, 1, 2), "led last": (1, 2, 0), "matlab": (0, 2, 1)}[order]
    kinds = (("<u2", SHAPE), (">f4", (5, 12, 9)), (">i4", (2, 3, 30)))
    for packing, how in PACKINGS.items():
        for dtype, shape in kinds:
            name = f"{packing}_{dtype[1:]}".replace(" ", "_")
            written(tmp_path / "a.h5", counts(dtype, shape).transpose(axes), order == "matlab", name, **how)
    mat = matfile.read(tmp_path / "a.h5", [])
    assert len(mat.stacks) == len(PACKINGS) * len(kinds)
    for name, source in mat.stacks.items():
        dtype, shape = next((d, s) for d, s in kinds if name.endswith(d[1:]))
        images = counts(dtype, shape)
        assert isinstance(source, ChunkedImages)
        assert mat.shapes[name] == source.shape
        last = order != "led first"
        np.testing.assert_array_equal(mat.array(name), images.transpose(1, 2, 0) if last else images)
        check_parts(source.transpose(2, 0, 1) if last else source, images)


def check_parts(source: ChunkedImages, images: np.ndarray) -> None:
    lazy, shape = Images.of(source), images.shape
    assert (lazy.shape, lazy.dtype) == (shape, images.dtype.newbyteorder("="))
    np.testing.assert_array_equal(lazy.stored(), images)
    some = lazy.select([shape[0] - 1, 0, shape[0] - 1])
    for y, x, h, w in BOXES if shape == SHAPE else [(1, 1, 2, 5)]:
        np.testing.assert_array_equal(some.crop(y, x, h, w).stored(), images[[-1, 0, -1], y : y + h, x : x + w])
    for i in np.random.default_rng(1).permutation(shape[0]):
        np.testing.assert_array_equal(source[int(i), slice(1, 3), slice(0, 9)], images[i, 1:3, :9])
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again[1, slice(0, 3), slice(2, 8)], images[1, :3, 2:8])


def test_images_that_share_chunks_are_read_in_parts_that_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many of the images that share chunks as there is room for are read at once, and kept for the next one."""
    path = written(tmp_path / "a.h5", counts().transpose(1, 2, 0), chunks=(9, 11, 5), compression="gzip")
    source = matfile.read(path, []).stacks["pictures"].transpose(2, 0, 1)
    unpacked: list[int] = []
    inflate = chunks.inflate
    monkeypatch.setitem(chunks.FILTERS, "deflate", lambda *a: (unpacked.append(1), inflate(*a))[1])
    every = 5 * 7  # chunks of an image
    for room, times in ((1 << 27, 2), (2 * 45 * 68 * 2, 4), (1, 7)):
        monkeypatch.setattr(chunks, "AHEAD_BYTES", room)
        unpacked.clear()
        np.testing.assert_array_equal(Images.of(source).stored(), counts())
        assert len(unpacked) == times * every
        source[6, slice(0, 45), slice(0, 68)][:] = 0  # is the caller's own
        np.testing.assert_array_equal(source[6, slice(0, 45), slice(0, 68)], counts()[6])


@pytest.mark.parametrize("packing", ["as it is", "deflated"])
def test_a_region_reads_its_part_of_the_file(packing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = counts(shape=(5, 400, 600))
    how = {"chunks": (1, 50, 50), "compression": "gzip"} if packing == "deflated" else {}
    path = written(tmp_path / "a.h5", images, **how)
    read: list[int] = []
    read_at = chunks.read_at
    monkeypatch.setattr(chunks, "read_at", lambda *a: (read.append(a[2]), read_at(*a))[1])
    monkeypatch.setattr(chunks, "SLAB_BYTES", 1 << 14)
    where = {**HOW, "leds": [(0.01 * i, 0) for i in range(5)]}
    source = matfile.read(path, []).stacks["pictures"]
    np.testing.assert_array_equal(source[3, slice(100, 150), slice(200, 240)], images[3, 100:150, 200:240])
    assert sum(read) < images[3].nbytes / 5
    read.clear()
    found = load(path, roi=(60, 110, 32, 40), **where)
    np.testing.assert_array_equal(found.images.read(), images[:, 60:92, 110:150])
    assert sum(read) < images.nbytes / 3
    if packing == "deflated":
        assert len(read) == 5


def test_a_data_set_is_the_same_in_the_file_and_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.mat", counts().transpose(0, 2, 1), True, **PACKINGS["all filters"])
    kept = load(path, dark_level=10, **HOW)
    monkeypatch.setattr(preparing, "KEPT_BYTES", 0)
    lazy = load(path, dark_level=10, **HOW)
    assert not isinstance(lazy.images.source, np.ndarray)
    assert kept.digest == lazy.digest
    assert kept.provenance == lazy.provenance
    np.testing.assert_array_equal(lazy.crop(9, 13, 20, 31).images.read(), kept.images.read()[:, 9:29, 13:44])
    np.testing.assert_array_equal(load(path, dark_level=10, roi=(9, 13, 20, 31), **HOW).images.read(),
                                  kept.images.read()[:, 9:29, 13:44])  # fmt: skip


def test_chunks_that_are_not_there_hold_what_the_file_says(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        item = file.create_dataset("pictures", SHAPE, "f4", chunks=(1, 20, 30), fillvalue=7.5)
        item[2, :10, :10] = 1
        expected = item[()]
    np.testing.assert_array_equal(Images.of(matfile.read(tmp_path / "a.h5", []).stacks["pictures"]).stored(), expected)


@pytest.mark.parametrize("how", [{"scaleoffset": 0}, {"dtype": "c8"}, {"dtype": "?"}])
def test_what_only_the_library_unpacks_is_read_by_the_child(how: dict[str, Any], tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        item = file.create_dataset("pictures", SHAPE, **{"dtype": "u2", "chunks": (1, 20, 30), **how})
        item[:] = counts().astype(item.dtype)
        expected = item[()]
    mat = matfile.read(tmp_path / "a.h5", ["pictures"])
    assert not mat.stacks
    np.testing.assert_array_equal(mat.array("pictures"), expected)


def test_a_filter_that_a_chunk_left_out(tmp_path: Path) -> None:
    path = written(tmp_path / "a.h5", counts(), chunks=(1, 45, 68), compression="gzip", shuffle=True)
    with h5py.File(path, "a") as file:
        shuffled = counts()[4].view(np.uint8).reshape(-1, 2).T.tobytes()
        file["pictures"].id.write_direct_chunk((4, 0, 0), shuffled, filter_mask=2)  # not deflated
        file["pictures"].id.write_direct_chunk((5, 0, 0), counts()[5].tobytes(), filter_mask=3)
    np.testing.assert_array_equal(Images.of(matfile.read(path, []).stacks["pictures"]).stored(), counts())


def bomb(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["pictures"].id.write_direct_chunk((3, 0, 0), zlib.compress(bytes(1 << 26), 9))


def short(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["pictures"].id.write_direct_chunk((3, 0, 0), zlib.compress(bytes(100)))


def junk(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["pictures"].id.write_direct_chunk((3, 0, 0), b"junk")


def flipped(path: Path) -> None:
    """A byte is another, and only its checksum tells."""
    with h5py.File(path) as file:
        at = file["pictures"].id.get_chunk_info_by_coord((3, 0, 0)).byte_offset
    content = bytearray(path.read_bytes())
    content[at + 2000] ^= 16
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [bomb, short, junk, flipped])
def test_a_chunk_that_is_damaged_or_means_harm_is_one_line(harm: Any, tmp_path: Path) -> None:
    packing = {"fletcher32": True} if harm is flipped else {"compression": "gzip"}
    path = written(tmp_path / "a.h5", counts(), chunks=(1, 45, 68), **packing)
    harm(path)
    with pytest.raises(DataError, match=r"a\.h5: damaged") as caught:
        load(path, **HOW)
    assert "\n" not in str(caught.value)


def test_a_file_that_changes_meanwhile_is_told_of(tmp_path: Path) -> None:
    path = written(tmp_path / "a.h5", counts())
    source = matfile.read(path, []).stacks["pictures"]
    about = path.stat()
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns + 1_000_000))
    with pytest.raises(DataError, match="has changed since it was opened"):
        source[0, slice(0, 2), slice(0, 2)]


@pytest.mark.parametrize("shape", [(2, 1 << 20, 1 << 20), (1 << 30, 2, 2), (2, 2, 1 << 40)])
def test_absurd_shapes_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("pictures", shape, "u2", chunks=(1, 2, 2))[0, 0, 0] = 1
    with pytest.raises(DataError, match=r"a\.h5: refused: /pictures declares .* GB but stores 8 bytes"):
        load(tmp_path / "a.h5", **HOW)
