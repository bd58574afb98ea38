"""Which of how many runs is under way, and when all will be done."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from fpmtools.cli import main
from fpmtools.cli._progress import bar_line
from fpmtools.comparison.pace import Pace

PROGRESS = {"event": "progress", "step": 10, "total": 40, "loss": 0.1, "psnr": 31.0, "seconds": 10.0}


class Clock:
    now = 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: found.now)
    return found


def test_runs_to_come_take_as_long_as_those_before(clock: Clock) -> None:
    pace = Pace(["a", "b", "a", "c"])
    pace.next()
    pace.begin()
    clock.now = 10.0
    unknown = {**PROGRESS, "remaining_s": None}
    assert pace.about(unknown) == {"number": 1, "count": 4, "all_remaining_s": None}
    assert pace.about({**PROGRESS, "remaining_s": 30.0})["all_remaining_s"] == 30 + 3 * 40
    clock.now = 50.0
    pace.end()
    pace.next()
    pace.begin()
    clock.now = 55.0
    assert pace.about({**PROGRESS, "remaining_s": 5.0})["all_remaining_s"] == 5 + 50 + 50
    assert pace.about(unknown)["all_remaining_s"] == 45 + 50 + 50
    clock.now = 60.0
    pace.end()  # b took 10 s, so the usual is 30
    pace.next()
    pace.begin()
    assert pace.about(unknown) == {"number": 3, "count": 4, "all_remaining_s": 50 + 30}
    assert pace.about({"event": "start"}) == {"number": 3, "count": 4}


def test_what_is_left_out_is_not_waited_for(clock: Clock) -> None:
    pace = Pace(["a", "b", "c"])
    pace.next()
    pace.pass_over()
    pace.next()
    pace.begin()
    clock.now = 2.0
    assert pace.about({**PROGRESS, "remaining_s": 4.0}) == {"number": 3, "count": 3, "all_remaining_s": 4.0}


@pytest.mark.parametrize("room", [60, 79, 120])
def test_it_fits_the_terminal(room: int) -> None:
    event = {**PROGRESS, "remaining_s": 30.0, "all_remaining_s": 250.0}
    line = bar_line("run 2 of 6: adam:sweeps=20:step=0.1, half 2 of the LEDs", event, room)
    assert len(line) <= room
    assert "10.0 s, 30 s left (all 4 min)" in line
    assert line.startswith("run 2 of")


@pytest.mark.usefixtures("warm_workers")
def test_lines_and_events_count_the_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", "--data", "sim:thin@16x24", "--solvers", "ap:sweeps=1,ap:sweeps=2", "--z", "0", "--no-tracking"]
    words += ["--calibrate", "none", "--held-out", "--progress", "json", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    starts = [(e["number"], e["count"], e.get("phase")) for e in events if e["event"] == "start" and "number" in e]
    part = "without held-out LEDs"
    assert starts == [(1, 4, None), (2, 4, None), (3, 4, part), (4, 4, part)]
    left = [event["all_remaining_s"] for event in events if event["event"] == "progress"]
    assert left[-1] == pytest.approx(0, abs=0.5)
