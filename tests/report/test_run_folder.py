"""Whole runs through the engine with a small solver, written into real folders."""

from __future__ import annotations

import json
import resource
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
import tifffile
from PIL import Image

import fpmtools
from fpmtools import engine
from fpmtools.errors import OutputError
from fpmtools.options import option
from fpmtools.problem import prepare
from fpmtools.reconstruction import Grid, PlaneStack
from fpmtools.report import run_folder
from fpmtools.results import open_result
from fpmtools.simulation import simulate
from fpmtools.solver import Progress, Solver


@dataclass(frozen=True)
class Options:
    gain: float = option(1.5, "scales the image")
    name: str | None = option(None, "nothing")


class Upsampled(Solver[int]):
    """Takes the image of the central LED for the object, with a phase that grows with z."""

    Options = Options

    def start(self, problem):
        self.problem = problem
        return 0

    def step(self, state):
        return Progress(1, 1, 0.25, done=True)

    def result(self, state):
        problem = self.problem
        image = self.options.gain * problem.amplitudes[problem.order[0]].numpy()
        phase = np.linspace(0, 1, image.size).reshape(image.shape)
        planes = np.stack([image * np.exp(1j * phase * (z + 2)) for z in problem.z_um]).astype(np.complex64)
        grid = Grid(problem.output_shape, problem.forward.extent_um, problem.z_range)
        return PlaneStack(planes, problem.z_um, grid)


@pytest.fixture(scope="module")
def dataset():
    return simulate("thin", image_shape=(24, 34), upsample=2)


def run(dataset, z_um):
    solver = Upsampled(Options(gain=2.0))
    problem = prepare(dataset, z_um=z_um, device="cpu", seed=7)
    return engine.solve(problem, solver), problem, solver


STACK = (-2.0, -1.0, 1.0, 2.0)
FLAT_FILES = [
    "amplitude.png",
    "amplitude.tiff",
    "loss.png",
    "phase.png",
    "phase.tiff",
    "reconstruction.safetensors",
    "run.json",
]


def test_stack_run_writes_everything(dataset, tmp_path):
    outcome, problem, solver = run(dataset, STACK)
    folder = run_folder.claim_folder(tmp_path / "new" / "run")
    document = run_folder.write_run(
        folder,
        outcome,
        problem,
        solver,
        "upsampled",
        preset="paper",
        measure=lambda: {"metrics": {"psnr": np.float64(31.5), "residual": {"per_led": np.arange(3.0)}}},
        peak_memory_mb=12.5,
        command=["fpmtools", "run"],
    )
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FLAT_FILES, "stack.gif"]) == document["files"]
    loaded = open_result(folder)
    np.testing.assert_array_equal(loaded.field(-1.0), outcome.reconstruction.field(-1.0))
    height, width = outcome.reconstruction.grid.shape
    assert tifffile.imread(folder / "amplitude.tiff").shape == (4, height, width)
    np.testing.assert_allclose(tifffile.imread(folder / "amplitude.tiff")[1], np.abs(loaded.field(-1.0)), rtol=1e-6)
    with Image.open(folder / "stack.gif") as gif:
        assert gif.n_frames == 4
    for name in ("amplitude.png", "phase.png", "loss.png"):
        with Image.open(folder / name) as image:
            image.load()


