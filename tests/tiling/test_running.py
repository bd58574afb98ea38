"""Tiled runs: as good as their tiles, the same whoever solves them, resumed at any moment, holes where tiles fail."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import fpmtools
from fpmtools.cli import main
from fpmtools.errors import OptionError, OutputError, SolverError
from fpmtools.formats import native
from fpmtools.metrics import match
from fpmtools.runs import running
from fpmtools.runs.folder import RESULT_FILE, RunFolder, sha256
from fpmtools.runs.spec import DataSpec, Outputs, RunSpec, TilesSpec
from fpmtools.tiling.mosaic import Mosaic
from fpmtools.tiling.running import carry_on
from fpmtools.tiling.workers import Here, Workers

WORDS = ["--tiles", "48", "--overlap", "16", "--solver", "ap", "-o", "sweeps=3", "--margin", "8", "--trust-leds"]
WORDS += ["--calibrate", "none", "--threads", "1", "--quiet"]


def opened(folder: Path) -> Mosaic:
    found = fpmtools.open_result(folder)
    assert isinstance(found, Mosaic)
    return found


def files(folder: Path) -> dict[str, str]:
    """Checksums of all results below a folder, and of what was calibrated."""
    return {str(file.relative_to(folder)): sha256(file) for file in sorted(folder.rglob("*.safetensors"))}


def test_a_mosaic_is_as_good_as_its_tiles_and_shows_no_seams(solved: Path, field: Path) -> None:
    mosaic, data = opened(solved), fpmtools.load(field)
    document = json.loads((solved / "run.json").read_text())
    assert document["status"] == "done"
    assert document["tiles"]["count"] == len(mosaic.parts) == 6
    found = match(mosaic, data)
    error = np.abs(found.gain * found.field - found.truth) ** 2
    light, border = np.square(np.abs(found.truth)).mean(), 8 * mosaic.factor
    whole = -10 * np.log10(error[border:-border, border:-border].mean() / light)
    own = []
    for index, tile in enumerate(mosaic.plan.tiles):
        part = match(mosaic.tile(index), data.crop(*tile.box))
        inside = (np.abs(part.gain * part.field - part.truth) ** 2)[border:-border, border:-border]
        own.append(-10 * np.log10(inside.mean() / light))
    assert whole > np.mean(own) - 0.5
    for axis, starts in enumerate((mosaic.plan.rows, mosaic.plan.columns)):
        profile = error[border:-border, border:-border].mean(axis=1 - axis)
        middles = [((a + b + 48) / 2) * mosaic.factor - border for a, b in itertools.pairwise(starts)]
        near = np.min([np.abs(np.arange(len(profile)) + 0.5 - m) for m in middles], axis=0) < 2 * mosaic.factor
        assert profile[near].mean() < 1.5 * np.median(profile), "no line of errors along a seam"


def test_numbers_are_of_the_mosaic_and_the_tiles(solved: Path) -> None:
    document = json.loads((solved / "run.json").read_text())
    tiles = [json.loads(file.read_text()) for file in sorted(solved.glob("tiles/*/run.json"))]
    assert document["metrics"]["psnr"] > 20
    expected = np.mean([tile["metrics"]["residual"] for tile in tiles])
    assert document["metrics"]["residual"] == pytest.approx(expected)
    assert document["stored_bytes"] > sum(tile["stored_bytes"] for tile in tiles)
    assert {about["status"] for about in document["tiles"]["state"].values()} == {"done"}
    assert not list(solved.rglob(".*"))
    logs = [file.read_text() for file in (solved / "run.log", *sorted(solved.glob("tiles/*/run.log")))]
    assert len(logs) == 7
    assert all("ended: done" in text.splitlines()[-1] for text in logs)
    assert "6 tiles of 48 × 48 camera pixels, 16 or more shared" in logs[0]


def test_two_workers_make_the_same_bytes(solved: Path, spec: RunSpec, tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "two", spec) as place, Workers(2) as workers:
        assert carry_on(place, executor=workers)["status"] == "done"
    assert files(tmp_path / "two") == files(solved)


def test_tiles_of_an_hdf5_file(spec: RunSpec, field: Path, tmp_path: Path) -> None:
    """Each worker reads its tiles' parts of the images."""
    data, file = fpmtools.load(field), tmp_path / "field.h5"
    with h5py.File(file, "w") as h5:
        h5.create_dataset("I_low", data=data.intensities, chunks=(2, 30, 40), compression="gzip", shuffle=True)
        h5["na_calib"], h5["na_cal"], h5["lambda"] = -data.na, data.optics.na, data.optics.wavelength_um
        h5["mag"], h5["dpix_c"] = data.optics.magnification, data.optics.camera_pixel_um
    data_spec, outputs = DataSpec(str(file), roi=(11, 5, 48, 80)), Outputs(measures=(), pictures=())
    spec = replace(spec, data=data_spec, options={"sweeps": 1}, outputs=outputs)
    running.run(spec, tmp_path / "one")
    with RunFolder.create(tmp_path / "two", spec) as place, Workers(2) as workers:
        assert carry_on(place, executor=workers)["status"] == "done"
    assert files(tmp_path / "two") == files(tmp_path / "one")


