"""Results in napari: found through npe2 as napari finds them, read as it reads them, sliced as it slices them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from npe2 import PluginManager, PluginManifest, io_utils

import fpmtools
from fpmtools.colour.result import ColourReconstruction
from fpmtools.errors import DataError
from fpmtools.formats import native
from fpmtools.napari import layers, reader
from fpmtools.napari.layers import Depths
from fpmtools.napari.stacks import Stack, Tiles
from fpmtools.optics import Box

SIZE = (24, 33)  # camera pixels; results have twice as many


@pytest.fixture(scope="module", autouse=True)
def plugin() -> PluginManager:
    """npe2, having looked at what is installed."""
    manager = PluginManager.instance()
    manager.discover()
    return manager


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with depth whose data are in a file, and a region of it."""
    folder = tmp_path_factory.mktemp("napari")
    data = fpmtools.simulate("tilted", image_shape=(30, 40), tilt_um=2.0, photons=1000)
    native.save(data.crop(2, 5, *SIZE), folder / "data.safetensors")
    spec = fpmtools.RunSpec(str(folder / "data.safetensors"), "ap", {"sweeps": 2}, z_um=(-2.0, 0.0, 2.0))
    fpmtools.run(spec, folder / "a run")
    return folder / "a run"


def read(path: Path) -> dict[str, Any]:
    """Layers by name, as npe2 reads them."""
    layers = io_utils.read([str(path)], stack=False, plugin_name="fpmtools")
    assert all(kind == "image" for _, _, kind in layers)
    return {about["name"]: (array, about) for array, about, _ in layers}


def test_the_manifest_is_found_and_valid(plugin: PluginManager) -> None:
    manifest = plugin.get_manifest("fpmtools")
    manifest.validate_imports()
    assert isinstance(manifest, PluginManifest)
    assert manifest.contributions.readers[0].command == "fpmtools.open"


def test_a_run_shows_amplitude_phase_truth_and_images(run: Path) -> None:
    found = read(run)
    names = ["raw images", "truth phase", "truth amplitude", "a run phase", "a run amplitude"]
    assert list(found) == names, "the last one is on top"
    assert [about["visible"] for _, about in found.values()] == [False, False, False, True, True]
    result, data = fpmtools.open_result(run), fpmtools.load(run.parent / "data.safetensors")
    amplitude, about = found["a run amplitude"]
    assert amplitude.shape == (101, 2 * SIZE[0], 2 * SIZE[1])
    assert about["units"] == ("µm", "µm", "µm")
    assert about["axis_labels"] == ("z", "y", "x")
    pixel = data.optics.pixel_um
    np.testing.assert_allclose(about["scale"], (0.04, pixel / 2, pixel / 2))
    np.testing.assert_allclose(about["translate"], (-2.0, 2 * pixel, 5 * pixel), err_msg="of the whole camera field")
    for k, z in ((0, -2.0), (50, 0.0), (100, 2.0), (63, 0.52)):
        np.testing.assert_allclose(amplitude[k], np.abs(result.field(z)), rtol=1e-6)
        np.testing.assert_allclose(found["a run phase"][0][k], result.phase(z), rtol=1e-6, atol=1e-6)
    low, high = about["contrast_limits"]
    assert 0 < low < 1 < high < 3
    images, about = found["raw images"]
    assert images.shape == (68, 1, *SIZE)
    assert about["axis_labels"] == ("LED", "z", "y", "x")
    np.testing.assert_array_equal(images[7, 0], data.images[7])
    assert found["truth amplitude"][0].shape == (1, 2 * SIZE[0], 2 * SIZE[1])
    np.testing.assert_allclose(found["truth amplitude"][0][0], np.abs(data.truth.field), rtol=1e-5)  # type: ignore[union-attr]


def test_what_has_no_depth_is_there_at_any_z(run: Path) -> None:
    found = read(run)
    (_, deep), (_, flat) = found["a run amplitude"], found["raw images"]
    for z in (-2.0, 0.0, 2.0):  # napari rounds to the nearest plane
        assert round((z - flat["translate"][1]) / flat["scale"][1]) == 0
    assert flat["translate"][2:] == deep["translate"][1:]


