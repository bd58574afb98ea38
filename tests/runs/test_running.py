"""Whole runs in real folders: what they leave, what is in ``run.json``, and going on from wherever one was left."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

import fpmtools
from fpmtools import engine
from fpmtools.dataset import Dataset
from fpmtools.errors import DataError, OptionError, OutputError
from fpmtools.evaluation import evaluate
from fpmtools.formats import native
from fpmtools.report import pictures
from fpmtools.results import open_result
from fpmtools.runs import measuring, running, tasks
from fpmtools.runs.folder import RunFolder
from fpmtools.runs.journal import Found, Journal
from fpmtools.runs.preview import BRIGHTEST, Canvas
from fpmtools.runs.spec import DataSpec, Limits, Outputs, RunSpec

RESULT = "reconstruction.safetensors"
FILES = {
    "amplitude.png", "amplitude.tiff", "evidence.jsonl", "loss.png", "phase.png", "phase.tiff", RESULT, "run.json",
    "run.log", "stack.gif",
}  # fmt: skip


@pytest.fixture
def spec(data_file: Path) -> RunSpec:
    return RunSpec(DataSpec(str(data_file)), "ap", {"sweeps": 4}, z_um=(-1.0, 0.0, 1.0), device="cpu")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_run_leaves_everything(spec: RunSpec, dataset: Dataset, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    document = running.run(spec, tmp_path / "run", on_event=events.append, command=["fpmtools", "run"])
    folder = tmp_path / "run"
    assert names(folder) == FILES == set(document["files"])
    assert {event["event"] for event in events} == {"log", "warning", "progress", "looking", "quality", "measuring"}
    about = json.loads((folder / "run.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert about == document
    result = open_result(folder)
    assert tifffile.imread(folder / "amplitude.tiff").shape == (3, *result.grid.shape)
    with Image.open(folder / "stack.gif") as gif:
        assert gif.n_frames == 3
    assert (about["schema"], about["status"], about["solved"]) == (1, "done", "done")
    assert RunSpec.from_dict(about["spec"]) == spec
    threads = about["resolved"]["threads"]
    assert threads == (spec.threads or threads)
    assert about["resolved"] == {"threads": threads, "device": "cpu", "digest": dataset.digest}
    assert about["data"]["digest"] == dataset.digest
    assert (about["solver"], about["options"]["sweeps"], about["seed"]) == ("ap", 4, 0)
    assert about["dense_ratio"] == pytest.approx(about["dense_bytes"] / about["stored_bytes"])
    assert about["versions"]["fpmtools"] == fpmtools.__version__
    assert about["hardware"]["threads"] == threads
    assert about["missing"] == {}


def test_a_plane_leaves_the_first_pictures_of_what_it_does_not_explain(spec: RunSpec, tmp_path: Path) -> None:
    noisy = native.save(fpmtools.simulate("thin", image_shape=(20, 24), photons=500), tmp_path / "noisy.safetensors")
    document = running.run(replace(spec, data=DataSpec(str(noisy)), z_um=(0.0,)), tmp_path / "run")
    assert (FILES - {"stack.gif"}) | {"residual.png"} == set(document["files"]) == names(tmp_path / "run")
    left = document["fit"]["residual"]
    assert np.square(left["pictures"][0]).mean() == pytest.approx(1, rel=1e-3)
    assert 1 > left["shares"][0] > left["shares"][1] > 0
    assert len(left["loads"][0]) == document["data"]["leds"]


def test_metrics_are_flat_and_those_of_evaluate(spec: RunSpec, dataset: Dataset, tmp_path: Path) -> None:
    document = running.run(spec, tmp_path / "run")
    expected = evaluate(open_result(tmp_path / "run"), dataset, list(document["metrics"]))
    assert {name: value for name, value in document["metrics"].items() if value is not None} == pytest.approx(expected)
    assert {"psnr", "ssim", "rmse", "residual", "residual_bright"} <= set(document["metrics"])


def test_outputs_are_what_is_asked_for(spec: RunSpec, tmp_path: Path) -> None:
    outputs = Outputs(track=False, measures=("stored_bytes", tasks.RINGS_TRUTH), pictures=("report",), warm_up=True)
    document = running.run(replace(spec, outputs=outputs), tmp_path / "run")
    assert names(tmp_path / "run") == {RESULT, "run.json", "run.log", "evidence.jsonl", "rendered.safetensors"}
    assert document["metrics"] == {"stored_bytes": document["stored_bytes"]}
    assert document["ring_correlation"]["of"] == "truth"
    nothing = running.run(replace(spec, outputs=Outputs(False, (), ())), tmp_path / "nothing")
    assert names(tmp_path / "nothing") == {RESULT, "run.json", "run.log"}
    assert "quality_over_time" not in nothing
    assert (tmp_path / "run" / RESULT).read_bytes() == (tmp_path / "nothing" / RESULT).read_bytes()


def test_a_preview_shows_what_there_is_and_changes_nothing(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = replace(spec, outputs=Outputs(track=False, measures=(), pictures=()))
    running.run(spec, tmp_path / "plain")
    drawn = []
    monkeypatch.setattr(engine, "PREVIEW_EVERY_S", 0.0)
    monkeypatch.setattr(engine, "PREVIEW_SHARE", math.inf)
    write = Canvas.write
    monkeypatch.setattr(Canvas, "write", lambda canvas: (drawn.append(canvas), write(canvas)))
    with RunFolder.create(tmp_path / "run", spec) as place:
        running.carry_on(place, preview=True)
    assert len(drawn) > 1
    grid = open_result(tmp_path / "run").grid
    with Image.open(tmp_path / "run" / "preview.png") as picture:
        assert picture.size == (2 * grid.shape[1], grid.shape[0])
        levels = np.asarray(picture)
    amplitude = np.abs(open_result(tmp_path / "run").field(0.0))
    assert np.abs(levels[:, : grid.shape[1]] / 255 * BRIGHTEST - np.clip(amplitude, 0, BRIGHTEST)).max() < 0.02
    assert (tmp_path / "run" / RESULT).read_bytes() == (tmp_path / "plain" / RESULT).read_bytes()
    running.run(spec, tmp_path / "run", force=True)
    assert not (tmp_path / "run" / "preview.png").exists()


def test_a_preview_that_cannot_be_drawn_is_given_up(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "PREVIEW_EVERY_S", 0.0)
    monkeypatch.setattr(engine, "PREVIEW_SHARE", math.inf)
    monkeypatch.setattr(Canvas, "write", lambda canvas: 1 / 0)
    events: list[dict[str, Any]] = []
    with RunFolder.create(tmp_path / "run", replace(spec, outputs=Outputs(False, (), ()))) as place:
        assert running.carry_on(place, preview=True, on_event=events.append)["status"] == "done"
    told = [event["text"] for event in events if event["event"] == "warning" and "preview" in event["text"]]
    assert told == ["no preview: ZeroDivisionError: division by zero"]


def test_an_older_run_is_replaced_and_other_files_are_left(spec: RunSpec, tmp_path: Path) -> None:
    running.run(spec, tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    running.run(replace(spec, z_um=(1.5,)), tmp_path, force=True)
    assert names(tmp_path) == (FILES - {"stack.gif"}) | {"notes.txt"}
    assert open_result(tmp_path).grid.z_range == (1.5, 1.5)


def test_what_cannot_begin_leaves_nothing(spec: RunSpec, tmp_path: Path) -> None:
    wrong = [
        (replace(spec, data=DataSpec("nothing.mat")), DataError),
        (replace(spec, data=replace(spec.data, digest="abc")), DataError),
        (replace(spec, options={"sweps": 3}), OptionError),
        (replace(spec, solver="app"), OptionError),
        (replace(spec, loss="feature"), OptionError),
        (replace(spec, calibration="file.json"), DataError),
    ]
    for one, error in wrong:
        with pytest.raises(error):
            running.run(one, tmp_path / "run")
        assert not list(tmp_path.iterdir()), one


def test_a_failed_solve_says_so_and_can_be_tried_again(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("fpmtools_ap.solver.AlternatingProjection.step", lambda *_: 1 / 0)
        with pytest.raises(fpmtools.SolverError):
            running.run(spec, tmp_path / "run")
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (about["status"], "ZeroDivisionError" in about["reason"]) == ("failed", True)
    assert running.resume(tmp_path / "run")["status"] == "done"


def test_history_and_quality_survive_a_resume(spec: RunSpec, tmp_path: Path) -> None:
    endless = replace(spec, options={"sweeps": 100_000, "join_below": 0}, limits=Limits(budget_s=0.4))
    first = running.run(endless, tmp_path / "run")
    assert first["status"] == "stopped"
    again = running.resume(tmp_path / "run")
    assert again == first, "its budget is used up: nothing is left to do"
    second = running.resume(tmp_path / "run", budget_s=1.0)
    assert second["status"] == "stopped"
    assert second["steps"] > first["steps"]
    assert second["history"][: len(first["history"])] == first["history"]
    seen, before = (document["quality_over_time"] for document in (second, first))
    assert seen[: len(before) - 1] == before[:-1]
    assert second["times"]["solve_s"] >= 1.0


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("end", [Killed, KeyboardInterrupt])
def test_what_is_measured_is_not_solved_again(
    end: type[BaseException], spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was ended while numbers were taken goes on with the one it was at, and gives up on that when the
    process has died there three times, but not when somebody pressed Ctrl-C."""

    def killed(*_: Any, **__: Any) -> Any:
        raise end

    take = measuring._Measured.take
    with monkeypatch.context() as patch:
        patch.setattr(
            measuring._Measured, "take", lambda run, task: killed() if "residual" in task else take(run, task)
        )
        with pytest.raises(end):
            running.run(spec, tmp_path / "run")
        for _ in range(2):
            with pytest.raises(end):
                running.resume(tmp_path / "run")
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (about["status"], about["solved"]) == ("running", "done")
    assert "psnr" in {tasks.metric_name(one) for one in Journal(tmp_path / "run").read().ended}
    monkeypatch.setattr(engine, "solve", killed)
    document = running.resume(tmp_path / "run")
    assert document["status"] == "done"
    assert document["missing"] == ({"residual": "the process ended here, 3 times"} if end is Killed else {})
    assert document["metrics"]["residual_bright"] > 0
    assert set(document["files"]) == names(tmp_path / "run") == FILES


