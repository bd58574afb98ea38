"""What a pass has told is kept for the next time, and never for other data than it was told of."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from fpmtools import passes, storage
from fpmtools.dataset import Dataset
from fpmtools.formats import chunks, load, pages, preparing, raw, zarr_chunks

SHAPE = (5, 45, 67)
HOW: dict[str, Any] = {
    "optics": {"wavelength_um": 0.5, "na": 0.1, "magnification": 4, "camera_pixel_um": 4},
    "leds": [[0.01 * i, 0] for i in range(5)],
}


def counts(seed: int = 0) -> np.ndarray:
    """With a saturated patch and a hot pixel."""
    images = np.random.default_rng(seed).integers(1, 200, SHAPE).astype(np.uint8)
    images[3, 2:7, 5:11] = 255
    images[:, 30, 40] = 250
    return images


def folder(at: Path, images: np.ndarray, **how: Any) -> Path:
    at.mkdir(exist_ok=True)
    for i, image in enumerate(images):
        tifffile.imwrite(at / f"{i}.tif", image, **how)
    return at


def npy(at: Path, images: np.ndarray) -> Path:
    np.save(at.with_suffix(".npy"), images)
    return at.with_suffix(".npy")


def hdf5(at: Path, images: np.ndarray) -> Path:
    with h5py.File(at.with_suffix(".h5"), "w") as file:
        file.create_dataset("pictures", data=images, chunks=(1, 20, 30), compression="gzip")
    return at.with_suffix(".h5")


def ome_zarr(at: Path, images: np.ndarray) -> Path:
    group = zarr.open_group(at.with_suffix(".zarr"), mode="w")
    group.create_array("0", data=images, chunks=(1, 20, 30))
    image = {"axes": ["t", "y", "x"], "datasets": [{"path": "0", "coordinateTransformations": []}]}
    group.attrs.put({"ome": {"version": "0.5", "multiscales": [image]}})
    return at.with_suffix(".zarr")


WAYS: dict[str, Callable[..., Path]] = {"tiff": folder, "npy": npy, "hdf5": hdf5, "zarr": ome_zarr}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of what is kept, of however small images; all stay in their files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(passes, "LEAST_BYTES", 0)
    monkeypatch.setattr(preparing, "KEPT_BYTES", 0)
    found = storage.cache_dir()
    assert found == tmp_path / "cache" / "fpmtools"
    return found / "passes"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A word for every time that pixels are read from a file."""
    found: list[str] = []

    def count(module: Any, name: str) -> None:
        usual = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a: (found.append(name), usual(*a))[1])

    count(raw.RawImages, "_lines")
    count(chunks, "read_at")
    count(zarr_chunks, "read_at")
    count(pages, "_unpacked")
    return found


def aged(path: Path, seconds: float = 100.0) -> Path:
    """It, with all that is in it, was changed so long ago."""
    for file in (path, *path.rglob("*")):
        os.utime(file, (time.time() - seconds, time.time() - seconds))
    return path


def known(data: Dataset) -> tuple[Any, ...]:
    """All that passes tell."""
    values, bad = data.images.values, data.images.bad
    arrays = (values.means, values.below, values.largest, bad.saturated, bad.hot, bad.dead)
    return data.digest, bad.top, data.provenance.get("warnings"), *(array.tobytes() for array in arrays)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"dark_level": 3.0},
        {"amplitudes": True, "roi": (1, 2, 40, 50)},
        {"dark": np.arange(67.0) / 30 + np.zeros((45, 1))},
    ],
    ids=["plain", "level", "amplitudes", "frame"],
)
@pytest.mark.parametrize("way", WAYS)
def test_a_pass_is_done_once(way: str, how: dict[str, Any], cache: Path, reads: list[str], tmp_path: Path) -> None:
    path = aged(WAYS[way](tmp_path / "a", counts()))
    first = known(load(path, **HOW, **how))
    assert first[1] > 200, "there are saturated pixels"
    reads.clear()
    again = load(path, **HOW, **how)
    assert known(again) == first
    assert not reads
    again.images[0]
    assert reads


@pytest.mark.parametrize("way", WAYS)
def test_files_that_have_changed_are_read_again(way: str, cache: Path, tmp_path: Path) -> None:
    """Also where their sizes are the same."""
    path = aged(WAYS[way](tmp_path / "a", counts()))
    first = known(load(path, **HOW))
    aged(WAYS[way](tmp_path / "a", counts(1)), 50)
    second = known(load(path, **HOW))
    assert first[0] != second[0]
    assert first[3] != second[3]
    kept = sorted(cache.iterdir())
    assert known(load(aged(path, 50.0), **HOW)) == second
    assert len(kept) >= 6


def test_what_has_just_changed_is_not_kept(cache: Path, tmp_path: Path) -> None:
    """It may change again, and look the same."""
    known(load(npy(tmp_path / "a", counts()), **HOW))
    assert not cache.exists()


def test_other_parts_and_microscopes_have_their_own(cache: Path, tmp_path: Path) -> None:
    path = aged(npy(tmp_path / "a", counts()))
    data = load(path, **HOW)
    several = [
        data,
        data.crop(0, 0, 40, 60),
        data.crop(1, 0, 40, 60),
        data.select([1, 0, 2, 3, 4]),
        data.with_optics(na=0.11),
    ]
    assert len({one.digest for one in several}) == len(several)
    for one in several:
        fresh = one.with_images(one.images.stored())
        assert (one.digest, one.images.values.means.tolist()) == (fresh.digest, fresh.images.values.means.tolist())


def test_a_shortcut_that_is_damaged_or_cannot_be_written_changes_nothing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = aged(npy(tmp_path / "a", counts()))
    first = known(load(path, **HOW))
    for file in cache.iterdir():
        content = bytearray(file.read_bytes())
        content[-3] ^= 1
        file.write_bytes(content)
    assert known(load(path, **HOW)) == first
    for file in cache.iterdir():
        file.write_bytes(b"")
    assert known(load(path, **HOW)) == first
    assert all(file.stat().st_size for file in cache.iterdir()), "they are written again"
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert known(load(path, **HOW)) == first


def test_other_versions_forget(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = aged(npy(tmp_path / "a", counts()))
    first = known(load(path, **HOW))
    before = len(list(cache.iterdir()))
    monkeypatch.setattr(passes, "VERSION", passes.VERSION + 1)
    assert known(load(path, **HOW)) == first
    assert len(list(cache.iterdir())) == 2 * before


def test_only_the_newest_stay(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "MOST", 4)
    for k in range(4):
        known(load(aged(npy(tmp_path / f"{k}", counts(k))), **HOW))
        assert len(list(cache.iterdir())) <= 4


def test_images_in_memory_and_small_ones_leave_nothing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = aged(npy(tmp_path / "a", counts()))
    monkeypatch.setattr(passes, "LEAST_BYTES", 1 << 27)
    known(load(path, **HOW))
    monkeypatch.setattr(passes, "LEAST_BYTES", 0)
    monkeypatch.setattr(preparing, "KEPT_BYTES", 1 << 28)
    known(load(path, **HOW))
    assert not cache.exists()
