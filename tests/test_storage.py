"""Arrays that may lie on disk, and files written without a second copy of them."""

from __future__ import annotations

import json
import mmap
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fpmtools
from fpmtools import planes, storage
from fpmtools.errors import OutputError
from fpmtools.simulation import simulate


def base(array):
    while isinstance(array, np.ndarray):
        array = array.base
    return array


def test_a_large_scratch_array_lies_in_a_file_and_keeps_what_was_written(monkeypatch):
    monkeypatch.setattr(storage, "SCRATCH_BYTES", 100)
    small, large = storage.scratch((2, 3), np.complex64), storage.scratch((3, 5, 7), np.complex64)
    assert base(small) is None
    assert isinstance(base(large), mmap.mmap)
    assert not large.any()
    values = np.arange(105).reshape(3, 5, 7) * (1 + 2j)
    large[:] = values
    storage.release(large)
    storage.release(small)
    assert np.array_equal(large, values)
    for part, value in zip(storage.slices(large), values, strict=True):
        assert np.array_equal(part, value)


def test_a_disk_without_room_leaves_the_array_in_memory(monkeypatch):
    monkeypatch.setattr(storage, "SCRATCH_BYTES", 100)
    huge = storage.scratch((1 << 12,), np.uint8)
    assert isinstance(base(huge), mmap.mmap)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, "posix_fallocate", full)
    assert base(storage.scratch((1 << 12,), np.uint8)) is None


@pytest.mark.parametrize(("solver", "exact"), [("ap", True), ("adam", True), ("ap", False)])
def test_stacks_on_disk_are_the_same_stacks(solver, exact, monkeypatch, tmp_path):
    data = simulate("tilted", image_shape=(24, 30), tilt_um=3)
    arguments = {"z_um": [-3.0, -1.0, 0.0, 2.0, 3.0], "options": {"sweeps": 3}, "exact": exact}
    monkeypatch.setattr(planes, "BLOCK_SAMPLES", 2 * 40 * 50)
    expected = fpmtools.reconstruct(data, solver, **arguments)
    monkeypatch.setattr(storage, "SCRATCH_BYTES", 0)
    found = fpmtools.reconstruct(data, solver, **arguments)
    assert not exact or isinstance(base(found.planes), mmap.mmap)
    loaded = fpmtools.open_result(found.save(tmp_path / "found.safetensors"))
    for z in arguments["z_um"]:
        assert np.array_equal(expected.field(z), found.field(z))
        assert np.array_equal(expected.field(z), loaded.field(z))


def test_files_are_what_the_safetensors_library_reads(tmp_path):
    from safetensors.numpy import load_file

    rng = np.random.default_rng(3)
    tensors = {
        "fields": (rng.normal(size=(3, 4, 5)) + 1j * rng.normal(size=(3, 4, 5))).astype(np.complex64),
        "bits": rng.integers(-128, 127, (7, 3)).astype(np.int8),
        "flags": np.array([True, False, True]),
        "turned": rng.normal(size=(4, 6)).T,
        "none": np.empty((0, 3), np.float32),
        "one": np.float64(2.5).reshape(()),
    }
    path = storage.write_tensors(tmp_path / "a.safetensors", tensors, "test", {"note": "µm"})
    read = load_file(path)
    assert set(read) == set(tensors)
    for name, value in tensors.items():
        assert read[name].dtype == value.dtype
        assert np.array_equal(read[name], value)
    double = {"spectra": rng.normal(size=(2, 3)) + 1j * rng.normal(size=(2, 3))}
    again, header = storage.read_tensors(storage.write_tensors(path, double, "test", {"note": "µm"}), "test")
    assert np.array_equal(again["spectra"], double["spectra"])
    assert header == {"note": "µm"}


