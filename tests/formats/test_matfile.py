"""Reading .mat files: what is in them comes back; what is wrong or hostile in them becomes one line."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from fpmtools.errors import DataError, OutputError
from fpmtools.formats import matfile

Write = Callable[..., Path]
IMAGES = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)


@pytest.mark.parametrize("version", ["write_v5", "write_v73"])
def test_arrays_and_numbers_come_back(version: str, request: pytest.FixtureRequest) -> None:
    write: Write = request.getfixturevalue(version)
    pupil = np.array([[1 + 2j, 3], [4, 5 - 1j], [0, 1j]])
    mat = matfile.read(
        write("a.mat", {"I": IMAGES, "pupil": pupil, "mag": 10.0, "note": "text"}), ["I", "pupil", "mag", "x"]
    )
    np.testing.assert_array_equal(mat.array("I"), IMAGES)
    assert mat.array("I").dtype == np.float32
    np.testing.assert_array_equal(mat.array("pupil"), pupil)
    assert mat.number("mag") == 10.0
    assert set(mat.names) == {"I", "pupil", "mag", "note"}


@pytest.mark.parametrize("version", ["write_v5", "write_v73"])
def test_variables_inside_the_struct_saved_data(version: str, request: pytest.FixtureRequest) -> None:
    write: Write = request.getfixturevalue(version)
    mat = matfile.read(write("a.mat", {"saved_data": {"I": IMAGES, "mag": 4.0}, "other": 1.0}), ["I", "mag"])
    np.testing.assert_array_equal(mat.array("I"), IMAGES)
    assert mat.number("mag") == 4.0


@pytest.mark.parametrize("version", ["write_v5", "write_v73"])
def test_a_wrong_key_names_what_is_there(version: str, request: pytest.FixtureRequest) -> None:
    write: Write = request.getfixturevalue(version)
    mat = matfile.read(write("a.mat", {"images": IMAGES, "mag": "ten"}), ["I", "mag"])
    with pytest.raises(DataError, match=r"a\.mat: has no variable I \(found: .*images"):
        mat.array("I")
    with pytest.raises(DataError, match="mag"):
        mat.number("mag")


def test_a_number_must_be_one_number(write_v5: Write) -> None:
    with pytest.raises(DataError, match=r"mag must be one number, got .* \(1, 3\)"):
        matfile.read(write_v5("a.mat", {"mag": [1.0, 2.0, 3.0]}), ["mag"]).number("mag")


@pytest.mark.parametrize("version", ["write_v5", "write_v73"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated(version: str, share: float, request: pytest.FixtureRequest) -> None:
    write: Write = request.getfixturevalue(version)
    path = write("a.mat", {"I": np.random.default_rng(0).normal(size=(20, 30, 4))})
    content = path.read_bytes()
    path.write_bytes(content[: max(1100, int(share * len(content)))])
    with pytest.raises(DataError, match=r"a\.mat: .*truncated") as caught:
        matfile.read(path, ["I"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello", b"MATLAB 5.0 MAT-file".ljust(126) + b"IM" + bytes(200)])
def test_not_a_matlab_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(DataError, match="not a MATLAB"):
        matfile.read(tmp_path / "a.mat", ["I"])


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        matfile.read(tmp_path / "a.mat", ["I"])


def test_a_v5_file_that_crashes_the_parser_is_reported(write_v5: Write) -> None:
    path = write_v5("a.mat", {"I_low": IMAGES}, compress=False)
    content = bytearray(path.read_bytes())
    at = content.index(IMAGES.tobytes(order="F")) - 8
    assert content[at] == 7  # the type code of single precision
    content[at] = 20  # no such type: the parser reads past the end of a table
    path.write_bytes(content)
    with pytest.raises(DataError, match="crashed its reader"):
        matfile.read(path, ["I_low"])


@pytest.mark.parametrize("version", ["write_v5", "write_v73"])
def test_time_limit(version: str, request: pytest.FixtureRequest) -> None:
    write: Write = request.getfixturevalue(version)
    with pytest.raises(DataError, match=r"gave up after 0\.01 s"):
        matfile.read(write("a.mat", {"I": IMAGES}), ["I"], timeout_s=0.01)


def test_v5_size_limit(write_v5: Write) -> None:
    path = write_v5("a.mat", {"I": np.zeros((50, 40, 30))})
    with pytest.raises(DataError, match="more than the limit"):
        matfile.read(path, ["I"], limit_bytes=100_000)


def test_no_room_for_the_unpacked_arrays(write_v5: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_v5("a.mat", {"I": IMAGES})
    monkeypatch.setenv("TMPDIR", "/dev/null")
    monkeypatch.setattr(tempfile, "tempdir", "/dev/null")
    with pytest.raises(OutputError, match="no room to unpack it in /dev/null"):
        matfile.read(path, ["I"])


# ---------------------------------------------------------------- hostile HDF5


def external_storage(file: h5py.File, secret: Path) -> None:
    item = file.create_dataset("I", (4, 3, 2), "u1", external=[(str(secret), 0, 24)])
    item.attrs["MATLAB_class"] = np.bytes_("uint8")


def external_link(file: h5py.File, secret: Path) -> None:
    file["I"] = h5py.ExternalLink(str(secret), "/I")


def soft_link(file: h5py.File, secret: Path) -> None:
    file["J"] = np.ones((3, 2))
    file["I"] = h5py.SoftLink("/J")


def nested_link(file: h5py.File, secret: Path) -> None:
    file.create_group("#refs#")["a"] = h5py.ExternalLink(str(secret), "/I")


def virtual(file: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout((4, 3, 2), "u1")
    layout[...] = h5py.VirtualSource(str(secret), "I", (4, 3, 2))
    file.create_virtual_dataset("I", layout)


def bomb(file: h5py.File, secret: Path) -> None:
    file.create_dataset("I", (1000, 1000, 4000), "u1", chunks=(100, 100, 100), fillvalue=1)


def cycle(file: h5py.File, secret: Path) -> None:
    group = file.create_group("I")
    group["again"] = group


def named_type(file: h5py.File, secret: Path) -> None:
    file["I"] = np.dtype([("a", "f4")])


def plugin_filter(file: h5py.File, secret: Path) -> None:
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((2, 2))
    plan.set_filter(305, h5py.h5z.FLAG_OPTIONAL, ())
    h5py.h5d.create(file.id, b"I", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((4, 4)), plan)


def endless(path: Path) -> None:
    """20 kB of HDF5: cell arrays that hold the next one twice, 40 deep; together 2⁴⁰ of them."""
    with h5py.File(path, "w", userblock_size=512, libver="latest") as file:
        refs = file.create_group("#refs#")
        item = refs.create_dataset("0", data=np.ones((1, 1)))
        item.attrs["MATLAB_class"] = np.bytes_("double")
        for level in range(1, 41):
            inner, item = item, refs.create_dataset(str(level), (2, 1), h5py.ref_dtype)
            item[:, 0] = inner.ref
            item.attrs["MATLAB_class"] = np.bytes_("cell")
        first = file.create_dataset("I", data=np.array([[item.ref]], h5py.ref_dtype))
        first.attrs["MATLAB_class"] = np.bytes_("cell")


def test_a_v73_file_that_never_ends_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "endless.mat"
    endless(path)
    assert path.stat().st_size < 20_000
    with pytest.raises(DataError, match=r"endless\.mat: gave up after 2 s"):
        matfile.read(path, ["I"], timeout_s=2)


@pytest.mark.slow
def test_a_v73_file_that_fills_the_memory_is_stopped(tmp_path: Path) -> None:
    """The same, wide instead of deep: what is made of it takes 10¹⁵ lists."""
    path = tmp_path / "wide.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        refs, inner = file.create_group("#refs#"), None
        for level in range(4):
            item = refs.create_dataset(f"level{level}", (100, 1000), h5py.ref_dtype if inner else "f8", compression=9)
            item[...] = inner.ref if inner else 1.0
            item.attrs["MATLAB_class"] = np.bytes_("cell" if inner else "double")
            inner = item
        first = file.create_dataset("I", (1, 1), h5py.ref_dtype)
        first[0, 0] = inner.ref
        first.attrs["MATLAB_class"] = np.bytes_("cell")
    with pytest.raises(DataError, match=r"wide\.mat: (gave up|damaged)"):
        matfile.read(path, ["I"], limit_bytes=10_000_000, timeout_s=10)


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        (external_storage, "keeps its values in another file"),
        (external_link, "is a link"),
        (soft_link, "is a link"),
        (nested_link, "is a link"),
        (virtual, "virtual data set"),
        (bomb, "declares 4 GB but stores 0 bytes"),
        (cycle, "linked twice"),
        (named_type, "neither a group nor an array"),
        (plugin_filter, "compression plugin"),
    ],
)
def test_hostile_hdf5_is_refused(attack: Callable[[h5py.File, Path], None], reason: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"the contents of a secret file, which must not get out")
    path = tmp_path / "hostile.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        attack(file, secret)
    with pytest.raises(DataError, match=rf"hostile\.mat: refused: .*{reason}") as caught:
        matfile.read(path, ["I"])
    assert "\n" not in str(caught.value)


def test_v73_size_limit(write_v73: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stacks of images stay in the file, and do not count until all of one is wanted."""
    noise: Any = np.random.default_rng(0).integers(0, 255, (40, 50, 60), dtype=np.uint8)
    path = write_v73("a.mat", {"I": noise, "flat": noise[0]})
    assert matfile.read(path, ["flat"], limit_bytes=3000).array("flat").shape == (50, 60)
    with pytest.raises(DataError, match="the limit is"):
        matfile.read(path, [], limit_bytes=2999)
    mat = matfile.read(path, [])
    np.testing.assert_array_equal(mat.array("I"), noise)
    monkeypatch.setattr(matfile, "LIMIT_BYTES", 119_999)
    with pytest.raises(DataError, match="the limit is"):
        mat.array("I")


