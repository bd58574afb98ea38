"""Whole comparisons: isolated runs, honest rows, hostile solvers, Ctrl-C and going on afterwards."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fpmtools import comparison, metrics, processes, registry
from fpmtools.cli import main
from fpmtools.comparison.driving import Allowance, Driver
from fpmtools.comparison.spec import _capabilities
from fpmtools.comparison.trials import Source, Trial, interleaved
from fpmtools.dataset import Dataset, Truth
from fpmtools.errors import OptionError
from fpmtools.evaluation import evaluate
from fpmtools.formats import native
from fpmtools.leds import direction_sines, raster
from fpmtools.pupil import Pupil
from fpmtools.registry.entries import entries
from fpmtools.runs.spec import Outputs
from fpmtools.simulation import simulate

HOSTILE = """
import ctypes
import os
import signal
import time

import torch
from fpmtools_ap.solver import AlternatingProjection


class Segfault(AlternatingProjection):
    def step(self, state):
        ctypes.string_at(0)


class NotANumber(AlternatingProjection):
    def result(self, state):
        found = super().result(state)
        found.planes[-1, 0, 0] = float("nan")
        return found


class Hog(AlternatingProjection):
    kept = []

    def step(self, state):
        self.kept.append(torch.ones(25_000_000))
        return super().step(state).__class__(1, 1_000_000, 0.1)


class Endless(AlternatingProjection):
    def step(self, state):
        time.sleep(1e6)


class Leaves(AlternatingProjection):
    def step(self, state):
        os._exit(130)


class Presses(AlternatingProjection):
    def step(self, state):
        os.chdir("/")
        os.kill(os.getpid(), signal.SIGINT)
        return super().step(state)


class Parting(AlternatingProjection):
    def result(self, state):  # Ctrl-C arrives just before it has one, and comes to nothing
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(0.5)
        return super().result(state)
"""
HOOKS = """
from fpmtools import SolverRecord, hookimpl


@hookimpl
def fpmtools_solvers():
    classes = {"segfault": "Segfault", "nan": "NotANumber", "hog": "Hog", "endless": "Endless", "flat": "Segfault"}
    classes |= {"leaves": "Leaves", "presses": "Presses", "parting": "Parting"}
    places = {name: f"hostile_solvers:{cls}" for name, cls in classes.items()} | {"aborts": "aborting:Any"}
    return [
        SolverRecord(
            name=name, summary=name, solver=place, capabilities={"2d"} if name == "flat" else frozenset()
        )
        for name, place in places.items()
    ]
