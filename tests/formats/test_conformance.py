"""The formats of fpmtools keep the promises that anyone's must; and the tests of the promises can fail."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from fpmtools.errors import OutputError
from fpmtools.formats import writing
from fpmtools.records import WriterRecord
from fpmtools.registry import Supplied
from fpmtools.testing.formats import EVEN, ReaderConformance, WriterConformance


class TestNpy(WriterConformance):
    writer = "npy"

    def read(self, path: Path) -> NDArray[Any]:
        found = np.load(path)
        return found if found.ndim == 3 else found[None]


class TestNpz(WriterConformance):
    writer = "npz"

    def read(self, path: Path) -> NDArray[Any]:
        with np.load(path) as found:
            return np.asarray(found["field"])


def pages(path: Path) -> NDArray[Any]:
    """A TIFF's pages by Pillow, three channels to a plane."""
    with Image.open(path) as file:
        found = np.stack([np.asarray(page) for page in ImageSequence.Iterator(file)])
    return found.reshape(-1, 3, *found.shape[1:])


class TestImageJ(WriterConformance):
    writer = "imagej"

    def read(self, path: Path) -> NDArray[Any]:
        return pages(path)


class TestOmeTiff(WriterConformance):
    writer = "ome-tiff"

    def read(self, path: Path) -> NDArray[Any]:
        return pages(path)


class TestOmeZarr(WriterConformance):
    writer = "ome-zarr"

    def read(self, path: Path) -> NDArray[Any]:
        return np.moveaxis(np.asarray(zarr.open_array(path / "0", mode="r")[:]), 0, 1)


class TestOmeZarr04(TestOmeZarr):
    writer = "ome-zarr-0.4"


class TestPng(WriterConformance):
    writer = "png"

    def read(self, path: Path) -> None:
        with Image.open(path) as image:
            image.load()


class TestGif(TestPng):
    writer = "gif"


class TestArrays(ReaderConformance):
    reader = "array"

    def make(self, folder: Path, images: NDArray[np.uint16]) -> Path:
        np.save(folder / "a.npy", images)
        return folder / "a.npy"


class TestImages(ReaderConformance):
    reader = "images"

    def make(self, folder: Path, images: NDArray[np.uint16]) -> Path:
        tifffile.imwrite(folder / "a.tif", images, photometric="minisblack", metadata=None)
        return folder / "a.tif"


class TestReadOmeTiff(ReaderConformance):
    reader = "ome-tiff"

    def make(self, folder: Path, images: NDArray[np.uint16]) -> Path:
        tifffile.imwrite(folder / "a.ome.tif", images, ome=True, photometric="minisblack", metadata={"axes": "TYX"})
        return folder / "a.ome.tif"


class TestReadOmeZarr(ReaderConformance):
    reader = "ome-zarr"

    def make(self, folder: Path, images: NDArray[np.uint16]) -> Path:
        group = zarr.open_group(folder / "a.zarr", mode="w")
        group.create_array("0", data=images, chunks=(1, *images.shape[1:]))
        steps = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
        image = {
            "axes": [{"name": name} for name in "tyx"],
            "datasets": [{"path": "0", "coordinateTransformations": steps}],
        }
        group.attrs.put({"ome": {"version": "0.5", "multiscales": [image]}})
        return folder / "a.zarr"


# ---------------------------------------------------------------- writers that break their promises


def turned(path: Path, volume: Any) -> None:
    np.save(path, np.stack([plane[::-1] for plane in volume.planes()]))


def all_at_once(path: Path, volume: Any) -> None:
    np.save(path, np.stack(list(volume.planes())))


def nothing(path: Path, volume: Any) -> None:
    next(volume.planes())


def nowhere_else(path: Path, volume: Any) -> None:
    all_at_once(path, volume)
    (path.parent.parent.parent / "index.json").write_text(volume.name)


class Broken(TestNpy):
    """A writer that is not installed."""

    def __init__(self, function: str) -> None:
        record = WriterRecord(name="broken", summary="x", write=f"{__name__}:{function}", holds="complex")
        self.given = Supplied(dataclasses.replace(record, suffixes=(".npy",)), "fpmtools", "0", "x")

    def supplied(self) -> writing.Writer:
        return self.given


BROKEN = {
    "turned": ("test_what_was_written_is_there", {"z_um": EVEN, "shape": (30, 43)}),
    "all_at_once": ("test_planes_are_taken_one_at_a_time", {}),
    "nothing": ("test_what_fails_leaves_nothing_and_what_was_there_stays", {}),
    "nowhere_else": ("test_a_name_is_only_text", {}),
}


@pytest.mark.parametrize("function", BROKEN)
def test_a_broken_promise_is_noticed(function: str, tmp_path: Path) -> None:
    promise, how = BROKEN[function]
    with pytest.raises((AssertionError, OutputError)):
        getattr(Broken(function), promise)(**how, tmp_path=tmp_path)
