"""What is found out about runs after they have ended, among metrics and results that crash, hang and raise."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fpmtools import comparison, metrics, reconstruct, registry
from fpmtools.cli import main
from fpmtools.comparison import driving, evidence
from fpmtools.comparison.trials import Source
from fpmtools.dataset import Dataset
from fpmtools.errors import DataError
from fpmtools.formats import native
from fpmtools.leds import direction_sines, raster
from fpmtools.reconstruction import Reconstruction
from fpmtools.records import MetricRecord
from fpmtools.registry.entries import entries
from fpmtools.simulation import simulate

PARTS = """
import os
import time
from pathlib import Path

from fpmtools import PlaneStack
from fpmtools_ap.solver import AlternatingProjection


def planes(case):
    return len(case.reconstruction.z_um)


def aborting(case):
    os.abort()


def raising(case):
    raise RuntimeError("no <b>number</b>")


def hanging(case):
    time.sleep(1e6)


class Crashing(PlaneStack):
    kind = "crashing"

    def native_field(self, z_um):
        os.abort()


class Raising(PlaneStack):
    kind = "raising"

    def native_field(self, z_um):
        raise RuntimeError("no picture")


class Locked(PlaneStack):
    kind = "locked"

    @classmethod
    def restore(cls, grid, tensors, config):
        os.abort()


class Crash(AlternatingProjection):
    result_class = Crashing

    def result(self, state):
        found = super().result(state)
        return self.result_class(found.planes, found.z_um, found.grid)


class Raise(Crash):
    result_class = Raising


class Lock(Crash):
    result_class = Locked
"""
HOOKS = """
from fpmtools import MetricRecord, SolverRecord, hookimpl


@hookimpl
def fpmtools_metrics():
    return [
        MetricRecord(name=n, summary=f"For a <i>test</i>, {n}", unit="parsec", better="higher", measure=f"parts:{n}")
        for n in WANTED
    ]


@hookimpl
def fpmtools_solvers():
    return [
        SolverRecord(name=n, summary=n, solver=f"parts:{n.title()}", reconstructions={kind: f"parts:{kind.title()}"})
        for n, kind in {"crash": "crashing", "raise": "raising", "lock": "locked"}.items()
    ]
"""
AP = "ap:sweeps=2"
pytestmark = pytest.mark.usefixtures("warm_workers")


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """9 LEDs of 17 × 22 pixels, with a truth."""
    na = direction_sines(raster(3, 3, 9.0), 74.0)
    return replace(simulate("tilted", image_shape=(17, 22), leds=na, tilt_um=2.0), name="small")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """``install(*metrics)``: a plugin with bad solvers and these of its metrics."""

    def add(*names: str) -> None:
        site = tmp_path / "site"
        info = site / "bad-1.0.dist-info"
        info.mkdir(parents=True)
        (site / "bad.py").write_text(f"WANTED = {names!r}\n{HOOKS}")
        (site / "parts.py").write_text(PARTS)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad\nVersion: 1.0\n")
        entries = "".join(f"{name} = bad\n" for name in ("crash", "raise", "lock"))
        (info / "entry_points.txt").write_text(f"[fpmtools]\n{entries}")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])]))
        monkeypatch.syspath_prepend(site)
        forget()

    yield add
    forget()


def forget() -> None:
    """Let the registry look again."""
    for cached in (registry._scan, registry._announced, entries):
        cached.cache_clear()


def compare(dataset: Dataset, folder: Path, *solvers: str, **more: Any) -> comparison.Comparison:
    solvers = solvers or (AP,)
    return comparison.compare(dataset, solvers, z_um=(-1.0, 1.0), threads=1, out=folder, pictures=False, **more)


@pytest.fixture(scope="module")
def plain(
    warm_workers: Callable[..., Any], dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> comparison.Comparison:
    """Nothing but one good solver."""
    return compare(dataset, tmp_path_factory.mktemp("plain"))


def test_bad_metrics_cost_their_own_cell_and_nothing_else(
    dataset: Dataset,
    plain: comparison.Comparison,
    tmp_path: Path,
    install: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One of a third party's metrics works, the others abort, raise and hang; built-in numbers are as without them."""
    install("aborting", "planes", "hanging", "raising")
    monkeypatch.setattr(driving, "SILENT_S", 4.0)
    found = compare(dataset, tmp_path / "out")
    ((row,), (before,)) = (found.rows, plain.rows)
    assert found.complete
    assert (row["status"], row["reason"], row["planes"]) == ("done", "", 2)
    assert row["aborting"] is row["hanging"] is row["raising"] is None
    assert row["missing"] == (
        "aborting: killed by SIGABRT; hanging: killed after 4 s; "
        "raising: metric 'raising' of bad 1.0: RuntimeError: no <b>number</b>"
    )
    timed = {"seconds", "peak_memory_mb", "missing"}
    same = [key for key in before if not any(key.startswith(name) or "seconds" in key for name in timed)]
    assert {key: row[key] for key in same} == {key: before[key] for key in same}
    assert len(same) > 25
    planes = found.columns["planes"]
    assert (planes.unit, planes.better, planes.summary) == ("parsec", "higher", "For a <i>test</i>, planes")