def test_hdf5_that_is_not_matlabs_keeps_its_axes(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.mat", "w") as file:
        file["I"] = np.arange(24.0).reshape(4, 3, 2)
        file["scan/images"] = np.ones((5, 6, 7), np.uint8)
        file["note"] = "text"
    mat = matfile.read(tmp_path / "a.mat", ["I", "note"])
    np.testing.assert_array_equal(mat.array("I"), np.arange(24.0).reshape(4, 3, 2))
    assert not mat.matlab
    assert mat.shapes == {"I": (4, 3, 2), "scan/images": (5, 6, 7)}
    assert matfile.read(tmp_path / "a.mat", ["scan/images"]).array("scan/images").shape == (5, 6, 7)
    with pytest.raises(DataError, match="note is not a numeric array"):
        mat.array("note")


@pytest.mark.parametrize("version", ["write_v5", "write_v73"])
def test_shapes_of_real_arrays_are_told(version: str, request: pytest.FixtureRequest) -> None:
    write: Write = request.getfixturevalue(version)
    path = write("a.mat", {"saved_data": {"I": IMAGES, "z": np.ones((2, 2)) + 1j}, "b": IMAGES[0], "note": "text"})
    mat = matfile.read(path, [])
    assert mat.matlab
    assert mat.shapes == {"I": (2, 3, 4), "b": (3, 4)}
    assert not mat.arrays
