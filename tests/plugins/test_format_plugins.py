"""Formats from other distributions: usable like the built-in ones, and harmless when they are broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fpmtools import Grid, PlaneStack, export, load, registry
from fpmtools.cli import main
from fpmtools.errors import DataError, FpmError, OptionError, OutputError

SOURCE = """
import numpy as np
from fpmtools import ReaderRecord, Recording, WriterRecord, hookimpl

@hookimpl
def fpmtools_writers():
    return [WriterRecord(name={writer!r}, summary='For a test', write={module!r} + ':write', suffixes=[{suffix!r}])]

@hookimpl
def fpmtools_readers():
    return [ReaderRecord(name={reader!r}, summary='For a test', read={module!r} + ':read', suffixes=[{suffix!r}])]

def write(path, volume):
    {write}

def read(path, wanted):
    {read}
"""
WRITE = "path.write_text(' '.join(f'{abs(plane).sum():.3f}' for plane in volume.planes())); return ['sums only']"
READ = "return Recording('mine', np.fromfile(path, np.uint16).reshape(4, 8, 11), None, {'na': 0.1})"
COUNTS = np.arange(4 * 8 * 11, dtype=np.uint16).reshape(4, 8, 11) + 100
HOW: dict[str, Any] = {
    "leds": [[0.05 * k, 0.0] for k in range(4)],
    "optics": {"magnification": 4.0, "camera_pixel_um": 3.45, "wavelength_um": 0.5},
}


def source(module: str, **other: str) -> str:
    given = {"writer": "sums", "reader": "mine", "suffix": ".mine", "write": WRITE, "read": READ, "module": module}
    return SOURCE.format(**(given | other))


@pytest.fixture
def result() -> PlaneStack:
    return PlaneStack(np.ones((2, 4, 6), np.complex64), (0.0, 1.0), Grid((4, 6), (1.0, 1.5), (0.0, 1.0)))


def test_a_third_partys_formats_are_used_like_any(
    plugin: Callable[..., Path], result: PlaneStack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin("mine", source("mine"))
    assert export(result, tmp_path / "a.MINE", z_um=(0, 1)) == ["sums only"]
    assert (tmp_path / "a.MINE").read_text() == "24.000 24.000"
    COUNTS.tofile(tmp_path / "b.mine")
    data = load(tmp_path / "b.mine", **HOW)
    np.testing.assert_array_equal(data.intensities, COUNTS)
    assert (data.name, data.optics.na) == ("mine", 0.1)
    COUNTS.tofile(tmp_path / "b.raw")
    np.testing.assert_array_equal(load(tmp_path / "b.raw", format="mine", **HOW).intensities, COUNTS)
    with pytest.raises(OptionError, match="leave out the key"):
        load(tmp_path / "b.mine", key="x", **HOW)
    assert registry.faults() == []
    result.save(tmp_path / "result.safetensors")
    words = ["render", str(tmp_path / "result.safetensors"), "--z", "1", "--out", str(tmp_path / "c.mine")]
    assert main(words) == 0
    assert "note: sums only" in capsys.readouterr().out
    assert main(["formats", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    for what, name in (("readers", "mine"), ("writers", "sums")):
        (found,) = (entry for entry in listed[what] if entry["name"] == name)
        assert found == {"name": name, "summary": "For a test", "suffixes": [".mine"], "from": "mine 1.0"}
        assert {"ome-tiff", "ome-zarr"} <= {entry["name"] for entry in listed[what]}
    assert main(["formats"]) == 0
    assert "by its content" in capsys.readouterr().out


def test_own_formats_never_look_into_other_packages(
    plugin: Callable[..., Path], result: PlaneStack, tmp_path: Path
) -> None:
    folder = plugin("mine", source("mine"))
    export(result, tmp_path / "a.npy", z_um=0)
    np.save(tmp_path / "b.npy", COUNTS)
    load(tmp_path / "b.npy", **{**HOW, "optics": {**HOW["optics"], "na": 0.1}})
    assert not (folder / "imported").exists()


@pytest.mark.parametrize(
    ("write", "says"),
    [
        ("1 / 0", "writer 'sums' of bad 1.0: ZeroDivisionError"),
        ("raise SystemExit('bye')", "SystemExit: bye"),
        ("pass", "nothing was written"),
        ("path.write_text('x'); raise ValueError('a\\nb')", "ValueError: a b"),
    ],
)
def test_a_broken_writer_is_named_and_leaves_nothing(
    write: str, says: str, plugin: Callable[..., Path], result: PlaneStack, tmp_path: Path
) -> None:
    plugin("bad", source("bad", write=write))
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match=says):
        export(result, tmp_path / "out" / "a.mine", z_um=0)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("read", "says"),
    [
        ("1 / 0", "reader 'mine' of bad 1.0: ZeroDivisionError"),
        ("return np.ones((4, 8, 11))", "gave a ndarray, not a Recording"),
        ("open(path + 'x')", "reader 'mine' of bad 1.0: TypeError"),
        ("open(str(path) + 'x')", "cannot be read"),
    ],
)
def test_a_broken_reader_is_named(read: str, says: str, plugin: Callable[..., Path], tmp_path: Path) -> None:
    plugin("bad", source("bad", read=read))
    COUNTS.tofile(tmp_path / "b.mine")
    with pytest.raises(DataError, match=says):
        load(tmp_path / "b.mine", **HOW)


def test_taken_names_and_suffixes_stay_with_their_owners(
    plugin: Callable[..., Path], result: PlaneStack, tmp_path: Path
) -> None:
    plugin("thief", source("thief", writer="npy", reader="images", suffix=".npz"))
    export(result, tmp_path / "a.npz", z_um=0)
    with np.load(tmp_path / "a.npz") as found:
        assert found["field"].shape == (1, 4, 6)
    assert [str(fault) for fault in registry.faults()] == [
        "plugin 'thief' of thief: reader 'images' is already supplied by fpmtools; this one is left out",
        "plugin 'thief' of thief: writer 'npy' is already supplied by fpmtools; this one is left out",
    ]


def test_a_missing_function_is_named(plugin: Callable[..., Path], result: PlaneStack, tmp_path: Path) -> None:
    plugin("bad", source("bad").replace("def write(", "def other("))
    with pytest.raises(FpmError, match="cannot import bad:write"):
        export(result, tmp_path / "a.mine", z_um=0)