class Leaves(Here):
    """Solves some tiles; then the process is as good as killed."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.folders: list[str] = []

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        if len(self.folders) == self.after:
            raise KeyboardInterrupt
        self.folders.append(arguments[1])
        return super().submit(function, *arguments)


def test_a_resumed_run_ends_as_one_without_a_stop(solved: Path, spec: RunSpec, tmp_path: Path) -> None:
    folder, stops = tmp_path / "stopped", Leaves(2)
    with RunFolder.create(folder, spec) as place, pytest.raises(KeyboardInterrupt):
        carry_on(place, executor=stops)
    assert not (folder / RESULT_FILE).exists()
    with pytest.raises(fpmtools.FpmError, match="in this folder"):
        fpmtools.open_result(folder)
    again = Leaves(99)
    with RunFolder.reopen(folder) as place:
        carry_on(place, executor=again)
    assert set(again.folders).isdisjoint(stops.folders), "what is finished is not solved twice"
    assert files(folder) == files(solved)
    with RunFolder.reopen(folder) as place:
        carry_on(place, executor=Leaves(0))


def test_damaged_files_are_made_again(solved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(solved, folder)
    tiles = sorted((folder / "tiles").iterdir())
    content = bytearray((tiles[1] / RESULT_FILE).read_bytes())
    content[-9] ^= 4
    (tiles[1] / RESULT_FILE).write_bytes(content)
    (tiles[3] / RESULT_FILE).unlink()
    (folder / RESULT_FILE).write_bytes(b"nothing")
    seen, said = Leaves(99), list[str]()
    with RunFolder.reopen(folder) as place:
        carry_on(place, executor=seen, on_event=lambda event: said.append(event.get("text", "")))
    assert seen.folders == [str(tiles[1]), str(tiles[3])]
    assert sum("is solved again" in text for text in said) == 2
    assert files(folder) == files(solved)


def test_a_moved_folder_keeps_its_tiles(solved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(solved, folder)
    (folder / RESULT_FILE).unlink()
    with RunFolder.reopen(folder) as place:
        carry_on(place, executor=Leaves(0))
    assert files(folder) == files(solved)


def test_killed_with_its_workers_and_resumed(
    solved: Path, field: Path, tmp_path: Path, forked: Callable[..., Any]
) -> None:
    folder = tmp_path / "killed"
    with forked(["run", "--data", field, *WORDS, "--workers", "2", "--out", folder]) as process:
        while process.poll() is None and not list(folder.glob(f"tiles/*/{RESULT_FILE}")):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert main(["run", "--resume", str(folder), "--quiet", "--workers", "1"]) == 0
    tiles = {name: digest for name, digest in files(solved).items() if name.startswith("tiles")}
    assert {name: digest for name, digest in files(folder).items() if name.startswith("tiles")} == tiles
    assert sha256(folder / RESULT_FILE) == sha256(solved / RESULT_FILE)
    assert not list(folder.rglob(".*.part"))


def test_a_tile_that_fails_is_a_hole(field: Path, spec: RunSpec, tmp_path: Path) -> None:
    data = fpmtools.load(field)
    images = data.intensities
    images[:, :48, :48] = 0
    file = native.save(data.with_images(images), tmp_path / "dead.safetensors")
    folder, tries = tmp_path / "run", Leaves(99)
    dead = replace(spec, data=replace(spec.data, source=str(file)))
    with RunFolder.create(folder, dead) as place:
        document = carry_on(place, executor=tries)
    assert document["status"] == "partial"
    assert tries.folders.count(str(folder / "tiles" / "y00000-x00000")) == 2, "it is tried once more"
    mosaic = opened(folder)
    assert list(mosaic.holes) == ["y00000-x00000"]
    assert "zero" in mosaic.holes["y00000-x00000"]
    assert np.isfinite(mosaic.field()).all()
    assert main(["run", "--resume", str(folder), "--quiet", "--workers", "1"]) == 6


def test_no_tile_at_all(spec: RunSpec, tmp_path: Path) -> None:
    class Fails(Here):
        def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_exception(RuntimeError("the disk is on fire"))
            return future

    with (
        RunFolder.create(tmp_path / "run", spec) as place,
        pytest.raises(SolverError, match="no tile could be solved: RuntimeError: the disk is on fire"),
    ):
        carry_on(place, executor=Fails())


def test_a_full_disk_ends_it_at_once(spec: RunSpec, tmp_path: Path) -> None:
    class Full(Leaves):
        def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
            future = super().submit(function, *arguments)
            if len(self.folders) == 2:
                future = Future()
                future.set_exception(OutputError("cannot write: no space left on device"))
            return future

    full = Full(99)
    with RunFolder.create(tmp_path / "run", spec) as place, pytest.raises(OutputError, match="no space"):
        carry_on(place, executor=full)
    assert len(full.folders) == 2


def test_one_folder_has_one_master(solved: Path, spec: RunSpec) -> None:
    with RunFolder.reopen(solved), pytest.raises(OutputError, match="in use"):
        RunFolder.reopen(solved)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--overlap", "8"], 2, "--overlap is of tiles: give --tiles too"),
        (["--workers", "2"], 2, "--workers is for a run in tiles"),
        (["--tiles", "48", "--overlap", "48"], 2, "larger than that"),
        (["--tiles", "48", "--overlap", "3"], 2, "cannot be joined"),
        (["--tiles", "32", "--margin", "40"], 2, "smaller than their margin"),
        (["--tiles", "8"], 2, "too small"),
        (["--tiles", "big"], 2, "not a valid integer"),
        (["--tiles", "48", "--upsample", "2.5"], 2, "whole number of output pixels"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(
    words: list[str], code: int, said: str, field: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["run", "--data", str(field), "--solver", "ap", "--trust-leds", "--calibrate", "none", "--quiet"]
    assert main([*base, "--out", str(tmp_path / "run"), *words]) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_tile_larger_than_the_field_is_the_field(spec: RunSpec, tmp_path: Path) -> None:
    said: list[str] = []
    one = replace(spec, tiles=TilesSpec(200))
    document = running.run(one, tmp_path / "one", on_event=lambda event: said.append(event.get("text", "")))
    assert document["tiles"]["count"] == 1
    assert any("solved in one piece" in text for text in said)
    with pytest.raises(OptionError, match="reads its tiles from files"):
        running.resume(tmp_path / "one", dataset=fpmtools.load("sim:thin@16x24"))


def test_preview_render_and_evaluate(field: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    folder = tmp_path / "run"
    assert main(["run", "--data", str(field), *WORDS, "--workers", "1", "--preview", "--out", str(folder)]) == 0
    assert "6 tiles of 48 × 48" in capsys.readouterr().out
    with Image.open(folder / "preview.png") as picture:
        assert picture.size == (2 * 91, 72)
        assert np.asarray(picture).std() > 10
    assert (folder / "amplitude.png").is_file()
    assert not (folder / "loss.png").exists()
    assert main(["render", str(folder), "--out", str(tmp_path / "field.npy"), "--shape", "36,45"]) == 0
    assert np.load(tmp_path / "field.npy").shape == (36, 45)
    assert main(["evaluate", str(folder), "--truth", str(field)]) == 0