def test_images_that_are_gone_or_changed(run: Path) -> None:
    file = run.parent / "data.safetensors"
    kept = file.read_bytes()
    try:
        other = fpmtools.load(file)
        native.save(other.with_images(other.intensities * 2), file)
        with pytest.raises(DataError, match="have changed"):
            read(run)["raw images"][0][0]
        file.unlink()
        assert list(read(run)) == ["a run phase", "a run amplitude"]
    finally:
        file.write_bytes(kept)


def test_files_of_results_and_data(run: Path, tmp_path: Path) -> None:
    result = fpmtools.open_result(run)
    alone = read(result.save(tmp_path / "alone.safetensors"))
    assert list(alone) == ["alone phase", "alone amplitude"]
    assert len(read(run / "reconstruction.safetensors")) == 5, "the file in a run's folder is the run"
    data = read(run.parent / "data.safetensors")
    assert list(data) == ["truth phase", "truth amplitude", "raw images"]
    assert data["raw images"][1]["visible"]
    fpmtools.export(result, tmp_path / "some.npz", z_um=[-1.0, 0.5])
    field, about = read(tmp_path / "some.npz")["some amplitude"]
    np.testing.assert_array_equal(field[1], np.abs(result.field(0.5)))
    assert (about["translate"][0], about["scale"][0]) == (-1.0, 1.5)


def test_a_comparison_shows_every_result_and_the_images_once(tmp_path: Path) -> None:
    fpmtools.compare(
        "sim:thin@16x24", ["ap:sweeps=1", "ap:sweeps=2"], out=tmp_path, calibrate="none", warm_up=False, pictures=False
    )
    names = list(read(tmp_path))
    assert names.count("raw images") == names.count("truth phase") == 1
    assert names[-4:] == ["ap:sweeps=2 phase", "ap:sweeps=2 amplitude", "ap:sweeps=1 phase", "ap:sweeps=1 amplitude"]


INDICES = (
    3, -1, slice(1, 4), (2, slice(None), 4), (Ellipsis, 1), (slice(None), 2, slice(3)), (np.int64(1), Ellipsis),
    slice(9, 9), ([0, 2], 1), (slice(None, None, -2),),
)  # fmt: skip


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_a_stack_slices_like_an_array(index: Any) -> None:
    whole = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    made: list[int] = []
    stack = Stack(5, (6, 7), lambda k: made.append(k) or whole[k])  # type: ignore[func-returns-value]
    np.testing.assert_array_equal(stack[index], whole[index])
    assert len(made) <= 5
    assert (stack.shape, stack.ndim, stack.dtype, stack.size, len(stack)) == ((5, 6, 7), 3, np.float32, 210, 5)
    np.testing.assert_array_equal(np.asarray(stack), whole)


def test_a_stack_makes_a_plane_once_and_ends() -> None:
    made: list[int] = []
    stack = Stack(3, (2, 2), lambda k: made.append(k) or np.zeros((2, 2)))  # type: ignore[func-returns-value]
    for k in (1, 1, -2, 2):
        stack[k]
    assert made == [1, 2]
    with pytest.raises(IndexError):
        stack[3]


def test_what_is_cut_out_of_several_planes_is_not_made_yet() -> None:
    whole = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    made: list[tuple[int, Box]] = []

    def cut(k: int, box: Box) -> Any:
        y, x, height, width = box
        made.append((k, box))
        return whole[k, y : y + height, x : x + width]

    tiles = Tiles(5, (6, 7), cut)
    for index in (*INDICES, (slice(None, None, -1), slice(5, 1, -2), slice(1, 6, 2)), ()):
        np.testing.assert_array_equal(np.asarray(tiles[index]), whole[index])
    made.clear()
    window = tiles[:, 1:4, 2:5][1:, :, ::-1]
    assert (made, window.shape) == ([], (4, 3, 3))
    np.testing.assert_array_equal(window[2, :, :], whole[3, 1:4, 4:1:-1])
    assert made == [(3, (1, 2, 3, 3))]