@pytest.mark.parametrize("open_map", [np.load, lambda path, mmap_mode: np.memmap(path, np.float32, mmap_mode)])
def test_saving_a_copy_on_write_memory_map_keeps_its_changes(open_map, tmp_path):
    np.save(tmp_path / "a.npy", np.ones((64, 128), np.float32))
    array = open_map(tmp_path / "a.npy", mmap_mode="c")
    array[...] = 7
    for _ in range(2):
        path = storage.write_tensors(tmp_path / "a.safetensors", {"a": array}, "test", {})
        assert (storage.read_tensors(path, "test")[0]["a"] == 7).all()
    list(storage.slices(array))
    assert (array == 7).all()


@pytest.mark.parametrize("value", [np.complex128(1 + 2j), np.arange(6, dtype=">u2"), np.arange(4, dtype=">c16")])
def test_every_number_comes_back_whatever_its_shape_and_byte_order(value, tmp_path):
    path = storage.write_tensors(tmp_path / "a.safetensors", {"a": np.asarray(value)}, "test", {})
    again = storage.read_tensors(path, "test")[0]["a"]
    assert again.shape == np.shape(value)
    assert np.array_equal(again, value)


def test_a_path_that_is_not_utf8_is_written_as_strict_json(tmp_path):
    name = os.fsdecode(b"m\xfcsli \xe2\x82\xac.mat")
    path = storage.write_json(tmp_path / "a.json", {"source": name, name: float("inf")})
    text = path.read_bytes().decode("utf-8")
    assert json.loads(text) == {"source": name, name: None}
    assert "\\udcfc" in text


WRITER = """
import sys, time
from fpmtools import storage
def write(file):
    file.write(b"half")
    print("writing", flush=True)
    time.sleep(60)
storage.write_atomic(sys.argv[1], write)
"""


def test_what_a_killed_writer_left_is_swept_and_a_living_one_is_not(tmp_path):
    target = tmp_path / f"run{'n' * 200}.json"
    others = [tmp_path / ".hidden.part", tmp_path / "download.abcdefgh.part", tmp_path / ".notes.abcdefgh.parts"]
    for other in others:
        other.write_text("another's")
    command = [sys.executable, "-c", WRITER, str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        assert storage.sweep(tmp_path) == []
        writer.kill()
    (left,) = set(tmp_path.iterdir()) - set(others)
    assert storage.sweep(tmp_path) == [left]
    assert set(tmp_path.iterdir()) == set(others)
    assert storage.sweep(tmp_path / "absent") == []


def test_a_folder_or_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "inner").mkdir(parents=True)
        (folder / "inner" / "new").write_text("new")

    def fail(folder: Path) -> None:
        fill(folder)
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        storage.place(tmp_path / "a", fail)
    assert list(tmp_path.iterdir()) == []
    for old in ("folder", "file", "nothing"):
        if old == "folder":
            (tmp_path / "a").mkdir()
            (tmp_path / "a" / "old").write_text("old")
        elif old == "file":
            (tmp_path / "a").write_text("old")
        storage.place(tmp_path / "a", fill)
        assert [path.name for path in tmp_path.rglob("*")] == ["a", "inner", "new"]
        with pytest.raises(ValueError, match="in the middle"):
            storage.place(tmp_path / "a", fail)
        assert [path.name for path in tmp_path.rglob("*")] == ["a", "inner", "new"]
        shutil.rmtree(tmp_path / "a")
    storage.place(tmp_path / "file", lambda path: path.write_text("new"))
    with pytest.raises(OutputError, match="nothing was written"):
        storage.place(tmp_path / "file", lambda path: None)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "new")]
    with pytest.raises(OutputError, match="cannot write"):
        storage.place(tmp_path / "file" / "a", fill)


def test_ctrl_c_between_two_renames_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is moved away before the new one takes its place: whoever interrupts just then has one of them."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").write_text("old")
    rename = os.rename

    def interrupted(old: str, new: str) -> None:
        rename(old, new)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        storage.place(tmp_path / "a", lambda folder: folder.mkdir() or (folder / "new").write_text("new"))
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "new"]
