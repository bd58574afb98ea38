"""What a path holds, and what is said of what could not be found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import fpmtools
from fpmtools import metrics
from fpmtools.dataset import Dataset
from fpmtools.errors import DataError, FpmError, OptionError
from fpmtools.formats import native
from fpmtools.reconstruction import PlaneStack
from fpmtools.results import open_result
from fpmtools.runs.spec import DataSpec, Outputs
from fpmtools.viewer.opening import checked, described, opened
from fpmtools.viewer.scene import Scene

HOSTILE = "<b>x</b>\x1b[31m"


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Path:
    """Two solvers on three planes."""
    folder = tmp_path_factory.mktemp("compared")
    data = native.save(dataset, folder / "data.safetensors")
    fpmtools.compare(
        str(data),
        ["ap:sweeps=2", "adam:sweeps=1"],
        z_um=[-2.0, 0.0, 2.0],
        calibrate="none",
        threads=1,
        track=False,
        warm_up=False,
        pictures=False,
        out=folder / "out",
    )
    return folder / "out"


@pytest.fixture
def run(compared: Path, tmp_path: Path) -> Path:
    """A copy of a run's folder that may be spoilt."""
    return Path(shutil.copytree(compared / "ap_sweeps=2", tmp_path / "run"))


def _first(folder: Path) -> Path:
    return next(path.parent for path in sorted(folder.rglob("reconstruction.safetensors")))


def test_a_file(saved: Path, stack: PlaneStack) -> None:
    found = opened([str(saved)])
    assert [(source.name, source.kind) for source in found.sources] == [("stack", "field")]
    assert found.notes == []
    assert np.array_equal(found.sources[0].overview("amplitude", 0.0), stack.amplitude(0.0))


def test_a_run_with_its_images_and_its_truth(run: Path, dataset: Dataset) -> None:
    found = opened([str(run)])
    assert [source.kind for source in found.sources] == ["field", "field", "images"]
    assert found.sources[0].name == "ap (run)"
    assert found.sources[1].name == "truth"
    assert found.notes == []
    assert np.array_equal(found.sources[0].overview("amplitude", 0.5), open_result(run).amplitude(0.5))
    assert np.array_equal(found.sources[2].overview("raw", 3), np.asarray(dataset.images[3], np.float32))
    lights = found.sources[0].lights
    assert lights is not None
    assert (lights.objective_na, lights.wavelength_um) == (dataset.optics.na, dataset.optics.wavelength_um)
    assert lights.na.shape == (9, 2)
    assert dataset.truth is not None
    pixel = dataset.extent_um[1] / dataset.truth.field.shape[1]
    limited = metrics.band_limit(dataset.truth.field, dataset.optics, dataset.na, pixel)
    assert np.allclose(found.sources[1].overview("amplitude", 7.0), np.abs(limited), atol=1e-6)


def test_a_comparison(compared: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(compared, tmp_path / "elsewhere"))
    found = opened([str(moved)])
    assert [source.name for source in found.sources] == ["ap:sweeps=2", "adam:sweeps=1", "truth", "raw images"]
    assert "PSNR" in found.sources[0].facts
    _first(moved).joinpath("reconstruction.safetensors").unlink()
    found = opened([str(moved)])
    assert len(found.sources) == 3
    assert len(found.notes) == 1
    for path in list(moved.rglob("reconstruction.safetensors")):
        path.unlink()
    with pytest.raises(DataError, match="no result"):
        opened([str(moved)])


def test_several_paths_share_one_set_of_images(run: Path, saved: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "other")
    found = opened([str(run), str(other), str(saved)])
    assert [source.name for source in found.sources] == ["ap (run)", "ap (other)", "stack", "truth", "raw images"]
    again = opened([str(saved), str(saved)])
    assert [source.name for source in again.sources] == ["stack", "stack 2"]


def test_regions_of_one_field_lie_where_they_are_in_it(tmp_path: Path, dataset: Dataset) -> None:
    path, pixel = native.save(dataset, tmp_path / "data.safetensors"), dataset.optics.pixel_um
    folders = [str(tmp_path / name) for name in ("left", "right")]
    for folder, roi in zip(folders, [(2, 0, 12, 13), (4, 11, 12, 14)], strict=True):
        data = DataSpec(str(path), roi=roi)
        outputs = Outputs(track=False, measures=(), pictures=())
        fpmtools.run(
            fpmtools.RunSpec(data, "ap", {"sweeps": 1}, z_um=(0.0,), calibrate="none", outputs=outputs), folder
        )
    found = opened(folders)
    told = {about["name"]: about["layers"] for about in Scene(found.sources, "x").describe()["sources"]}
    for name, (x, y) in {"ap (left)": (0, 2), "ap (right)": (11, 4), "truth": (0, 2)}.items():
        assert told[name]["amplitude"]["origin"] == pytest.approx([x * pixel, y * pixel]), name
    raw = [layers["raw"]["origin"] for layers in told.values() if "raw" in layers]
    assert raw == [pytest.approx([0, 2 * pixel]), pytest.approx([11 * pixel, 4 * pixel])]
    assert told["ap (left)"]["spectrum"]["origin"][0] < 0


def test_a_data_set(tmp_path: Path, dataset: Dataset) -> None:
    path = native.save(dataset, tmp_path / "data.safetensors")
    found = opened([str(path)], {"roi": (2, 3, 12, 16)})
    assert [source.kind for source in found.sources] == ["field", "images"]
    assert found.sources[1].shape == (12, 16)
    assert np.array_equal(found.sources[1].overview("raw", 0), np.asarray(dataset.images[0][2:14, 3:19], np.float32))


def test_a_run_whose_images_are_gone(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    record["spec"]["data"]["source"] = f"/nowhere/{HOSTILE}"
    (run / "run.json").write_text(json.dumps(record))
    found = opened([str(run)])
    assert [source.kind for source in found.sources] == ["field"]
    assert found.notes[0].startswith("no raw images: ")
    assert found.sources[0].lights is not None
    assert found.sources[0].lights.objective_na == record["data"]["optics"]["na"]


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"spec": None, "solver": ["x"], "metrics": "y", "data": 3},
        {"spec": {"schema": 1, "data": {"source": "sim:nothing"}, "solver": "ap"}, "data": {"image_shape": "z"}},
        {"solver": HOSTILE, "metrics": {"psnr": "<i>", "ssim": None}, "data": {"optics": {"na": "<b>"}}},
    ],
)
def test_a_record_of_anything(run: Path, record: dict[str, object]) -> None:
    """It may be anybody's: the result is shown, and whatever the record lacks is said or left out."""
    (run / "run.json").write_text(json.dumps(record))
    found = opened([str(run)])
    assert found.sources[0].kind == "field"
    assert len(found.notes) == 1
    json.dumps(Scene(found.sources, "x", found.notes).describe())


def test_mistakes(tmp_path: Path, run: Path, saved: Path) -> None:
    with pytest.raises(FpmError, match="no such file"):
        opened([str(tmp_path / "nowhere")])
    (run / "reconstruction.safetensors").unlink()
    with pytest.raises(DataError, match="no result yet"):
        opened([str(run)])
    content = bytearray(saved.read_bytes())
    content[-5] ^= 1
    saved.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        opened([str(saved)])
    with pytest.raises(OptionError, match="1 to 16"):
        checked(["x"] * 17)
    assert described(["sim:tilted", str(run)]) == "sim:tilted | run"
