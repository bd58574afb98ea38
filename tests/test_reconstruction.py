"""Reconstructions: rendering between planes, resampling, and files that survive or are refused."""

from __future__ import annotations

import numpy as np
import pytest

from fpmtools import registry, storage
from fpmtools.errors import DataError, OptionError, OutputError
from fpmtools.optics import to_spectrum
from fpmtools.reconstruction import Grid, PlaneStack
from fpmtools.results import open_result

Z = (-3.0, 0.0, 4.0)


@pytest.fixture
def stack():
    rng = np.random.default_rng(3)
    base = rng.normal(size=(12, 17)) + 1j * rng.normal(size=(12, 17)) + 3
    turns = np.exp(1j * np.array([0.3, 2.0, -1.0]))[:, None, None]
    planes = (base + 0.1 * rng.normal(size=(3, 12, 17))) * turns
    return PlaneStack.from_spectra(to_spectrum(planes).astype(np.complex64), Z, (24, 34), (6.0, 8.5))


def test_planes_lose_their_arbitrary_phase(stack):
    for one, other in zip(stack.planes[:-1], stack.planes[1:], strict=True):
        assert abs(np.angle(np.vdot(one, other))) < 1e-5


def test_a_plane_is_exact_and_between_planes_is_linear(stack):
    assert np.array_equal(stack.native_field(0.0), stack.planes[1])
    assert np.allclose(stack.native_field(1.0), 0.75 * stack.planes[1] + 0.25 * stack.planes[2])


def test_field_has_the_default_or_the_asked_for_size(stack):
    assert stack.field(-3.0).shape == (24, 34)
    assert stack.field(2.2).dtype == np.complex64
    assert np.allclose(stack.field(4.0, (12, 17)), stack.planes[2], atol=1e-5)
    assert np.allclose(stack.field(0.0).mean(), stack.planes[1].mean(), atol=1e-5)
    assert stack.grid.pixel_um == (0.25, 0.25)


def test_writing_into_a_field_leaves_the_result_alone(stack):
    """On a plane, at its own size, nothing is interpolated: the plane itself must not be handed out."""
    before = stack.planes.copy()
    field = stack.field(0.0, (12, 17))
    field[:] = 0
    np.testing.assert_array_equal(stack.planes, before)


@pytest.mark.parametrize("z", [-3.1, 4.01, 100])
def test_z_out_of_range_is_refused(stack, z):
    with pytest.raises(OptionError, match=r"outside the reconstructed range -3 … 4"):
        stack.field(z)
    flat = PlaneStack(stack.planes[:1], (-3.0,), Grid((12, 17), (3.0, 4.25), (-3.0, -3.0)))
    with pytest.raises(OptionError, match=r"z = [0-9.]+ µm: this result has one plane, at -3 µm"):
        flat.field(z + 10)


def test_saved_and_loaded_is_the_same(stack, tmp_path):
    stack.metadata["intensity_scale"] = 2.5
    path = stack.save(tmp_path / "reconstruction.safetensors")
    for source in (path, tmp_path, str(path)):
        again = open_result(source)
        assert isinstance(again, PlaneStack)
        assert np.array_equal(again.field(1.7), stack.field(1.7))
        assert again.metadata == stack.metadata
        assert again.grid == stack.grid
    assert stack.stored_bytes == 3 * 12 * 17 * 8
    assert 0 < path.stat().st_size - stack.stored_bytes < 2000


def test_planes_are_opened_without_any_plugin(stack, tmp_path, monkeypatch):
    path = stack.save(tmp_path / "a.safetensors")

    def asked(kind):
        raise AssertionError(f"the plugins were asked for {kind}")

    monkeypatch.setattr(registry, "reconstruction_class", asked)
    assert np.array_equal(open_result(path).planes, stack.planes)


def test_damage_is_noticed(stack, tmp_path):
    path = stack.save(tmp_path / "result.safetensors")
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="checksum"):
        open_result(path)
    path.write_bytes(content[:200])
    with pytest.raises(DataError, match="not a readable"):
        open_result(path)
    with pytest.raises(DataError, match="no such file"):
        open_result(tmp_path / "absent.safetensors")


def test_other_files_are_refused(stack, tmp_path):
    other = storage.write_tensors(tmp_path / "other.safetensors", {"a": np.ones(3)}, "dataset", {})
    with pytest.raises(DataError, match="not an fpmtools reconstruction"):
        open_result(other)
    odd = storage.write_tensors(tmp_path / "odd.safetensors", {"a": np.ones(3)}, "reconstruction", {"kind": "planes"})
    with pytest.raises(DataError, match="not a complete reconstruction"):
        open_result(odd)


def test_shapes_must_agree():
    with pytest.raises(DataError, match=r"one .* plane per z"):
        PlaneStack(np.ones((2, 4, 5), np.complex64), (0.0,), Grid((4, 5), (1.0, 1.0), (0.0, 0.0)))


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = storage.write_bytes(tmp_path / "a.bin", b"old")

    def fail(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        storage.write_atomic(path, fail)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_json_is_strict(tmp_path):
    path = storage.write_json(tmp_path / "a.json", {"x": float("nan"), "y": np.float32(1.5), "z": [np.int64(2)]})
    assert path.read_text().split() == ["{", '"x":', "null,", '"y":', "1.5,", '"z":', "[", "2", "]", "}"]
