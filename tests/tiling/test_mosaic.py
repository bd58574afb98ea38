"""A mosaic of exact tiles is the field they were cut from, whole and in part; what is damaged is not shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

import fpmtools
from fpmtools.errors import DataError, OptionError
from fpmtools.optics import Optics, resample
from fpmtools.reconstruction import RESULT_FILE, Grid, PlaneStack
from fpmtools.runs.folder import sha256
from fpmtools.tiling.joining import join_tiles
from fpmtools.tiling.mosaic import Mosaic
from fpmtools.tiling.plan import Plan

FRAME, FACTOR, PIXEL_UM, WAVELENGTH_UM = (61, 74), 2, 0.8, 0.5
OPTICS = Optics(wavelength_um=WAVELENGTH_UM, na=0.3, magnification=1, camera_pixel_um=PIXEL_UM)
Make = Callable[..., Mosaic]


@pytest.fixture(scope="module")
def truth() -> NDArray[np.complex64]:
    rng = np.random.default_rng(0)
    amplitude, phase = (gaussian_filter(rng.normal(size=[n * FACTOR for n in FRAME]), 3) for _ in range(2))
    return np.asarray((1 + 2 * amplitude) * np.exp(12j * phase), np.complex64)


@pytest.fixture
def make(tmp_path: Path, truth: NDArray[np.complex64]) -> Make:
    def made(
        *, missing: int | None = None, height_um: float | None = None, dark: float = 1.0, bent: float = 0.0
    ) -> Mosaic:
        """The field cut into tiles, each with its own phase, at the scale ``dark`` for every other one, which bends."""
        plan = Plan.of(FRAME, 32, 10)
        ended: list[dict[str, object]] = []
        for index, tile in enumerate(plan.tiles):
            y, x, h, w = (n * FACTOR for n in tile.box)
            scale = dark if index % 2 else 1.0
            field = truth[y : y + h, x : x + w] * np.complex64(np.exp(1j * index) / np.sqrt(scale))
            if height_um is not None:
                at = [(np.arange(n) - n / 2) * PIXEL_UM / FACTOR for n in (h, w)]
                squared = at[0][:, None] ** 2 + at[1] ** 2
                field = field * np.exp(1j * np.pi / WAVELENGTH_UM / height_um * squared)
            if index % 2:
                field = field * np.exp(1j * bent * np.multiply.outer(np.linspace(-1, 1, h), np.linspace(-1, 1, w)))
            extent = (tile.box[2] * PIXEL_UM, tile.box[3] * PIXEL_UM)
            stack = PlaneStack(field.astype(np.complex64)[None], (3.0,), Grid((h, w), extent, (3.0, 3.0)))
            stack.metadata["intensity_scale"] = scale
            file = stack.save(tmp_path / "tiles" / tile.name / RESULT_FILE)
            about: dict[str, object] = {"sha256": sha256(file), "stored_bytes": stack.stored_bytes}
            ended.append({"status": "failed", "reason": "no light"} if index == missing else about)
        mosaic = join_tiles(
            plan, ended, tmp_path, [(3.0,)] * len(ended), factor=FACTOR, optics=OPTICS, scale=1.0,
            height_um=height_um,
        )  # fmt: skip
        mosaic.save(tmp_path / RESULT_FILE)
        opened = fpmtools.open_result(tmp_path)
        assert isinstance(opened, Mosaic)
        return opened

    return made


def relative(found: NDArray[np.complex64], true: NDArray[np.complex64]) -> float:
    """After one gain; the ramp of the whole is the least there can be."""
    gain = np.vdot(found, true) / np.vdot(found, found)
    return float(np.linalg.norm(gain * found - true) / np.linalg.norm(true))


@pytest.mark.parametrize(("height_um", "dark"), [(None, 1.0), (None, 0.6), (400.0, 1.0)])
def test_exact_tiles_give_the_field(
    make: Make, truth: NDArray[np.complex64], height_um: float | None, dark: float
) -> None:
    mosaic = make(height_um=height_um, dark=dark)
    assert mosaic.grid.shape == truth.shape
    assert relative(mosaic.field(), truth) < 1e-5
    assert abs(np.abs(mosaic.field()).mean() / np.abs(truth).mean() - 1) < 1e-5, "one intensity is 1 in all tiles"
    assert np.abs(mosaic.ramp).max() < 1e-4
    assert mosaic.holes == {}
    assert mosaic.facts()["tiles"] == "9 of 32 × 32 camera pixels"


def test_tiles_that_bend_are_brought_to_each_other(make: Make, truth: NDArray[np.complex64]) -> None:
    mosaic = make(height_um=400.0, bent=0.1)
    assert relative(mosaic.field(), truth) < 5e-3  # all tiles together may bend
    tensors, config = mosaic.dump()
    again = Mosaic.restore(mosaic.grid, tensors, config)
    assert np.array_equal(again.bend, mosaic.bend)
    del tensors["bend"]  # of a file from before there were any
    flat = Mosaic.restore(mosaic.grid, tensors, config)
    assert not flat.bend.any()
    flat.opened_from(mosaic.folder or Path())
    assert relative(flat.field(), truth) > 0.01


def test_regions_levels_and_other_shapes(make: Make) -> None:
    whole, mosaic = make().field(3.0), make()
    opened: list[int] = []
    inner = mosaic._opened
    mosaic._open = lambda index: (opened.append(index), inner(index))[1]  # type: ignore[assignment]
    assert np.allclose(mosaic.region(3.0, (5, 7, 20, 31)), whole[5:25, 7:38], atol=1e-6)
    assert set(opened) == {0}, "no more tiles are read than are needed"
    level = mosaic.region(None, (3, 4, 41, 50), level=2)
    assert level.shape == (11, 13)
    assert np.allclose(level[2, 3], whole[11:15, 16:20].mean(), atol=1e-6)
    assert np.allclose(level[10, 12], whole[43:44, 52:54].mean(), atol=1e-6)
    half = mosaic.field(shape=(61, 74))
    assert np.allclose(half, whole.reshape(61, 2, 74, 2).mean(axis=(1, 3)), atol=1e-6)
    assert np.allclose(mosaic.field(shape=(100, 120)), resample(whole, (100, 120)), atol=1e-5)
    focused = mosaic.all_in_focus(3.0)
    assert np.allclose(focused.amplitude, np.abs(whole), atol=1e-4)
    assert np.allclose(focused.depth_um, 3.0, atol=1e-5)
    for box in ((0, 0, 0, 4), (-1, 0, 4, 4), (100, 0, 40, 4)):
        with pytest.raises(OptionError, match="does not lie in"):
            mosaic.region(3.0, box)
    with pytest.raises(OptionError, match="this result has one plane, at 3"):
        mosaic.region(4.0, (0, 0, 4, 4))


def test_a_hole_is_dark_finite_and_named(make: Make, truth: NDArray[np.complex64]) -> None:
    mosaic = make(missing=0)
    field = mosaic.field()
    assert np.isfinite(field).all()
    assert not field[:28, :42].any()
    assert field[-40:, -40:].all()
    assert mosaic.holes == {"y00000-x00000": "no light"}
    assert "1 of them missing" in mosaic.facts()["tiles"]


def test_a_damaged_tile_is_not_shown(make: Make, tmp_path: Path) -> None:
    mosaic = make()
    file = tmp_path / "tiles" / "y00000-x00000" / RESULT_FILE
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        mosaic.field()
    assert mosaic.region(3.0, (90, 110, 20, 20)).all(), "the others are sound"
    file.unlink()
    with pytest.raises(DataError, match="resume the run"):
        mosaic.field()


def test_files_outside_of_the_folder_are_not_opened(make: Make, tmp_path: Path) -> None:
    mosaic = make()
    folder = tmp_path / "tiles" / "y00000-x00000"
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    with pytest.raises(DataError, match="does not lie in this folder"):
        mosaic.field()
    with pytest.raises(OptionError, match="stays with its tiles"):
        mosaic.save(tmp_path.parent / "copy.safetensors")