@pytest.mark.parametrize("error", [None, ValueError("Invalid bounding box")], ids=["swallowed", "another error"])
def test_ctrl_c_that_a_step_makes_something_else_of(
    error: Exception | None, spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As C code does that calls Python back: the run is interrupted, and the step is taken when it is resumed."""

    def draw(*_: Any) -> list[str]:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            if error is not None:
                raise error from None
        return []

    with monkeypatch.context() as patch:
        patch.setattr(pictures, "draw", draw)
        with pytest.raises(KeyboardInterrupt):
            running.run(spec, tmp_path / "run")
    document = running.resume(tmp_path / "run")
    assert document["missing"] == {}
    assert set(document["files"]) == names(tmp_path / "run") == FILES


def test_a_step_that_raises_leaves_its_own_cell_empty(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "draw", lambda *_: 1 / 0)
    document = running.run(spec, tmp_path / "run")
    assert document["missing"] == {"files": "ZeroDivisionError: division by zero"}
    assert document["status"] == "done"


@contextmanager
def disk_that_holds(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes: writing fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_disk_full_keeps_the_reconstruction_and_can_be_resumed(spec: RunSpec, tmp_path: Path) -> None:
    spec = replace(spec, data=replace(spec.data))
    running.run(spec, tmp_path / "before")
    size = (tmp_path / "before" / "amplitude.tiff").stat().st_size
    assert size > (tmp_path / "before" / RESULT).stat().st_size + 500
    with disk_that_holds(size - 400), pytest.raises(OutputError, match=r"cannot write .*\.tiff"):
        running.run(spec, tmp_path / "run")
    assert names(tmp_path / "run") == {RESULT, "run.json", "run.log", "evidence.jsonl"}
    assert running.resume(tmp_path / "run")["missing"] == {}
    for name in (RESULT, "amplitude.tiff"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "before" / name).read_bytes()


def test_stills_show_the_known_defocus(dataset: Dataset) -> None:
    known = dataset.with_calibration(defocus_um=1.0)
    assert pictures.shown_z_um(known, (0.0, 0.5, 1.0)) == 1.0
    assert pictures.shown_z_um(known, (4.0, 5.0, 6.0)) == 5.0
    assert pictures.shown_z_um(dataset, (0.0, 0.5, 1.0)) == 0.5


def test_a_worker_runs_the_spec_beside_it(spec: RunSpec, tmp_path: Path) -> None:
    """Its events are JSON lines on its stderr, also where a plugin has closed that."""
    (tmp_path / "spec.json").write_text(json.dumps(spec.to_dict()))
    command = [sys.executable, "-m", "fpmtools.runs.worker", str(tmp_path / "spec.json"), str(os.getpid())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert {json.loads(line)["event"] for line in done.stderr.splitlines()} >= {"progress", "quality", "measuring"}
    assert names(tmp_path) == FILES | {"spec.json"}
    (tmp_path / "spec.json").write_text(json.dumps({**spec.to_dict(), "sed": 3}))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert json.loads(line) == {
        "event": "error",
        "status": "failed",
        "message": "unknown key of a run's description: 'sed': did you mean 'seed'?",
    }


def test_a_worker_ends_with_who_started_it(spec: RunSpec, tmp_path: Path) -> None:
    endless = replace(spec, options={"sweeps": 100_000_000, "join_below": 0})
    RunFolder.create(tmp_path / "run", endless).close()
    code = (
        "import os, subprocess, sys, time\n"
        "file = sys.argv[1]\n"
        "worker = subprocess.Popen([sys.executable, '-m', 'fpmtools.runs.worker', file, str(os.getpid())],"
        " stderr=subprocess.DEVNULL)\n"
        "print(worker.pid, flush=True)\n"
        "while 'resolved' not in open(file).read(): time.sleep(0.05)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run" / "run.json")]
    worker = int(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    assert ended(lambda: not running_still(worker))


def running_still(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ended(there: Callable[[], bool]) -> bool:
    import time

    begun = time.monotonic()
    while not there() and time.monotonic() - begun < 10:
        time.sleep(0.05)
    return there()


def test_the_threads_of_the_first_start_are_those_of_a_resume(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = replace(spec, threads=2, options={"sweeps": 100_000, "join_below": 0}, limits=Limits(budget_s=0.2))
    running.run(asked, tmp_path / "run")
    with RunFolder.reopen(tmp_path / "run") as place:
        place.document["spec"] = replace(asked, threads=None).to_dict()
        place.update()
    said: list[str] = []
    document = running.resume(
        tmp_path / "run", budget_s=0.5, on_event=lambda event: said.append(str(event.get("text", "")))
    )
    assert document["hardware"]["threads"] == 2
    assert not any("starts afresh" in text for text in said)


def test_journals_of_an_earlier_result_do_not_count(spec: RunSpec, tmp_path: Path) -> None:
    running.run(spec, tmp_path / "run")
    Journal(tmp_path / "run").end(tasks.metric_task("psnr"), Found(1e9))
    document = running.run(spec, tmp_path / "run", force=True)
    assert document["metrics"]["psnr"] < 100


def test_the_data_must_be_those_of_the_start(spec: RunSpec, dataset: Dataset, tmp_path: Path) -> None:
    file = native.save(dataset, tmp_path / "data.safetensors")
    here = replace(spec, data=DataSpec(str(file)), options={"sweeps": 9}, limits=Limits(budget_s=1e-6))
    running.run(here, tmp_path / "run")
    native.save(dataset.with_images(dataset.intensities * np.float32(2)), file)
    with pytest.raises(DataError, match="they have changed"):
        running.resume(tmp_path / "run", budget_s=9.0)
