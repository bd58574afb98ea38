"""``run.log``: what is in it, that nothing of it is lost, and that no run depends on it."""

from __future__ import annotations

import datetime
import json
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fpmtools.cli import main
from fpmtools.errors import SolverError
from fpmtools.runs import log, running
from fpmtools.runs.folder import RESULT_FILE
from fpmtools.runs.spec import DataSpec, Limits, Outputs, RunSpec

NOTHING = Outputs(track=False, measures=(), pictures=())


@pytest.fixture
def spec(data_file: Path) -> RunSpec:
    return RunSpec(DataSpec(str(data_file)), "ap", {"sweeps": 3}, z_um=(0.0,), device="cpu", outputs=NOTHING)


def lines(folder: Path) -> list[str]:
    """Of the log, each with a time that is not before the one above it, without it."""
    told = (folder / "run.log").read_text(encoding="utf-8").splitlines()
    times = [datetime.datetime.fromisoformat(line.partition(" ")[0]) for line in told]
    assert times == sorted(times)
    assert all(at.tzinfo is not None for at in times)
    return [line.partition(" ")[2] for line in told]


def test_it_says_what_was_done(spec: RunSpec, data_file: Path, tmp_path: Path) -> None:
    about = running.run(replace(spec, outputs=Outputs(False, ("psnr",), ())), tmp_path / "run")
    told = lines(tmp_path / "run")
    assert told[0].startswith(f"the run begins: spec {spec.digest[:16]}, process {os.getpid()}")
    assert f"torch {about['versions']['torch']}" in told[1]
    assert "solver ap with sweeps=3, seed 0" in told
    assert any(line.startswith("data ") and about["data"]["digest"][:16] in line for line in told)
    assert any(line.startswith("calibration: ") for line in told)
    assert f"device cpu, threads {about['resolved']['threads']}" in told
    assert "measuring: metric psnr" in told
    assert re.fullmatch(rf"ended: done, .* of solving, psnr {about['metrics']['psnr']:.5g}", told[-1])
    assert "run.log" in about["files"]


def test_what_calibrating_keeps_is_there_with_its_reason(tmp_path: Path) -> None:
    data = "sim:thin+noise+aberrated@48x56"
    about = running.run(RunSpec(data, "ap", {"sweeps": 1}, calibrate="pupil", outputs=NOTHING), tmp_path / "run")
    judged = about["data"]["calibration"]["joint"]["groups"]["pupil"]
    numbers = f"{judged['without']:.3g} → {judged['with']:.3g}  {'kept' if judged['kept'] else 'not kept'}"
    assert any(line.startswith("calibration: aberrations") and numbers in line for line in lines(tmp_path / "run"))


def test_a_resume_adds_to_it_and_a_finished_run_is_left_alone(spec: RunSpec, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    running.run(replace(spec, limits=Limits(1e-9)), folder)
    first = lines(folder)
    assert first[-1].startswith("ended: stopped")
    running.resume(folder, budget_s=60.0)
    told = lines(folder)
    assert told[: len(first)] == first
    assert told[len(first)].startswith("the run goes on: ")
    assert told[-1].startswith("ended: done")
    running.resume(folder)
    assert lines(folder) == told
    running.run(spec, folder, force=True)
    assert lines(folder)[0].startswith("the run begins: ")
    assert sum(line.startswith("ended") for line in lines(folder)) == 1


def test_errors_are_told(spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise SolverError("out of \x1b[2J steam")

    monkeypatch.setattr("fpmtools.engine.solve", fail)
    with pytest.raises(SolverError):
        running.run(spec, tmp_path / "run")
    assert lines(tmp_path / "run")[-1] == r"ended: out of \x1b[2J steam"


def test_kill_9_loses_no_line(data_file: Path, tmp_path: Path, forked: Callable[..., Any]) -> None:
    folder = tmp_path / "run"
    words = ["run", "--data", str(data_file), "--solver", "ap", "-o", "sweeps=100000", "--z", "0", "-v", "--quiet"]
    words += ["-o", "join_below=0", "-o", "halve_below=0", "--no-tracking", "--calibrate", "none", "--out", str(folder)]
    with forked(words) as process:
        shown = b""
        while b"device cpu" not in shown and (more := os.read(process.stderr.fileno(), 1)):
            shown += more
        assert b"device cpu" in shown, shown.decode()
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    kept = (folder / "run.log").read_text().splitlines()
    assert kept[: len(shown.splitlines()) - 1] == shown.decode().splitlines()[:-1]
    assert not any("ended" in line for line in kept)


@pytest.mark.parametrize("how", ["link", "folder"])
def test_no_link_is_followed_and_no_run_ends_for_it(how: str, spec: RunSpec, tmp_path: Path) -> None:
    folder, other = tmp_path / "run", tmp_path / "mine.txt"
    other.write_text("mine")
    running.run(replace(spec, limits=Limits(1e-9)), folder)
    (folder / "run.log").unlink()
    if how == "link":
        (folder / "run.log").symlink_to(other)
    else:
        (folder / "run.log").mkdir()
    events: list[dict[str, Any]] = []
    assert running.resume(folder, budget_s=60.0, on_event=events.append)["status"] == "done"
    assert other.read_text() == "mine"
    warnings = [event["text"] for event in events if event["event"] == "warning" and "run.log" in event["text"]]
    assert len(warnings) == 1
    assert warnings[0].endswith("the run goes on without it")


def test_progress_is_told_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    told, tell = [], log.Lines()
    for step in range(1, 101):
        now = 0.25 * step
        told.append(tell({"event": "progress", "step": step, "total": 100, "loss": 1.0, "seconds": now}))
    assert [i + 1 for i, line in enumerate(told) if line] == [1, 41, 81, 100]


@pytest.mark.usefixtures("warm_workers")
def test_verbose_shows_the_same_lines(data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", str(data_file), "-o", "sweeps=2", "--z", "0", "--calibrate", "none", "--no-tracking"]
    folder = tmp_path / "run"
    assert main(["run", "--solver", "ap", *words, "-v", "--quiet", "--out", str(folder)]) == 0
    assert capsys.readouterr().err == (folder / "run.log").read_text()
    more = ["--progress", "json", "--calibrate", "none", "--no-tracking", "--z", "0", "--out", str(tmp_path / "all")]
    assert main(["compare", "--data", str(data_file), "--solvers", "ap:sweeps=1", "-v", *more]) == 0
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    own = next((tmp_path / "all").glob("ap*/run.log")).read_text().splitlines()
    said = [event["text"] for event in events if event["event"] == "log" and event["run"].startswith("ap")]
    assert [line for line in said if line in own] == own
    assert main(["calibrate", str(data_file), "-v", "--quiet", "--out", str(tmp_path / "c.safetensors")]) == 0
    assert " calibration: " in capsys.readouterr().err
    assert (folder / RESULT_FILE).is_file()