def test_run_json_says_how_it_came_about(dataset, tmp_path):
    outcome, problem, solver = run(dataset, STACK)

    def measure():
        assert open_result(tmp_path).grid == outcome.reconstruction.grid  # it is safe by now
        assert json.loads((tmp_path / "run.json").read_text())["status"] == "done"
        return {"metrics": {"ssim": float("nan")}}

    run_folder.write_run(tmp_path, outcome, problem, solver, "upsampled", measure=measure)
    about = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    height, width = outcome.reconstruction.grid.shape
    assert about["options"] == {"gain": 2.0, "name": None}
    assert (about["solver"], about["seed"], about["status"], about["steps"]) == ("upsampled", 7, "done", 1)
    assert about["z_um"] == list(STACK)
    assert about["data"]["digest"] == dataset.digest
    assert about["data"]["optics"] == dataset.optics.to_dict()
    assert about["dense_bytes"] == 4 * height * width * 8
    assert about["stored_bytes"] == outcome.reconstruction.stored_bytes
    assert about["dense_ratio"] == pytest.approx(about["dense_bytes"] / about["stored_bytes"])
    times = {"setup_s": outcome.setup_seconds, "solve_s": outcome.seconds}
    assert about["times"] == {**times, "first_step_s": outcome.first_step_seconds, "step_s": outcome.step_seconds}
    assert about["metrics"] == {"ssim": None}
    assert about["versions"]["fpmtools"] == fpmtools.__version__
    assert about["versions"]["torch"]
    assert about["hardware"]["threads"] >= 1
    assert about["hardware"]["cpu"]
    assert about["loss"] == 0.25


def test_single_plane_has_no_video_and_stale_files_go(dataset, tmp_path):
    run_folder.write_run(tmp_path, *run(dataset, STACK), "upsampled")
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    assert (tmp_path / "stack.gif").exists()
    run_folder.claim_folder(tmp_path, force=True)
    assert (tmp_path / "stack.gif").exists()  # the old result stays until there is a new one
    run_folder.write_run(tmp_path, *run(dataset, 1.5), "upsampled")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*FLAT_FILES, "notes.txt"])
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_stills_show_the_known_defocus(dataset):
    known = simulate("thin", image_shape=(16, 22), defocus_um=1.0)
    for data, expected in ((known, 1.0), (dataset, 0.0)):
        _, problem, _ = run(data, (0.0, 0.5, 1.0))
        assert data.defocus_um == expected
        assert run_folder.shown_z_um(data, problem.z_um) == expected
    _, problem, _ = run(known, (4.0, 5.0, 6.0))
    assert run_folder.shown_z_um(known, problem.z_um) == 5.0


def test_used_folder_needs_force(tmp_path):
    (tmp_path / "old.txt").write_text("x", encoding="utf-8")
    with pytest.raises(OutputError, match=r"not empty \(1 file\).*--force"):
        run_folder.claim_folder(tmp_path)
    assert run_folder.claim_folder(tmp_path, force=True) == tmp_path
    with pytest.raises(OutputError, match="is a file"):
        run_folder.claim_folder(tmp_path / "old.txt", force=True)
    with pytest.raises(OutputError, match="cannot write in"):
        run_folder.claim_folder(tmp_path / "old.txt" / "below")
    assert run_folder.claim_folder(tmp_path / "a" / "b").is_dir()


@contextmanager
def disk_that_holds(size: int):
    """No file may grow beyond ``size`` bytes: writing fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_disk_full_keeps_the_reconstruction(dataset, tmp_path):
    outcome, problem, solver = run(dataset, STACK)
    run_folder.write_run(tmp_path / "before", outcome, problem, solver, "upsampled")
    size = (tmp_path / "before" / "reconstruction.safetensors").stat().st_size
    assert size + 500 < (tmp_path / "before" / "amplitude.tiff").stat().st_size
    with disk_that_holds(size + 500), pytest.raises(OutputError, match=r"cannot write .*\.tiff"):
        run_folder.write_run(tmp_path / "run", outcome, problem, solver, "upsampled")
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {"reconstruction.safetensors", "run.json"}
    np.testing.assert_array_equal(open_result(tmp_path / "run").field(1.0), outcome.reconstruction.field(1.0))
    assert json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["files"] == sorted(left)


def test_disk_full_leaves_an_older_result_alone(dataset, tmp_path):
    outcome, problem, solver = run(dataset, STACK)
    run_folder.write_run(tmp_path, outcome, problem, solver, "upsampled")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with disk_that_holds(1000), pytest.raises(OutputError, match="cannot write"):
        run_folder.write_run(tmp_path, *run(dataset, (0.0, 1.0)), "upsampled")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