"""
PLANES = (-1.0, 0.0, 1.0)
SOLVERS = ("ap:sweeps=2", "ap:sweeps=1")
pytestmark = pytest.mark.usefixtures("warm_workers")


@pytest.fixture(scope="module")
def datasets() -> list[Dataset]:
    """9 LEDs; odd and even sizes, not square; with and without a truth."""
    na = direction_sines(raster(3, 3, 9.0), 74.0)
    small, large = (simulate("tilted", image_shape=shape, leds=na, tilt_um=2.0) for shape in ((17, 22), (18, 25)))
    return [replace(small, name="with truth"), replace(large, name="measured", truth=None)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comparison")


def compare(datasets: list[Dataset], folder: Path, **more: Any) -> comparison.Comparison:
    return comparison.compare(
        datasets, SOLVERS, z_um=PLANES, threads=1, seeds=(3,), held_out=False, out=folder, pictures=False, **more
    )


@pytest.fixture(scope="module")
def found(warm_workers: Callable[..., Any], datasets: list[Dataset], folder: Path) -> comparison.Comparison:
    """Two solvers on two data sets."""
    return compare(datasets, folder)


def test_rows_are_those_of_the_runs(found: comparison.Comparison, datasets: list[Dataset], folder: Path) -> None:
    assert found.complete
    assert not found.interrupted
    assert [(row["solver"], row["data"], row["seed"]) for row in found.rows] == [
        (solver, data, 3) for data in ("with truth", "measured") for solver in SOLVERS
    ]
    for row, run in zip(found.rows, found.runs, strict=True):
        dataset = next(one for one in datasets if one.name == row["data"])
        result = found.reconstructions[found.title(row)]
        assert run["folder"] == f"{row['solver'].replace(':', '_')}+{row['data'].replace(' ', '_')}"
        assert (folder / run["folder"] / "reconstruction.safetensors").is_file()
        assert (run["seed"], run["z_um"]) == (3, list(PLANES))
        assert row["seconds"] == row["seconds_min"] == row["seconds_max"] == run["times"]["solve_s"]
        steady = row["first_step_seconds"] + row["step_seconds"] * (run["steps"] - 1)
        assert row["seconds"] == pytest.approx(steady, rel=0.01, abs=1e-3)
        assert row["stored_bytes"] == result.stored_bytes
        assert 50 < row["peak_memory_mb"] < 5000
        assert row["residual_dark"] is None or math.isfinite(row["residual_dark"])
        if dataset.truth is None:
            assert row["psnr"] is None
            assert "quality_over_time" not in run
            assert row["residual"] == pytest.approx(metrics.residual(result, dataset)["all"], rel=1e-6)
            assert "ring_correlation" not in run
        else:
            assert row["held_out"] is None
            assert run["ring_correlation"]["of"] == "truth"
            expected = evaluate(result, dataset)
            assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-6)
            assert row["psnr"] == pytest.approx(metrics.score(result, dataset)["psnr"], rel=1e-6)
            (*_, last) = run["quality_over_time"]
            assert last["seconds"] <= row["seconds"]
            assert (last["psnr"], last["ssim"]) == (pytest.approx(row["psnr"]), pytest.approx(row["ssim"]))
    assert found.rows[0]["psnr"] != found.rows[1]["psnr"]
    assert {verdict.winner for verdict in found.verdicts} == {None}
    assert "one run" in found.verdicts[0].reason


def test_tables(found: comparison.Comparison, folder: Path) -> None:
    written = json.loads((folder / "results.json").read_text())
    assert written["rows"] == found.rows
    assert written["verdicts"] == [verdict.to_dict() for verdict in found.verdicts]
    assert [data["name"] for data in written["data"]] == ["with truth", "measured"]
    with (folder / "results.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["data"] for row in table] == [row["data"] for row in found.rows]
    assert float(table[0]["psnr"]) == found.rows[0]["psnr"]
    assert list(found.to_pandas()["solver"]) == [*SOLVERS, *SOLVERS]
    assert written["columns"]["held_out"]["better"] == "lower"
    assert written["columns"]["phase_rmse_rad"]["unit"] == "rad"
    assert set(written["columns"]) < set(table[0])


def test_resume_runs_what_is_missing_or_not_good(
    found: comparison.Comparison, datasets: list[Dataset], folder: Path
) -> None:
    """Of four runs one is lost and one has failed; the other two are kept, to the byte and the second."""
    lost, failed, *kept = [folder / run["folder"] / "run.json" for run in found.runs]
    lost.unlink()
    failed.write_text(failed.read_text().replace('"status": "done"', '"status": "diverged"').replace('"solved"', '"s"'))
    before = [path.stat().st_mtime_ns for path in kept]
    events: list[tuple[str, str]] = []
    again = compare(datasets, folder, resume=True, on_event=lambda title, event: events.append((title, event["event"])))
    again_run = [f"{solver} · with truth" for solver in SOLVERS]
    assert [title for title, event in events if event == "start"] == again_run
    assert {event for _, event in events} >= {"start", "progress", "quality", "measuring", "end"}
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert again.rows[2:] == found.rows[2:]
    assert [row["psnr"] for row in again.rows] == [row["psnr"] for row in found.rows]
    driver = Driver(folder, Allowance(), lambda title, event: None)
    for others in (
        [one.with_images(one.intensities * 2) for one in datasets],
        [one.with_calibration(pupil=Pupil(np.array([1.0, 0.3]))) for one in datasets],
        [replace(one, truth=Truth(np.ones((4, 5), np.complex64), np.zeros((4, 5), np.float32))) for one in datasets],
    ):
        assert not any(driver._kept(trial) for trial in trials(others, folder))
    assert all(driver._kept(trial) for trial in trials(datasets, folder))


def trials(datasets: list[Dataset], folder: Path) -> list[Trial]:
    sources = [
        Source(one.name, one.digest, folder / "other.file", PLANES, one.truth and one.truth.digest) for one in datasets
    ]
    outputs = {one: Outputs() for one in sources}
    same = {"threads": 1, "calibration": "nominal", "calibrate": "none"}
    return interleaved(comparison.check_solvers(SOLVERS), sources, (3,), 1, outputs, **same)  # type: ignore[arg-type]


@pytest.fixture
def hostile_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Installed solvers, none of which comes to a good end."""
    site = tmp_path / "site"
    info = site / "hostile-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "hostile.py").write_text(HOOKS)
    (site / "hostile_solvers.py").write_text(HOSTILE)
    (site / "aborting.py").write_text("import os\nos.abort()\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hostile\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fpmtools]\nhostile = hostile\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.syspath_prepend(site)
    forget()
    yield
    forget()


def forget() -> None:
    """Let the registry look again."""
    for cached in (registry._scan, registry._announced, entries, _capabilities):
        cached.cache_clear()


@pytest.mark.usefixtures("hostile_plugin")
def test_failures_are_rows_and_disturb_nobody(
    found: comparison.Comparison,
    datasets: list[Dataset],
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The one good solver's result is the same, bit for bit, as in the company of good ones."""
    data, out = native.save(datasets[0], tmp_path / "data.safetensors"), tmp_path / "out"
    solvers = "segfault,nan,hog,flat,ap:sweeps=2"
    arguments = ["--data", str(data), "--z=-1,0,1", "--seed", "3", "--threads", "1", "--quiet", "--out", str(out)]
    capsys.readouterr()
    assert main(["compare", "--solvers", solvers, *arguments, "--memory", "1.5GB"]) == 6
    lines = capsys.readouterr().out.splitlines()
    rows = {row["solver"]: row for row in json.loads((out / "results.json").read_text())["rows"]}
    assert {name: (row["status"], row["reason"]) for name, row in rows.items()} == {
        "segfault": ("failed", "killed by SIGSEGV"),
        "nan": ("diverged", "diverged: the result holds values that are not finite"),
        "hog": ("out of memory", "killed with more than 1500 MB"),
        "flat": ("skipped", "solver 'flat' takes one plane, not 3; give one z"),
        "ap:sweeps=2": ("done", ""),
    }
    assert rows["nan"]["psnr"] is None
    assert rows["ap:sweeps=2"]["psnr"] == found.rows[0]["psnr"]
    result = "reconstruction.safetensors"
    alone = folder / found.runs[0]["folder"] / result
    assert (out / "ap_sweeps=2" / result).read_bytes() == alone.read_bytes()
    assert lines[0].split()[:3] == ["solver", "status", "time"]
    assert [line.split()[0] for line in lines[2:7]] == solvers.split(",")
    assert "segfault: killed by SIGSEGV" in lines
    assert lines[-1].endswith("report.html")
    report = (out / "report.html").read_text()
    assert "killed by SIGSEGV" in report
    assert f"fpmtools compare --solvers {solvers} --data" in report
    assert "error map of ap:sweeps=2" in report


@pytest.mark.usefixtures("hostile_plugin")
def test_a_solver_that_never_ends_is_killed(datasets: list[Dataset], tmp_path: Path) -> None:
    found = comparison.compare(
        datasets[1], ["endless"], z_um=0, threads=1, timeout_s=4, held_out=False, out=tmp_path, pictures=False
    )
    assert [(row["status"], row["reason"]) for row in found.rows] == [("timed out", "killed after 4 s")]


@pytest.mark.usefixtures("hostile_plugin")
def test_nothing_that_a_solver_does_ends_the_comparison(
    datasets: list[Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as if by Ctrl-C, not at import; "presses" has a result, in the folder that was given relatively."""
    native.save(datasets[0], tmp_path / "data.safetensors")
    solvers = ("leaves", "aborts", "presses")
    arguments = ["--data", "data.safetensors", "--z", "0", "--threads", "1", "--quiet", "--out", "out"]
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "--solvers", ",".join(solvers), "--no-tracking", *arguments]) == 6
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert {row["solver"]: (row["status"], row["reason"]) for row in rows} == {
        "leaves": ("failed", "ended with exit code 130 without a result"),
        "presses": ("failed", "it interrupted itself"),
        "aborts": ("failed", "killed by SIGABRT"),
    }


@pytest.mark.usefixtures("hostile_plugin")
def test_mistakes_about_other_packages_solvers_are_said_at_once() -> None:
    for solver, says in (("hostlie", "unknown solver 'hostlie'"), ("endless:sweps=3", "did you mean 'sweeps'")):
        with pytest.raises(OptionError, match=says):
            comparison.check_solvers([solver])


@pytest.mark.usefixtures("hostile_plugin")
def test_ctrl_c_counts_when_a_run_was_about_to_end(
    datasets: list[Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_workers: Callable[..., Any]
) -> None:
    monkeypatch.setattr(processes, "_started", warm_workers)  # it signals its parent
    found = comparison.compare(
        datasets[1], ["parting", "ap"], z_um=0, threads=1, held_out=True, out=tmp_path, pictures=False
    )
    assert found.interrupted
    assert [row["status"] for row in found.rows] == ["done", "skipped"]
    assert found.rows[0]["residual"] is not None
    assert found.rows[0]["missing"] == "held_out: interrupted"


def test_interrupt(datasets: list[Dataset], tmp_path: Path, forked: Callable[..., Any]) -> None:
    """Ctrl-C reaches the solver under way once, which keeps its result; the next one is not started."""
    data = native.save(datasets[0], tmp_path / "data.safetensors")
    arguments = ["--data", str(data), "--z", "0", "--threads", "1", "--out", str(tmp_path / "out")]
    solvers = ["--solvers", "ap:sweeps=1000000:join_below=0,adam"]
    words = ["compare", "--json", "--progress", "json", *solvers, *arguments]
    with forked(words, stdout=subprocess.PIPE) as process:
        event: dict[str, Any] = {}
        while event.get("event") != "progress":
            event = json.loads(process.stderr.readline())
        assert event["run"] == "ap:sweeps=1000000:join_below=0"
        process.send_signal(signal.SIGINT)
        printed = json.loads(process.communicate()[0])
    assert event["remaining_s"] > 0
    assert process.returncode == 130
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert printed["rows"] == rows
    assert [row["status"] for row in rows] == ["interrupted", "skipped"]
    assert rows[0]["psnr"] is not None
    assert rows[1]["reason"] == "interrupted before its turn"


def test_mistakes(datasets: list[Dataset]) -> None:
    measured = datasets[1]
    for mistake, says in (
        (lambda: comparison.compare(measured, ["ap"], targets={"psnr": 20}), "needs a data set whose truth is known"),
        (lambda: comparison.compare([measured, measured], ["ap"]), "two data sets are called 'measured'"),
        (lambda: comparison.compare([], ["ap"]), "at least one data set"),
        (lambda: comparison.compare(measured, ["ap"], seeds=(1, 1)), "only once"),
        (lambda: comparison.compare(measured, ["ap"], resume=True), "resume needs out"),
        (lambda: comparison.compare(measured, ["ap"], repeats=0), "repeats"),
        (lambda: comparison.compare(measured, ["ap", "ap"]), "twice"),
    ):
        with pytest.raises(OptionError, match=says):
            mistake()
