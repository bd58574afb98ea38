"""Quality on the way, peak memory, and what is written down of what was found out."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fpmtools.engine import reconstruct, solve
from fpmtools.leds import direction_sines, raster
from fpmtools.options import make_options
from fpmtools.problem import prepare
from fpmtools.reconstruction import Grid, PlaneStack
from fpmtools.registry import solver_class
from fpmtools.runs import tracking
from fpmtools.runs.document import with_evidence
from fpmtools.runs.journal import Entries, Found, Journal
from fpmtools.runs.memory import PeakMemory
from fpmtools.runs.tasks import metric_task
from fpmtools.runs.tracking import Tracker
from fpmtools.simulation import simulate


def test_journal_survives_who_writes_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.read() == Entries()
    journal.begin("a")
    journal.end("a", Found(float("nan")))
    journal.begin("b")
    journal.end("b", Found(reason="no"))
    journal.begin("c")
    with journal.path.open("a") as file:
        file.write('{"step": "c", "val')  # the process died here
    assert journal.read() == Entries({"a": Found(None), "b": Found(None, "no")}, "c", {"c": 1})
    journal.begin("c")  # and once more: what is written after a torn line is not lost with it
    assert journal.read().in_vain == {"c": 2}
    journal.keep_only_values()
    assert journal.read() == Entries({"a": Found(None)})


def test_peak_memory_without_what_was_aside() -> None:
    """In a process of its own: what other tests have had in memory would count."""
    code = """if True:
        import sys
        import numpy as np
        from fpmtools.runs.memory import PeakMemory
        memory = PeakMemory()
        before = memory.mb()
        with memory.aside():
            np.ones(40_000_000)  # 320 MB
        print(memory.mb() - before, file=sys.stderr)
        np.ones(40_000_000)
        print(memory.mb() - before, file=sys.stderr)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    aside, counted = done.stderr.split()
    assert 0 <= float(aside) < 100
    assert float(counted) > 200


def test_tracking_takes_no_longer_than_solving(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where looking takes long it is done seldom; the end is always recorded, and with a target all is looked at."""
    monkeypatch.setattr(tracking, "FREE_S", 0.0)
    dataset = simulate("thin", image_shape=(17, 22), leds=direction_sines(raster(3, 3, 9.0), 74.0))
    result = reconstruct(dataset, "ap", options={"sweeps": 1}, device="cpu")
    seldom, always = (Tracker(dataset, targets, lambda point: None, PeakMemory()) for targets in ({}, {"psnr": 1e3}))
    for seconds in (1e-6, 2e-6, 1e3, 2e3):
        assert not seldom(seconds, result)
        assert not always(seconds, result)
    assert [point["seconds"] for point in seldom.points] == [1e-6, 1e3, 2e3]
    assert len(always.points) == 4
    seldom._spent_s = 1e9
    seldom(3e3, result)
    assert [len(tracker.record()["quality_over_time"]) for tracker in (seldom, always)] == [3, 4]
    final = {metric_task("psnr"): Found(1.0), metric_task("ssim"): Found(0.5)}
    for tracker, end in ((seldom, 4e3), (always, 2e3)):
        document = with_evidence({**tracker.record(), "times": {"solve_s": end}}, final)
        assert document["quality_over_time"][-1]["seconds"] == end
        assert len(document["quality_over_time"]) == 4


def test_tracking_gives_up_on_a_result_that_cannot_be_looked_at() -> None:
    dataset = simulate("thin", image_shape=(17, 22), leds=direction_sines(raster(3, 3, 9.0), 74.0))

    class Broken(PlaneStack):
        def native_field(self, z_um: float) -> Any:
            raise RuntimeError("no field")

    result = Broken(np.zeros((1, 34, 44), np.complex64), (0.0,), Grid((34, 44), (10.0, 13.0), (0.0, 0.0)))
    heard: list[str] = []
    tracker = Tracker(dataset, {}, lambda event: heard.append(event["event"]), PeakMemory())
    assert not tracker(1.0, result)
    assert not tracker(2.0, result)
    assert heard == ["looking"]
    assert "RuntimeError: no field" in tracker.record()["untracked"]
    with pytest.raises(RuntimeError):
        Tracker(dataset, {"psnr": 1.0}, lambda event: None, PeakMemory())(1.0, result)


def test_tracking_stops_at_the_target_and_changes_nothing() -> None:
    """Looking at the result on the way, however often, leaves the result as it is, to the bit."""
    na = direction_sines(raster(3, 3, 9.0), 74.0)
    dataset = simulate("tilted", image_shape=(17, 22), leds=na, tilt_um=2.0)
    cls = solver_class("ap")

    def run(sweeps: int, target: float | None) -> tuple[Any, Tracker]:
        solver = cls(make_options(cls, {"sweeps": sweeps, "join_below": 0}))
        targets = {} if target is None else {"psnr": target}
        tracker = Tracker(dataset, targets, lambda point: None, PeakMemory())
        problem = prepare(dataset, solver, z_um=(-1.0, 1.0), device="cpu")
        return solve(problem, solver, on_snapshot=tracker, snapshot_growth=tracker.growth), tracker

    often, tracker = run(300, 1e3)
    cls_solver = cls(make_options(cls, {"sweeps": 300, "join_below": 0}))
    alone = solve(prepare(dataset, cls_solver, z_um=(-1.0, 1.0), device="cpu"), cls_solver)
    for z_um in (-1.0, 1.0):
        np.testing.assert_array_equal(often.reconstruction.field(z_um), alone.reconstruction.field(z_um))
    assert often.status == "done"
    assert tracker.record()["seconds_to_target"] is None
    seconds = [point["seconds"] for point in tracker.points]
    assert len(seconds) > 3
    assert all(later > earlier for earlier, later in itertools.pairwise(seconds))

    reachable = min(point["psnr"] for point in tracker.points) - 0.5
    ended, tracker = run(100_000, reachable)
    assert ended.status == "reached"
    assert ended.steps < ended.total_steps
    assert tracker.record()["seconds_to_target"] == tracker.points[-1]["seconds"] <= ended.seconds
    assert tracker.points[-1]["psnr"] >= reachable
