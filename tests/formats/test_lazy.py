"""Images that stay in their files: what is asked for is read, no more, and in memory that tiles decide, not slides."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from fpmtools.errors import DataError, OptionError
from fpmtools.formats import load, native, preparing
from fpmtools.formats import pages as pages_
from fpmtools.formats.raw import RawImages
from fpmtools.images import Images

HOW: dict[str, Any] = {
    "optics": {"wavelength_um": 0.5, "na": 0.1, "magnification": 4, "camera_pixel_um": 4},
    "leds": {"rule": "raster", "ny": 1, "nx": 5, "pitch_mm": 4, "height_mm": 80},
}
SHAPE = (5, 45, 67)
Write = Callable[[Path, np.ndarray], Path]


def counts(dtype: str = "uint16", shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 250, shape).astype(dtype)


def a_folder(**how: Any) -> Write:
    def write(at: Path, images: np.ndarray) -> Path:
        at.mkdir()
        for i, image in enumerate(images):
            tifffile.imwrite(at / f"{i}.tif", image, **how)
        return at

    return write


def a_stack(**how: Any) -> Write:
    def write(at: Path, images: np.ndarray) -> Path:
        tifffile.imwrite(at.with_suffix(".tif"), images, photometric="minisblack", **how)
        return at.with_suffix(".tif")

    return write


def pngs(at: Path, images: np.ndarray) -> Path:
    at.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(at / f"{i}.png")
    return at


def npy(at: Path, images: np.ndarray) -> Path:
    np.save(at.with_suffix(".npy"), images)
    return at.with_suffix(".npy")


def npy_interleaved(at: Path, images: np.ndarray) -> Path:
    return npy(at, np.ascontiguousarray(np.moveaxis(images, 0, -1)))


def npy_turned(at: Path, images: np.ndarray) -> Path:
    return npy(at, np.asfortranarray(images))


WAYS = {
    "plain": a_folder(),
    "big-endian": a_folder(byteorder=">"),
    "strips": a_folder(rowsperstrip=7),
    "deflated": a_folder(compression="zlib", rowsperstrip=4),
    "predicted": a_folder(compression="zlib", predictor=True, rowsperstrip=16),
    "tiles": a_folder(tile=(16, 32)),
    "deflated tiles": a_folder(tile=(32, 16), compression="zlib"),
    "one file": a_stack(),
    "one deflated file": a_stack(compression="zlib", rowsperstrip=10),
    "png": pngs,
    "npy": npy,
    "interleaved npy": npy_interleaved,
    "turned npy": npy_turned,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_region_is_that_of_all(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = WAYS[way](tmp_path / "a", counts())
    region = load(path, roi=(9, 13, 20, 31), dark_level=10, **HOW)
    expected = np.maximum(counts()[:, 9:29, 13:44].astype(np.float32) - 10, 0)
    assert np.array_equal(region.images.read(), expected)
    monkeypatch.setattr(preparing, "KEPT_BYTES", 0)
    lazy = load(path, dark_level=10, **HOW)
    assert not isinstance(lazy.images.source, np.ndarray)
    assert np.array_equal(lazy.images.read(), np.maximum(counts().astype(np.float32) - 10, 0))
    assert np.array_equal(lazy.crop(9, 13, 20, 31).images.read(), expected)
    monkeypatch.setattr(preparing, "KEPT_BYTES", 1 << 28)
    kept = load(path, dark_level=10, **HOW)
    assert kept.digest == lazy.digest
    assert kept.provenance == lazy.provenance
    assert np.array_equal(kept.images.means, lazy.images.means)


@pytest.mark.parametrize("amplitudes", [None, True])
def test_dark_frames_saturation_and_amplitudes_are_the_same(
    amplitudes: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = counts("uint8")
    images[2, 3:9, 5:11] = 255
    path = a_folder()(tmp_path / "a", images)
    tifffile.imwrite(path / "dark.tif", np.random.default_rng(1).integers(0, 9, SHAPE[1:], dtype=np.uint8))
    kept = load(path, amplitudes=amplitudes, **HOW)
    monkeypatch.setattr(preparing, "KEPT_BYTES", 0)
    lazy = load(path, amplitudes=amplitudes, **HOW)
    assert np.array_equal(kept.images.read(), lazy.images.read())
    assert kept.provenance == lazy.provenance
    assert len(set(kept.images.read()[2, 3:9, 5:11].ravel())) == 1


def test_of_strips_only_those_of_the_region_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = a_folder(compression="zlib", rowsperstrip=8, predictor=False)(tmp_path / "a", counts())
    unpacked: list[tuple[int, ...]] = []
    inflate = pages_._inflated
    monkeypatch.setattr(
        pages_, "_inflated", lambda page, data, shape: (unpacked.append(shape), inflate(page, data, shape))[1]
    )
    images = pages_.PageImages(pages_.pages(path / "0.tif", pages_.Allowance()), None)
    unpacked.clear()
    assert np.array_equal(images[0, slice(17, 30), slice(3, 9)], counts()[0, 17:30, 3:9])
    assert unpacked == [(8, 67, 1), (6, 67, 1)], "rows 16 to 29 of 45"


def test_colour_that_begins_as_grey_is_told_of_when_it_is_read(tmp_path: Path) -> None:
    grey = np.repeat(counts("uint8")[..., None], 3, axis=-1)
    grey[3, 40, 60] = (1, 2, 3)
    path = a_folder(photometric="rgb")(tmp_path / "a", grey)
    assert np.array_equal(load(path, roi=(0, 0, 20, 20), **HOW).images.read(), counts("uint8")[:, :20, :20])
    with pytest.raises(OptionError, match=r"3\.tif: is in colour"):
        load(path, **HOW)


@pytest.mark.parametrize("way", ["plain", "deflated", "png", "npy"])
def test_a_file_that_changes_meanwhile_is_told_of(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "KEPT_BYTES", 0)
    path = WAYS[way](tmp_path / "a", counts())
    data = load(path, **HOW)
    file = path if path.is_file() else sorted(path.iterdir())[2]
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="has changed since it was opened"):
        data.images[2]
    file.unlink()
    with pytest.raises(DataError, match="cannot be read any more"):
        data.images[2]


def test_numbers_that_lie_as_they_are(tmp_path: Path) -> None:
    for dtype in (">u2", "<f4", "u1", ">f8"):
        values = counts("uint8").astype(dtype)
        (tmp_path / "raw").write_bytes(b"12345" + values.tobytes())
        images = RawImages.of(tmp_path / "raw", 5, SHAPE, np.dtype(dtype))
        assert np.array_equal(Images.of(images).crop(2, 5, 11, 8).stored(), values[:, 2:13, 5:13])
        assert images[1, slice(0, 3), slice(0, 3)].dtype.isnative
    turned = RawImages(images.stamp, images.offsets, (67, 45), images.dtype, turned=True)
    assert np.array_equal(turned[2, slice(4, 60), slice(1, 9)], values[2].T[4:60, 1:9])
    with pytest.raises(DataError, match="cut off: it has"):
        RawImages.of(tmp_path / "raw", 6, SHAPE, np.dtype(">f8"))


def sparse(path: Path, shape: tuple[int, int, int]) -> None:
    """A file of uint16 images [image, y, x] of which one corner holds light, and the rest no bytes on the disk."""
    if path.suffix == ".npy":
        array = np.lib.format.open_memmap(path, "w+", np.uint16, shape)
    else:
        array = tifffile.memmap(path, shape=shape, dtype=np.uint16, photometric="minisblack", bigtiff=True)
    array[:, 40:104, 60:124] = counts(shape=(shape[0], 64, 64))
    array.flush()
    assert os.stat(path).st_blocks * 512 < array.nbytes / 4


ROOMY = """
import json, resource, sys
import fpmtools
from fpmtools import calibrate
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
import torch, scipy.ndimage, scipy.fft  # what every solve needs
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
how = json.loads(sys.argv[2])
whole = fpmtools.load(sys.argv[1], **how)
found = fpmtools.inspect(whole)
tile = fpmtools.load(sys.argv[1], roi=(40, 60, 64, 64), **how)
result = fpmtools.reconstruct(tile, "ap", z_um=0, options={"sweeps": 1}, calibrate="none", progress=False)
rise = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
same = bool((whole.crop(40, 60, 64, 64).images.read() == tile.images.read()).all())
said = [finding.value for finding in found.findings if finding.name == "region"]
print(json.dumps({"rise_mb": rise / 1024, "said": said, "mean": float(tile.images.means[0]), "same": same}))
"""


@pytest.mark.parametrize("suffix", [".npy", ".tif"])
def test_memory_is_bounded_by_the_part_that_is_looked_at(suffix: str, tmp_path: Path) -> None:
    """0.5 GB in float32, inspected and a tile of it solved; in memory there is room for half of that."""
    path = tmp_path / f"a{suffix}"
    sparse(path, (5, 4000, 6000))
    done = subprocess.run(
        [sys.executable, "-c", ROOMY, str(path), json.dumps(HOW)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["rise_mb"] < 250
    assert found["same"]
    assert found["said"] == ["1024 × 1024 pixels at y 0, x 0"]
    assert found["mean"] == pytest.approx(counts(shape=(5, 64, 64))[0].mean())


def test_images_of_a_native_file_stay_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their bytes are checked all the same."""
    kept = load(npy(tmp_path / "a", counts("uint8").astype(np.float32)), **HOW)
    path = native.save(kept, tmp_path / "b.safetensors")
    monkeypatch.setattr(native, "KEPT_BYTES", 0)
    lazy = native.read(path)
    assert isinstance(lazy.images.source, RawImages)
    assert lazy.digest == kept.digest == native.read(native.save(lazy, tmp_path / "c.safetensors")).digest
    assert np.array_equal(load(path, roi=(3, 5, 9, 11)).images.read(), kept.images.read()[:, 3:12, 5:16])
    damaged = bytearray(path.read_bytes())
    damaged[-4000] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(DataError, match="its checksum does not match"):
        native.read(path)