def test_results_that_cannot_be_drawn_lose_their_own_pictures(
    dataset: Dataset, tmp_path: Path, install: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """``field()`` aborts or raises, or the result cannot even be opened: the others' pictures and numbers are there."""
    install()
    data, out = native.save(dataset, tmp_path / "data.safetensors"), tmp_path / "out"
    arguments = ["--z=-1,1", "--exact", "--threads", "1", "--quiet", "--out", str(out), "--json"]
    capsys.readouterr()
    assert main(["compare", "--data", str(data), *arguments, "--solvers", f"crash,raise,lock,{AP}"]) == 6
    printed = json.loads(capsys.readouterr().out)
    crash, raised, lock, good = printed["rows"]
    assert [row["status"] for row in printed["rows"]] == ["done", "done", "failed", "done"]
    assert "its field cannot be rendered: killed by SIGABRT" in crash["missing"]
    assert "solved again without" in crash["missing"]
    assert "its field cannot be rendered: RuntimeError: no picture" in raised["missing"]
    assert "its result cannot be opened: killed by SIGABRT" in lock["reason"]
    assert crash["stored_bytes"] == raised["stored_bytes"] == good["stored_bytes"]
    assert crash["seconds"] > 0
    assert crash["psnr"] is raised["psnr"] is lock["psnr"] is None
    assert good["psnr"] > 10
    assert {"comparison.png", "report.html"} <= set(printed["files"])
    page = (out / "report.html").read_text()
    assert "its field cannot be rendered: killed by SIGABRT" in page
    assert page.count("error map of") == 1
    picture = (out / "comparison.png").read_bytes()
    assert main(["report", str(out), "--figures"]) == 0  # here the plugin is not installed
    assert (out / "report.html").read_text() == page
    assert len(picture) > 10_000
    assert (out / "figures" / "side_by_side.svg").is_file()


def test_held_out_and_halves_are_solved_apart_and_kept(
    dataset: Dataset, plain: comparison.Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The numbers are those that the metrics give by themselves; the solver's own are untouched; nothing runs twice."""
    phases: list[tuple[str, str]] = []
    more = {"held_out": True, "ring_correlation": True, "seeds": (0,)}
    found = compare(
        dataset, tmp_path / "out", on_event=lambda _, e: phases.append((e["event"], e.get("phase"))), **more
    )
    assert [phase for event, phase in phases if event == "start"] == [
        None, "without held-out LEDs", "half 1 of the LEDs", "half 2 of the LEDs", "measuring",
    ]  # fmt: skip
    ((row,), (run,)) = (found.rows, found.runs)
    assert row["psnr"] == plain.rows[0]["psnr"]

    def solve(part: Dataset) -> Reconstruction:
        return reconstruct(part, "ap", options={"sweeps": 2}, z_um=(-1.0, 1.0), seed=0, device="cpu")

    planes = metrics.planes_needed_um(found.reconstructions[AP], dataset)
    assert row["held_out"] == pytest.approx(metrics.held_out_error(dataset, solve, z_um=planes), rel=1e-4)
    rings = metrics.half_data_correlation(dataset, solve)
    assert row["ring_resolution_um"] == pytest.approx(rings.resolution_um, rel=1e-4)
    assert run["ring_correlation"]["of"] == "halves"
    np.testing.assert_allclose(run["ring_correlation"]["correlation"], rings.correlation[1:], atol=1e-4)
    np.testing.assert_allclose(run["ring_correlation"]["threshold"], rings.threshold[1:])

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("nothing is left to run")

    monkeypatch.setattr(driving, "watch", refuse)
    known = evidence.installed_metrics()
    monkeypatch.setattr(evidence, "installed_metrics", lambda: known)
    again = compare(dataset, tmp_path / "out", resume=True, **more)
    assert again.rows == found.rows


def plan(dataset: Dataset, known: Sequence[MetricRecord] = (), **asked: Any) -> evidence.Wanted:
    source = Source("small", dataset.digest, Path("data.safetensors"), (0.0,))
    wishes = {"held_out": None, "ring_correlation": False, "pictures": False}
    return evidence.wanted(dataset, source, known, **wishes | asked)[0]


def test_what_is_planned_follows_the_data(dataset: Dataset) -> None:
    """Held-out LEDs by default only where there is no truth, and not where there are too few, unless asked for."""
    measured = replace(dataset, truth=None)
    few = measured.select([0, 1, 3, 4])
    known, _ = evidence.installed_metrics()
    assert [part.name for part in plan(dataset).parts] == []
    assert [part.name for part in plan(measured).parts] == ["held-out"]
    assert plan(measured, held_out=False).parts == {}
    both = plan(dataset, held_out=True, ring_correlation=True).parts
    assert [(part.name, len(part.leds)) for part in both] == [("held-out", 8), ("half-1", 5), ("half-2", 4)]
    assert {source.digest for source in both.values()} == {dataset.select(part.leds).digest for part in both}
    assert plan(few).parts == {}
    assert "holding out LEDs needs at least 5" in plan(few).missing["held_out"]
    with pytest.raises(DataError, match="at least 5"):
        plan(few, held_out=True)
    assert "psnr" in plan(dataset, known).outputs.measures
    assert "psnr" not in plan(measured, known).outputs.measures
    assert "held_out" not in plan(measured, known).outputs.measures  # once its part is solved


def test_a_part_that_fails_leaves_its_own_cell_empty(dataset: Dataset) -> None:
    wanted = plan(dataset, held_out=True, ring_correlation=True)
    found = evidence._missing(wanted, {"held-out": "", "half-1": "the solve half 1 of the LEDs failed: why"})
    assert found == {"ring_resolution_um": "the solve half 1 of the LEDs failed: why"}
    assert evidence._measures({"held-out": ""}) == ["held_out"]
    assert evidence._measures({"held-out": "", "half-1": "no", "half-2": ""}) == ["held_out"]


def test_metrics_of_packages_that_die_when_listed_are_left_out(
    tmp_path: Path, install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    install("planes")
    assert "planes" in {record.name for record in evidence.installed_metrics()[0]}
    (tmp_path / "site" / "bad.py").write_text("import os\nos.abort()\n")
    forget()
    known, trouble = evidence.installed_metrics()
    assert trouble.startswith("plugin 'crash' of bad: killed by SIGABRT while it was imported")
    assert {"psnr", "held_out"} <= {record.name for record in known}
    assert "planes" not in {record.name for record in known}