def test_colours_are_layers_of_light_at_every_depth(coloured_mosaic: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Added up they are what one sees."""
    monkeypatch.setattr(layers, "COARSEST", 64)
    found, result = read(coloured_mosaic), fpmtools.open_result(coloured_mosaic)
    assert isinstance(result, ColourReconstruction)
    name = coloured_mosaic.name
    assert list(found) == [f"{name} {what}" for what in ("green phase", "green amplitude", "blue", "green", "red")]
    assert [about.get("visible", True) for _, about in found.values()] == [False, False, True, True, True]
    lights = {colour: found[f"{name} {colour}"] for colour in ("red", "green", "blue")}
    assert [about["colormap"] for _, about in lights.values()] == ["#FF0000", "#00FF00", "#0000FF"]
    assert result.planes_um == (-1.5, 2.0)
    for colour, (levels, about) in lights.items():
        assert about["multiscale"]
        assert [level.shape for level in levels] == [(101, 106, 150), (101, 53, 75), (101, 27, 38)]
        np.testing.assert_allclose((*about["translate"], *about["scale"]), (-1.5, 0, 0, 0.035, 0.4, 0.4))
        field = result.channel(colour).field(2.0) / result.parts[colour].white
        np.testing.assert_allclose(levels[0][:, 5:90, 60:140][100], np.abs(field[5:90, 60:140]) ** 2, rtol=1e-2)
        light = result.intensity(colour, 0.25, (0, 0, 106, 150), 2)
        np.testing.assert_allclose(levels[2][:, :, 3:9][50], light[:, 3:9], rtol=1e-4)
    picture = np.stack([levels[0][0] for levels, _ in lights.values()], axis=-1)
    assert np.abs(np.clip(picture, 0, 1) ** lights["red"][1]["gamma"] - result.colour(-1.5)).max() < 0.05


def test_planes_that_were_solved_are_on_the_slider() -> None:
    assert Depths(3.0).slab == Depths(3.0, 1.0, 1)
    depths = Depths(-10.0, 0.2, 101)
    assert depths.slab.count == 1
    assert depths.slab.z_um(0) == pytest.approx(0.0)


def test_what_is_not_ours_is_left_to_others(tmp_path: Path, run: Path) -> None:
    (tmp_path / "text.safetensors").write_text("no")
    np.savez(tmp_path / "other.npz", field=np.zeros(3))
    for path in (tmp_path, tmp_path / "text.safetensors", tmp_path / "other.npz", tmp_path / "none.safetensors"):
        assert reader.get_reader(str(path)) is None
    assert reader.get_reader([str(run), str(run)]) is None


def test_a_damaged_result_is_told_in_one_line(tmp_path: Path, run: Path) -> None:
    whole = (run / "reconstruction.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-5])
    open_it = reader.get_reader(str(tmp_path / "cut.safetensors"))
    assert open_it is not None
    with pytest.raises(DataError, match="cut off"):
        open_it(str(tmp_path / "cut.safetensors"))


@pytest.mark.filterwarnings("ignore")
def test_napari_itself_shows_colours(coloured_mosaic: Path) -> None:
    """It cuts out of all planes what it shows, before it takes one of them."""
    napari = pytest.importorskip("napari.components", reason="napari is not installed")
    viewer, made = napari.ViewerModel(), list[float]()
    shown = ColourReconstruction.intensity
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ColourReconstruction, "intensity", lambda *args: (made.append(args[2]), shown(*args))[1])
        viewer.open(coloured_mosaic, plugin="fpmtools")
    assert len(made) <= 6, "of 101 depths the first and the middle one"
    assert [(layer.colormap.name, layer.blending) for layer in viewer.layers[-3:]] == [
        (colour, "additive") for colour in ("blue", "green", "red")
    ]


@pytest.mark.filterwarnings("ignore")
def test_napari_itself_shows_them(run: Path) -> None:
    napari = pytest.importorskip("napari.components", reason="napari is not installed")
    viewer = napari.ViewerModel()
    viewer.open(run, plugin="fpmtools")
    assert [layer.name for layer in viewer.layers][-2:] == ["a run phase", "a run amplitude"]
    assert {str(unit) for unit in viewer.layers[-1].units} == {"micrometer"}
    assert viewer.dims.axis_labels == ("LED", "z", "y", "x")
    assert viewer.layers[0].data.plane.cache_info().misses == 0, "hidden layers read nothing"
    viewer.dims.set_point(1, 0.52)
    shown = viewer.layers[-1]._slice.image.view
    np.testing.assert_allclose(shown, np.abs(fpmtools.open_result(run).field(0.52)), rtol=1e-6)
