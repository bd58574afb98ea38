"""The benchmark runner: isolated runs, honest rows, failures and Ctrl-C included."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fpmtools import comparison, metrics
from fpmtools.dataset import Dataset
from fpmtools.engine import reconstruct
from fpmtools.errors import OptionError
from fpmtools.formats import native
from fpmtools.leds import direction_sines, raster
from fpmtools.simulation import simulate

CRASHING = """
import os
from fpmtools import SolverError, SolverRecord, hookimpl
from fpmtools_ap.solver import AlternatingProjection


class Killed(AlternatingProjection):
    def step(self, state):
        os.kill(os.getpid(), 9)


class Failing(AlternatingProjection):
    def step(self, state):
        raise ValueError("the lamp\\nbroke")


@hookimpl
def fpmtools_solvers():
    classes = {"killed": "Killed", "failing": "Failing"}
    return [SolverRecord(name=name, summary=name, solver=f"crashing:{cls}") for name, cls in classes.items()]
"""


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    na = direction_sines(raster(3, 3, 9.0), 74.0)
    return simulate("tilted", image_shape=(17, 22), leds=na, tilt_um=2.0)


@pytest.fixture
def crashing_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two installed solvers that do not survive their first step."""
    site = tmp_path / "site"
    info = site / "crashing-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "crashing.py").write_text(CRASHING)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: crashing\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fpmtools]\nkilled = crashing\nfailing = crashing\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])]))


def test_spec() -> None:
    spec = comparison.Spec.parse("inr:preset=paper:epochs=5")
    assert (spec.solver, spec.options) == ("inr", (("preset", "paper"), ("epochs", "5")))
    assert comparison.Spec.parse("ap").options == ()
    assert comparison.Spec.parse("ap:x=a/b").folder == "ap_x=a_b"
    for bad in ("", "ap:sweeps", ":x=1", "ap:=1", "sweeps=3"):
        with pytest.raises(OptionError):
            comparison.Spec.parse(bad)


def test_rows_are_those_of_the_runs(dataset: Dataset, tmp_path: Path) -> None:
    """Two repeats, interleaved; medians and spread; the numbers of a saved result come out again."""
    events: list[tuple[str, str]] = []
    found = comparison.compare(
        dataset,
        ["ap:sweeps=2", "ap:sweeps=1"],
        z_um=0.5,
        repeats=2,
        threads=1,
        seed=3,
        out=tmp_path,
        on_event=lambda solver, line: events.append((solver, line)),
    )
    assert found.complete
    assert [(run["label"], run["repeat"]) for run in found.runs] == [
        ("ap:sweeps=2", 0), ("ap:sweeps=1", 0), ("ap:sweeps=2", 1), ("ap:sweeps=1", 1)
    ]  # fmt: skip
    assert {solver for solver, _ in events} == {"ap:sweeps=2", "ap:sweeps=1"}
    for row in found.rows:
        runs = [run for run in found.runs if run["label"] == row["solver"]]
        assert {run["seed"] for run in runs} == {3}
        assert runs[0]["z_um"] == [0.5]
        seconds = [run["times"]["solve_s"] for run in runs]
        assert row["seconds"] == pytest.approx(sum(seconds) / 2)
        assert (row["seconds_min"], row["seconds_max"]) == (min(seconds), max(seconds))
        result = found.reconstructions[row["solver"]]
        assert row["psnr"] == pytest.approx(metrics.score(result, dataset)["psnr"], rel=1e-6)
        assert row["stored_bytes"] == result.stored_bytes
        assert row["dense_ratio"] == pytest.approx(34 * 44 * 8 / result.stored_bytes)
        assert 50 < row["peak_memory_mb"] < 5000
        assert row["residual_dark"] is None or math.isfinite(row["residual_dark"])
    assert found.rows[0]["psnr"] != found.rows[1]["psnr"]
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["rows"] == found.rows
    with (tmp_path / "results.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["solver"] for row in table] == ["ap:sweeps=2", "ap:sweeps=1"]
    assert float(table[0]["psnr"]) == found.rows[0]["psnr"]
    assert list(found.to_pandas()["solver"]) == ["ap:sweeps=2", "ap:sweeps=1"]


@pytest.mark.usefixtures("crashing_plugin")
def test_failures_are_rows_and_disturb_nobody(dataset: Dataset, tmp_path: Path) -> None:
    data = native.save(dataset, tmp_path / "data.safetensors")
    arguments = ["--data", str(data), "--z", "0", "--threads", "1", "--quiet", "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "fpmtools", "compare", "--solvers", "killed,failing,ap:sweeps=2", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 6, done.stderr
    rows = {row["solver"]: row for row in json.loads((tmp_path / "out" / "results.json").read_text())["rows"]}
    assert [row["status"] for row in rows.values()] == ["failed", "failed", "done"]
    assert "SIGKILL" in rows["killed"]["reason"]
    assert rows["failing"]["reason"] == "Failing failed: ValueError: the lamp broke"
    assert rows["failing"]["psnr"] is None
    alone = metrics.score(reconstruct(dataset, "ap", options={"sweeps": 2}, z_um=0.0), dataset)
    assert rows["ap:sweeps=2"]["psnr"] == pytest.approx(alone["psnr"], rel=1e-5)
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 1000
    lines = done.stdout.splitlines()
    assert lines[0].split()[:3] == ["solver", "status", "seconds"]
    assert [line.split()[:2] for line in lines[2:5]] == [
        ["killed", "failed"],
        ["failing", "failed"],
        ["ap:sweeps=2", "done"],
    ]
    assert "failing: Failing failed: ValueError: the lamp broke" in lines
    assert lines[-2].endswith("comparison.png")
    assert lines[-1].endswith("report.html")
    report = (tmp_path / "out" / "report.html").read_text()
    assert "ValueError: the lamp broke" in report
    assert "fpmtools compare --solvers killed,failing,ap:sweeps=2 --data" in report
    assert "error map of ap:sweeps=2" in report


def test_interrupt(dataset: Dataset, tmp_path: Path) -> None:
    """Ctrl-C reaches the solver under way once, which keeps its result; the next one is not started."""
    data = native.save(dataset, tmp_path / "data.safetensors")
    arguments = ["--data", str(data), "--z", "0", "--threads", "1", "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "fpmtools", "compare", "--json"]
    command += ["--solvers", "ap:sweeps=1000000:halve_below=0,adam"]
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        while "PSNR" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        printed = json.loads(process.stdout.read())
        process.stderr.read()
    assert process.returncode == 130
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert printed["rows"] == rows
    assert [row["status"] for row in rows] == ["interrupted", "not run"]
    assert rows[0]["psnr"] is not None
    assert rows[1]["reason"] == "interrupted before its turn"
